//! What all connections to the proxy share, and what each is when it has passed the checks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::head::Head;
use super::meter::Meter;
use super::network::{self, Network};
use super::rules::{Bounds, Egress};
use super::{Attempt, Refusal};
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
    pub places: Arc<Semaphore>,
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
    /// Kept as long as the connection lasts.
    pub _place: OwnedSemaphorePermit,
}

impl Proxy {
    pub fn new(
        egress: Egress,
        network: Arc<dyn Network>,
        bounds: Bounds,
        ledger: Arc<Ledger>,
    ) -> Self {
        let places = Arc::new(Semaphore::new(bounds.tunnels));
        Self { egress, network, bounds, ledger, places }
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
