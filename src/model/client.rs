//! The one way in which this room opens connections.

use std::time::Duration;

use reqwest::{Url, redirect};

use super::Error;

/// An HTTP client for the server at `base`.
///
/// - No proxy from the environment: a model server is in the user's own network, and a prompt must
///   not travel through a host that nobody named.
/// - No redirects: the Authorization header must not follow one.
/// - No idle connections: servers drop them after a few seconds, and a request that meets such a
///   drop would look like a fault of the model. A loopback connection costs less than that doubt.
/// - The machine's trust store is read (milliseconds) only where TLS is spoken; that store, not a
///   list of our own, is what makes a server behind a company's authority work.
pub fn build(base: &Url, connect_timeout: Duration) -> Result<reqwest::Client, Error> {
    // Ring for the whole process; another room may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .pool_max_idle_per_host(0)
        .tcp_nodelay(true)
        .connect_timeout(connect_timeout)
        .user_agent(concat!("sandbox-mcp/", env!("CARGO_PKG_VERSION")));
    let builder = if base.scheme() == "https" { builder } else { builder.tls_certs_only([]) };
    builder.build().map_err(|error| Error::Client { why: error.to_string() })
}
