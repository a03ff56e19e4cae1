//! The one way in which this room opens connections.

use std::path::Path;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::{Certificate, Url, redirect};

use super::{Error, Fault, address};

/// An HTTP client for the server at `base`.
///
/// - A proxy that the environment names is used as other programs use it, except for servers on
///   this machine: what listens here is never meant to be asked through another host.
/// - No redirects: the Authorization header must not follow one.
/// - No idle connections: servers drop them after a few seconds, and a request that meets such a
///   drop would look like a fault of the model. A loopback connection costs less than that doubt.
/// - Answers uncompressed, which a stream of words is best; what comes compressed is decoded.
/// - The machine's trust store is read (milliseconds) only where TLS is spoken; that store, and
///   `authorities` besides, make a server behind a company's authority work.
pub fn build(
    base: &Url,
    connect_timeout: Duration,
    authorities: Option<&Path>,
) -> Result<reqwest::Client, Error> {
    // Ring for the whole process; another room may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = (ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut builder = reqwest::Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .http1_only()
        .pool_max_idle_per_host(0)
        .tcp_nodelay(true)
        .connect_timeout(connect_timeout)
        .default_headers(HeaderMap::from_iter([identity]))
        .user_agent(concat!("sandbox-mcp/", env!("CARGO_PKG_VERSION")));
    let proxy = proxy(base);
    if proxy.is_none() {
        builder = builder.no_proxy();
    }
    let secure = |scheme: &str| scheme == "https";
    if secure(base.scheme()) || proxy.is_some_and(|proxy| proxy.scheme_str().is_some_and(secure)) {
        builder = builder.tls_certs_merge(authorities.map_or(Ok(Vec::new()), read)?);
    } else {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|error| Error::Client { why: error.to_string() })
}

fn read(path: &Path) -> Result<Vec<Certificate>, Error> {
    let refuse = |why: String| Error::Authorities { path: path.display().to_string(), why };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if authorities.is_empty() => Err(refuse("it holds no certificate".into())),
        Ok(authorities) => Ok(authorities),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// The proxy that the environment names for this address (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`,
/// unless `NO_PROXY` has it).
fn proxy(base: &Url) -> Option<http::Uri> {
    if address::is_loopback(base) {
        return None;
    }
    let uri = base.as_str().parse().ok()?;
    Matcher::from_env().intercept(&uri).map(|proxy| proxy.uri().clone())
}

/// `fault`, and that it may be the proxy's.
pub fn through(base: &Url, mut fault: Fault) -> Fault {
    if let Some(proxy) = proxy(base)
        && let Some(host) = proxy.host()
    {
        let asked = base.host_str().unwrap_or_default();
        let before = fault.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        fault.hint = Some(format!(
            "{asked} was asked through the proxy {host} of the environment; put it into NO_PROXY \
             to ask it directly{before}"
        ));
    }
    fault
}
