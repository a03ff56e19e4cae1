//! A port of this machine's loopback that a person opened for the sandbox.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use tokio::net::UnixStream;

use super::meter::{Meter, Metered};
use super::network::{self, Network};
use super::rules::Bounds;
use super::{Attempt, Kind, Refusal};
use crate::gateway::ledger::Ledger;

/// As the sandbox's own loopback shows it.
const TARGET: &str = "localhost";
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[derive(Debug)]
pub struct HostPort {
    pub port: u16,
    pub network: Arc<dyn Network>,
    pub bounds: Bounds,
    pub ledger: Arc<Ledger>,
}

impl HostPort {
    pub async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        let opened = if self.ledger.egress_moved(0, 0) > self.bounds.bytes {
            Err(Refusal::Bytes)
        } else {
            network::connect(&*self.network, &LOOPBACK, self.port, &self.bounds).await
        };
        let record = |outcome| {
            self.ledger.attempt(Attempt::new(Kind::HostPort, TARGET, self.port, outcome));
        };
        let upstream = match opened {
            Ok(upstream) => upstream,
            // Closing is all that can be said in a protocol that we do not know.
            Err(reason) => return record(Err(reason)),
        };
        record(Ok(()));
        let meter = Meter::new(self.ledger.clone(), self.bounds.bytes);
        let mut upstream = Metered::new(upstream, meter.clone());
        let copied = tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut stream, &mut upstream) => copied,
            () = meter.idle(self.bounds.idle_time) => return,
        };
        match copied {
            Err(error) if error.kind() == std::io::ErrorKind::QuotaExceeded => {
                record(Err(Refusal::Bytes));
            }
            Err(error) => tracing::debug!(%error, "a connection to a host port broke"),
            Ok(_) => {}
        }
    }
}
