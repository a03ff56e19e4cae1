//! The way of one connection to the proxy: read its head, judge it, pass it on or say why not.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::answer::Refused;
use super::head::{self, Bad, Head};
use super::intercept::Interceptor;
use super::proxy::{Passed, Proxy, answer_and_close};
use super::{Attempt, Kind, Refusal, network, plain, tunnel};

/// Where clients come in.
#[derive(Debug)]
pub struct Door {
    proxy: Proxy,
    interceptor: Option<Interceptor>,
}

impl Door {
    pub fn new(proxy: Proxy, interceptor: Option<Interceptor>) -> Self {
        Self { proxy, interceptor }
    }

    pub async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        match self.receive(&mut stream).await {
            Ok(passed) if passed.head.kind == Kind::Connect => {
                tunnel::serve(&self.proxy, self.interceptor.as_ref(), stream, passed).await;
            }
            Ok(passed) => plain::serve(&self.proxy, stream, passed).await,
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
                if bytes.len() > self.proxy.bounds.head_bytes {
                    return Err(());
                }
            }
        };
        match timeout(self.proxy.bounds.head_time, reading).await {
            Ok(Ok(Some(end))) if end <= self.proxy.bounds.head_bytes => Ok((bytes, end)),
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
        self.proxy.egress.judge(head)?;
        if self.proxy.is_spent() {
            return Err(Refusal::Bytes);
        }
        let place = self.proxy.places.clone().try_acquire_owned().map_err(|_| Refusal::TooMany)?;
        // Only now: the question alone tells the name's owner something.
        let addresses =
            network::resolve(&*self.proxy.network, &head.name, &self.proxy.bounds).await?;
        Ok((addresses, place))
    }

    /// Records a refusal and answers it.
    async fn refuse(&self, stream: &mut UnixStream, bad: &Bad) {
        let Bad { kind, reason, target, port, why } = bad;
        self.proxy.ledger.attempt(Attempt::new(*kind, target, *port, Err(*reason)));
        // Only what is surely a name is said back.
        let name =
            crate::config::Name::parse(target).map(|name| name.to_string()).unwrap_or_default();
        let refused = Refused { reason: *reason, target: &name, port: *port, why };
        answer_and_close(stream, &refused.to_bytes()).await;
    }
}
