//! From a name to a connection, with the addresses judged in between.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::rules::Bounds;
use super::{Refusal, address};
use crate::config::Name;

/// Lookups at the same time. A system's resolver cannot be interrupted and holds a thread.
const MAX_LOOKUPS: usize = 16;
/// Addresses of one name that are tried in turn.
const MAX_TRIED: usize = 8;
/// For one of several addresses.
const ONE_CONNECT: Duration = Duration::from_secs(4);

type Pending<T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send>>;

/// The outside world, which tests replace by one of their own on the loopback.
pub trait Network: Debug + Send + Sync {
    fn resolve(&self, name: &Name) -> Pending<Vec<IpAddr>>;
    fn judge(&self, address: IpAddr) -> Result<(), Refusal>;
    fn dial(&self, address: SocketAddr) -> Pending<TcpStream>;
    /// How servers prove who they are, where the proxy itself speaks TLS with them.
    fn trust(&self) -> Result<Arc<ClientConfig>, rustls::Error>;
}

/// The real one.
#[derive(Debug)]
pub struct Internet {
    lookups: Arc<Semaphore>,
}

impl Default for Internet {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }
}

impl Network for Internet {
    fn resolve(&self, name: &Name) -> Pending<Vec<IpAddr>> {
        // The dot makes it absolute: no search list of this machine is tried.
        let name = format!("{name}.");
        let lookups = self.lookups.clone();
        Box::pin(async move {
            let place = lookups.acquire_owned().await.map_err(io::Error::other)?;
            // A task, because the place is taken until the lookup ends, however long we wait.
            let lookup = tokio::spawn(async move {
                let found = tokio::net::lookup_host((name, 0)).await;
                drop(place);
                found.map(|addresses| addresses.map(|address| address.ip()).collect())
            });
            lookup.await.map_err(io::Error::other)?
        })
    }

    fn judge(&self, address: IpAddr) -> Result<(), Refusal> {
        address::judge(address)
    }

    fn dial(&self, address: SocketAddr) -> Pending<TcpStream> {
        Box::pin(TcpStream::connect(address))
    }

    /// This machine's trust store, as for the model server.
    fn trust(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_platform_verifier()?
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The addresses of `name`: looked up here and nowhere else, so that what was judged is what is
/// connected to. One bad address spoils the name: an answer that mixes good and bad ones is what
/// an attack by rebinding looks like.
pub async fn resolve(
    network: &dyn Network,
    name: &Name,
    bounds: &Bounds,
) -> Result<Vec<IpAddr>, Refusal> {
    let resolving = timeout(bounds.resolve_time, network.resolve(name));
    let found = resolving.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let found = found.map_err(|error| {
        tracing::debug!(%name, %error, "not resolved");
        Refusal::Unresolvable
    })?;
    if found.is_empty() {
        return Err(Refusal::Unresolvable);
    }
    found.iter().try_for_each(|address| network.judge(*address))?;
    Ok(found)
}

/// A connection to the first of `addresses` that takes one.
pub async fn connect(
    network: &dyn Network,
    addresses: &[IpAddr],
    port: u16,
    bounds: &Bounds,
) -> Result<TcpStream, Refusal> {
    let trying = async {
        for address in addresses.iter().take(MAX_TRIED) {
            let dialling = network.dial(SocketAddr::new(*address, port));
            if let Ok(Ok(stream)) = timeout(ONE_CONNECT, dialling).await {
                // Small pieces go on at once; without it they are only slower.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
        }
        Err(Refusal::Unreachable)
    };
    timeout(bounds.connect_time, trying).await.unwrap_or(Err(Refusal::Unreachable))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether this machine's resolver knows these names or not, nothing of it may be reached.
    #[tokio::test]
    async fn the_real_resolver_leads_nowhere_near() {
        let bounds = Bounds { resolve_time: Duration::from_secs(5), ..Bounds::default() };
        for name in ["x.localhost", "localhost.localdomain", "nobody.invalid"] {
            let name = Name::parse(name).expect("a name");
            let refused = resolve(&Internet::default(), &name, &bounds).await.expect_err("refused");
            assert!(matches!(refused, Refusal::Unresolvable | Refusal::PrivateAddress), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_is_not_waited_for() {
        #[derive(Debug)]
        struct Silent;
        impl Network for Silent {
            fn resolve(&self, _: &Name) -> Pending<Vec<IpAddr>> {
                Box::pin(std::future::pending())
            }

            fn judge(&self, _: IpAddr) -> Result<(), Refusal> {
                Ok(())
            }

            fn dial(&self, _: SocketAddr) -> Pending<TcpStream> {
                Box::pin(std::future::pending())
            }

            fn trust(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
                Err(rustls::Error::UnsupportedNameType)
            }
        }
        let (name, bounds) = (Name::parse("a.example.com").expect("a name"), Bounds::default());
        let started = tokio::time::Instant::now();
        assert_eq!(resolve(&Silent, &name, &bounds).await, Err(Refusal::Unresolvable));
        assert_eq!(started.elapsed(), bounds.resolve_time);
        let many = [IpAddr::from([192, 0, 2, 1]); 100];
        let connected = connect(&Silent, &many, 443, &bounds).await;
        assert!(matches!(connected, Err(Refusal::Unreachable)));
        assert_eq!(started.elapsed(), bounds.resolve_time + bounds.connect_time);
    }
}
