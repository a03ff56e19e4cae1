//! Where to listen, and where not without an explicit yes.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::config::Http;

/// What was asked for at the command line.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    pub address: SocketAddr,
    /// The explicit yes to an address that others can reach.
    pub allow_remote: bool,
}

/// Why nothing can be taken at this address.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "refused to listen on {0}, which other machines can reach: whoever has the token can run \
         tasks in your folders, and without TLS it can be read on the way; bind 127.0.0.1 and put \
         a TLS proxy in front, or say `--allow-remote` (or `[http] allow_remote = true`)"
    )]
    Remote(SocketAddr),
    #[error(
        "failed to listen on {0}: something else listens there already; `ss -ltnp 'sport = :{port}'` \
         shows what; end that, or choose another port, such as 0 for any free one",
        port = .0.port()
    )]
    InUse(SocketAddr),
    #[error("failed to listen on {0}: {1}")]
    Bind(SocketAddr, #[source] io::Error),
    #[error("failed to learn the address that is listened on: {0}")]
    Address(#[source] io::Error),
}

impl Listen {
    pub(super) async fn bind(self, settings: &Http) -> Result<TcpListener, ListenError> {
        let Self { address, allow_remote } = self;
        if !(address.ip().is_loopback() || allow_remote || settings.allow_remote) {
            return Err(ListenError::Remote(address));
        }
        TcpListener::bind(address).await.map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => ListenError::InUse(address),
            _ => ListenError::Bind(address, error),
        })
    }
}
