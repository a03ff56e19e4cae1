//! One run's gateway, from the making of its folder to its removal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::egress::{Bounds, Door, Egress, HostPort, Interceptor, Internet, Network, Proxy};
use super::folder::PrivateFolder;
use super::ledger::{Ledger, Record, Traffic};
use super::relay::Relay;
use super::{Error, listener};
use crate::config::Config;
use crate::model::Endpoint;

/// The name of the model relay's socket, in the folder that the sandbox sees.
const MODEL_SOCKET: &str = "model.sock";
/// The name of the egress proxy's.
const EGRESS_SOCKET: &str = "egress.sock";
/// The file with the certificate of the run's authority.
const AUTHORITY_FILE: &str = "authority.pem";

/// What a gateway is opened with.
#[derive(Debug)]
pub struct Options {
    /// A folder for this run alone. It must not exist; what is above it is made where missing.
    pub folder: PathBuf,
    /// uid and gid, as this machine sees them, that the sandbox runs as; `None` for our own.
    pub owner: Option<(u32, u32)>,
    pub endpoint: Endpoint,
    pub limits: Limits,
    pub egress: Egress,
}

/// How much a sandbox may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the model begins its answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer.
    pub stall_timeout: Duration,
    /// Model requests in the whole run.
    pub max_requests: u64,
    /// Bytes of one request.
    pub max_body: usize,
    /// Until a request has arrived whole.
    pub body_time: Duration,
    /// Connections at the same time.
    pub max_connections: usize,
    pub max_headers: usize,
    pub max_header_bytes: usize,
    /// Until a connection has sent the head of its (next) request.
    pub header_time: Duration,
    /// For all that is not the model.
    pub egress: Bounds,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(60),
            max_requests: 200,
            max_body: 32 * 1024 * 1024,
            body_time: Duration::from_secs(30),
            max_connections: 32,
            max_headers: 64,
            max_header_bytes: 32 * 1024,
            header_time: Duration::from_secs(30),
            egress: Bounds::default(),
        }
    }
}

impl Limits {
    pub fn new(config: &Config) -> Self {
        Self {
            first_byte_timeout: Duration::from_secs(config.model.first_byte_timeout.max(1)),
            stall_timeout: Duration::from_secs(config.model.stall_timeout.max(1)),
            max_requests: config.limits.max_requests.into(),
            ..Self::default()
        }
    }
}

/// The sockets of one run and those who serve them. Dropping it stops them and removes the folder;
/// [`Gateway::close`] does the same and says whether it worked.
#[derive(Debug)]
pub struct Gateway {
    // Fields are dropped in this order: first nobody serves, then the folder goes.
    servers: Vec<AbortOnDropHandle<()>>,
    folder: PrivateFolder,
    authority: Option<PathBuf>,
    stop: CancellationToken,
    ledger: Arc<Ledger>,
    traffic: UnboundedReceiver<Traffic>,
}

impl Gateway {
    /// Makes the folder, binds the sockets and serves them.
    // Async because what is to come (resolving, sidecars) is, and it needs a runtime to spawn on.
    #[expect(clippy::unused_async)]
    pub async fn open(options: Options) -> Result<Self, Error> {
        Self::open_on(options, Arc::new(Internet::default()))
    }

    pub(super) fn open_on(options: Options, network: Arc<dyn Network>) -> Result<Self, Error> {
        let Options { folder, owner, endpoint, limits, egress } = options;
        let (ledger, traffic) = Ledger::new();
        let ledger = Arc::new(ledger);
        let relay = Arc::new(Relay::new(endpoint, limits, ledger.clone())?);
        let folder = PrivateFolder::create(&folder, owner)?;
        let socket = folder.bind(MODEL_SOCKET)?;
        let egress_socket = folder.bind(EGRESS_SOCKET)?;
        let ports = host_ports(&folder, &egress.host_ports)?;
        let (interceptor, authority) = Interceptor::new(&egress.credentials, &*network)?.unzip();
        let authority = authority.map(|pem| folder.write(AUTHORITY_FILE, &pem)).transpose()?;
        let stop = CancellationToken::new();
        let server = listener::serve(socket, limits, stop.clone(), move |request| {
            relay.clone().serve(request)
        });
        let mut servers = vec![AbortOnDropHandle::new(tokio::spawn(server))];
        let bounds = limits.egress;
        for (port, socket) in ports {
            let (network, ledger) = (network.clone(), ledger.clone());
            let port = Arc::new(HostPort { port, network, bounds, ledger });
            let handle = move |stream| port.clone().serve(stream);
            let server = listener::accept(socket, bounds.host_port_clients, stop.clone(), handle);
            servers.push(AbortOnDropHandle::new(tokio::spawn(server)));
        }
        let proxy = Proxy::new(egress, network, bounds, ledger.clone());
        let proxy = Arc::new(Door::new(proxy, interceptor));
        let handle = move |stream| proxy.clone().serve(stream);
        let server = listener::accept(egress_socket, bounds.clients, stop.clone(), handle);
        servers.push(AbortOnDropHandle::new(tokio::spawn(server)));
        Ok(Self { servers, folder, authority, stop, ledger, traffic })
    }

    /// The folder of the sockets that the sandbox's ports lead to; it holds `model.sock`,
    /// `egress.sock` and a `port-<number>.sock` for each host port.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// If credentials are lent: the certificate (PEM, in [`Gateway::folder`]) that the sandbox has to
    /// trust, besides those it trusts anyway, to reach their hosts.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// What happens next. Nothing is lost if the future is dropped before it is ready.
    pub async fn next_event(&mut self) -> Option<Traffic> {
        self.traffic.recv().await
    }

    /// What has happened and was not asked for yet.
    pub fn try_next_event(&mut self) -> Option<Traffic> {
        self.traffic.try_recv().ok()
    }

    /// What has passed so far.
    pub fn record(&self) -> Record {
        self.ledger.record()
    }

    /// Stops serving, dropping requests where they stand, and removes the folder.
    pub async fn close(self) -> Result<Record, Error> {
        let Self { servers, mut folder, stop, ledger, .. } = self;
        stop.cancel();
        for server in servers {
            if let Err(error) = server.await {
                tracing::warn!(%error, "one of the gateway's listeners broke down");
            }
        }
        folder.remove()?;
        Ok(ledger.record())
    }
}

/// A socket for each port, once.
fn host_ports(folder: &PrivateFolder, ports: &[u16]) -> Result<Vec<(u16, UnixListener)>, Error> {
    let ports: BTreeSet<_> = ports.iter().copied().collect();
    if ports.contains(&0) {
        return Err(Error::HostPort);
    }
    ports.into_iter().map(|port| Ok((port, folder.bind(&format!("port-{port}.sock"))?))).collect()
}
