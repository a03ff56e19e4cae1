//! The way of one connection to the proxy: read its head, judge it, pass it on or say why not.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::Refused;
use super::head::{self, Bad, Head};
use super::intercept::Interceptor;
use super::meter::Meter;
use super::network::{self, Network};
use super::rules::{Bounds, Egress};
use super::{Attempt, Kind, Refusal, plain, tunnel};
use crate::gateway::ledger::Ledger;

/// How long, and for how many bytes, a refused client is listened to, so that it reads our answer
/// before it notices that we closed.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
pub struct Proxy {
    pub egress: Egress,
    pub network: Arc<dyn Network>,
    pub bounds: Bounds,
    pub ledger: Arc<Ledger>,
    pub interceptor: Option<Interceptor>,
    places: Arc<Semaphore>,
}

/// A request that passed every check before the connection itself.
#[derive(Debug)]
pub struct Passed {
    pub head: Head,
    /// What to connect to, and nothing else.
    pub addresses: Vec<IpAddr>,
    /// All that the client has sent so far: the head, and `behind` it.
    pub bytes: Vec<u8>,
    pub behind: usize,
    _place: OwnedSemaphorePermit,
}

impl Proxy {
    pub fn new(
        egress: Egress,
        interceptor: Option<Interceptor>,
        network: Arc<dyn Network>,
        bounds: Bounds,
        ledger: Arc<Ledger>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(bounds.tunnels));
        Self { egress, network, bounds, ledger, interceptor, places }
    }

    pub async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        match self.receive(&mut stream).await {
            Ok(passed) if passed.head.kind == Kind::Connect => {
                tunnel::serve(&self, stream, passed).await;
            }
            Ok(passed) => plain::serve(&self, stream, passed).await,
            Err(Some(bad)) => self.refuse(&mut stream, &bad).await,
            // It hung up before it had asked for anything.
            Err(None) => {}
        }
    }

    /// From the first byte to the decision.
    async fn receive(&self, stream: &mut UnixStream) -> Result<Passed, Option<Bad>> {
        let (bytes, behind) = self.read_head(stream).await?;
        let head = head::parse(&bytes[..behind])?;
        let decided = self.judge(&head).await;
        let (addresses, place) = decided.map_err(|reason| Bad {
            kind: head.kind,
            reason,
            target: head.name.to_string(),
            port: head.port,
            why: "",
        })?;
        Ok(Passed { head, addresses, bytes, behind, _place: place })
    }

    /// A head, and where it ends.
    async fn read_head(&self, stream: &mut UnixStream) -> Result<(Vec<u8>, usize), Option<Bad>> {
        let bad = |reason, why, bytes: &[u8]| {
            // What there is of it may still name its target.
            let read = head::parse(bytes).err();
            let read = read.filter(|_| !bytes.is_empty());
            let (kind, target, port) =
                read.map_or((Kind::Http, String::new(), 0), |bad| (bad.kind, bad.target, bad.port));
            Some(Bad { kind, reason, target, port, why })
        };
        let mut bytes = Vec::with_capacity(1024);
        let reading = async {
            loop {
                let seen = bytes.len();
                let read = stream.read_buf(&mut bytes).await;
                if !read.is_ok_and(|read| read > 0) {
                    return Ok(None);
                }
                if let Some(end) = head::end(&bytes, seen) {
                    return Ok(Some(end));
                }
                // No HTTP, so it has no end: SOCKS or TLS would wait for us until we gave up.
                if !bytes[0].is_ascii_uppercase() {
                    return Ok(Some(bytes.len()));
                }
                if bytes.len() > self.bounds.head_bytes {
                    return Err(());
                }
            }
        };
        match timeout(self.bounds.head_time, reading).await {
            Ok(Ok(Some(end))) if end <= self.bounds.head_bytes => Ok((bytes, end)),
            Ok(Ok(Some(_)) | Err(())) => {
                Err(bad(Refusal::Malformed, "its head is too long", &bytes))
            }
            // A connection opened in advance and never used is nobody's attempt.
            Ok(Ok(None)) | Err(_) if bytes.is_empty() => Err(None),
            Ok(Ok(None)) => Err(bad(Refusal::Malformed, "its head does not end", &bytes)),
            Err(_) => Err(bad(Refusal::TooSlow, "", &bytes)),
        }
    }

    async fn judge(&self, head: &Head) -> Result<(Vec<IpAddr>, OwnedSemaphorePermit), Refusal> {
        self.egress.judge(head)?;
        if self.is_spent() {
            return Err(Refusal::Bytes);
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| Refusal::TooMany)?;
        // Only now: the question alone tells the name's owner something.
        let addresses = network::resolve(&*self.network, &head.name, &self.bounds).await?;
        Ok((addresses, place))
    }

    pub async fn connect(&self, passed: &Passed) -> Result<tokio::net::TcpStream, Refusal> {
        let Passed { head, addresses, .. } = passed;
        network::connect(&*self.network, addresses, head.port, &self.bounds).await
    }

    /// Whether the run has moved all the bytes that it may.
    pub fn is_spent(&self) -> bool {
        self.ledger.egress_moved(0, 0) > self.bounds.bytes
    }

    pub fn meter(&self) -> Arc<Meter> {
        Meter::new(self.ledger.clone(), self.bounds.bytes)
    }

    pub fn record(&self, head: &Head, outcome: Result<(), Refusal>) {
        self.ledger.attempt(Attempt::new(head.kind, head.name.as_str(), head.port, outcome));
    }

    /// Records a refusal and answers it.
    async fn refuse(&self, stream: &mut UnixStream, bad: &Bad) {
        let Bad { kind, reason, target, port, why } = bad;
        self.ledger.attempt(Attempt::new(*kind, target, *port, Err(*reason)));
        // Only what is surely a name is said back.
        let name =
            crate::config::Name::parse(target).map(|name| name.to_string()).unwrap_or_default();
        let refused = Refused { reason: *reason, target: &name, port: *port, why };
        answer_and_close(stream, &refused.to_bytes()).await;
    }
}

/// The client may be gone or not read; then there is nobody to tell.
pub async fn answer_and_close(stream: &mut UnixStream, answer: &[u8]) {
    let answering = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    if let Ok(Err(error)) = timeout(LINGER, answering).await {
        tracing::debug!(%error, "a refused client hung up");
    }
}
