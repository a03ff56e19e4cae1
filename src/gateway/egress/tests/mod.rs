//! The proxy and the host ports as a sandbox meets them: over their sockets, with an internet of
//! ours behind them.

mod credentials;
mod hostile;
mod passing;
mod ports;
mod refusing;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConfig;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Attempt, Egress, Network, Outcome, Refusal, address};
use crate::config::{Domain, Name};
use crate::gateway::{Bounds, Gateway, Limits, Options, Traffic};
use crate::model::Endpoint;

pub use super::hello::tests::{real, records};

/// Stands in for an address on the internet. All other addresses are judged as they really are.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 77));

/// An internet of our own: names, and one address that counts as public.
#[derive(Debug, Default)]
pub struct World {
    pub names: HashMap<&'static str, Vec<IpAddr>>,
    /// Every name that was asked for, and every address that was connected to.
    pub asked: Mutex<Vec<String>>,
    pub dialled: Mutex<Vec<SocketAddr>>,
    /// The port that stands in for 443.
    pub secure: Option<u16>,
    /// Whom its servers are certified by.
    pub trust: Option<Arc<ClientConfig>>,
}

type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

impl Network for World {
    fn resolve(&self, name: &Name) -> Pending<Vec<IpAddr>> {
        self.asked.lock().expect("a log").push(name.to_string());
        let found = self.names.get(name.as_str()).cloned();
        Box::pin(async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }

    fn judge(&self, address: IpAddr) -> Result<(), Refusal> {
        if address == PUBLIC { Ok(()) } else { address::judge(address) }
    }

    fn dial(&self, address: SocketAddr) -> Pending<TcpStream> {
        self.dialled.lock().expect("a log").push(address);
        let port = self.secure.filter(|_| address.port() == 443).unwrap_or(address.port());
        Box::pin(TcpStream::connect((address.ip(), port)))
    }

    fn trust(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        self.trust.clone().ok_or(rustls::Error::General("nobody is trusted".into()))
    }
}

pub struct Bench {
    pub gateway: Gateway,
    pub world: Arc<World>,
    _place: TempDir,
}

/// Short enough for tests, long enough for a busy machine.
pub fn bounds() -> Bounds {
    Bounds {
        head_time: Duration::from_millis(500),
        hello_time: Duration::from_millis(500),
        ..Bounds::default()
    }
}

pub fn allow(domains: &[&str], ports: &[u16]) -> Egress {
    let allow = domains.iter().map(|domain| domain.parse::<Domain>().expect("a domain")).collect();
    Egress { allow, ports: ports.to_vec(), ..Egress::default() }
}

impl Bench {
    /// `example.com` and names below it are at the public address.
    pub fn open(egress: Egress) -> Self {
        let names = ["example.com", "a.example.com", "other.com"];
        let names = names.into_iter().map(|name| (name, vec![PUBLIC])).collect();
        Self::with(egress, bounds(), World { names, ..World::default() })
    }

    pub fn with(egress: Egress, bounds: Bounds, world: World) -> Self {
        let place = tempfile::tempdir().expect("a temporary folder");
        let options = Options {
            folder: place.path().join("run"),
            owner: None,
            endpoint: Endpoint::rehearsal(),
            limits: Limits { egress: bounds, ..Limits::default() },
            egress,
        };
        let world = Arc::new(world);
        let gateway = Gateway::open_on(options, world.clone()).expect("a gateway");
        Self { gateway, world, _place: place }
    }

    pub async fn dial_on(&self, socket: &str) -> UnixStream {
        UnixStream::connect(self.gateway.folder().join(socket)).await.expect("a connection")
    }

    pub async fn dial(&self) -> UnixStream {
        self.dial_on("egress.sock").await
    }

    /// Sends bytes as they are and returns all that comes back until the other side closes.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.dial().await;
        let _ = stream.write_all(bytes.as_ref()).await;
        read_all(&mut stream).await
    }

    /// A tunnel, as far as the proxy's answer to the `CONNECT`.
    pub async fn connect(&self, target: &str) -> (UnixStream, String) {
        let mut stream = self.dial().await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within(stream.read_u8()).await.expect("an answer"));
        }
        (stream, String::from_utf8(answer).expect("text"))
    }

    pub fn attempts(&mut self) -> Vec<Attempt> {
        std::iter::from_fn(|| self.gateway.try_next_event())
            .filter_map(|event| match event {
                Traffic::Egress(attempt) => Some(attempt),
                _ => None,
            })
            .collect()
    }

    /// The one attempt since the last time: what for, and what became of it.
    pub fn attempt(&mut self) -> (String, u16, Result<(), Refusal>) {
        let mut attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        let attempt = attempts.remove(0);
        let outcome = match attempt.outcome {
            Outcome::Allowed => Ok(()),
            Outcome::Refused { reason } => Err(reason),
        };
        (attempt.target, attempt.port, outcome)
    }

    pub fn dialled(&self) -> Vec<SocketAddr> {
        self.world.dialled.lock().expect("a log").clone()
    }
}

pub async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), what).await.expect("the gateway hangs")
}

pub async fn read_all(stream: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

pub fn reason(answer: &str) -> &str {
    let line = answer.lines().find_map(|line| line.strip_prefix("x-sandbox-refused: "));
    line.unwrap_or_default()
}

/// A listener that the sandbox may take for the internet.
pub async fn public() -> (TcpListener, u16) {
    let listener = TcpListener::bind((PUBLIC, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

/// Says back every byte, on any number of connections.
pub fn echo(listener: TcpListener) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    }))
}
