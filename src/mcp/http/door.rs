//! Who may come in: the name they call us by, the page they come from, the token they bring.
//!
//! A browser would let any page on the net talk to a server on this machine, by a name of its own
//! that resolves to the loopback. The `Host` it sends betrays the name and `Origin` the page.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use super::refusal::Refusal;
use super::token::TokenFile;
use crate::config::Http;
use crate::text::one_line;

#[derive(Debug)]
pub(super) struct Door {
    address: SocketAddr,
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
    token: TokenFile,
}

/// Where a page comes from, with the port in words.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Door {
    pub fn new(address: SocketAddr, settings: &Http, token: TokenFile) -> Self {
        Self {
            address,
            hosts: settings.allowed_hosts.iter().filter_map(|host| host.parse().ok()).collect(),
            origins: settings.allowed_origins.iter().filter_map(|one| Origin::parse(one)).collect(),
            token,
        }
    }

    /// The name that the client has for us must be ours.
    pub fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let named = only(headers, &HOST)?.ok_or_else(|| bad("the header `Host` is missing"))?;
        let named: Authority = named
            .to_str()
            .ok()
            .and_then(|host| host.parse().ok())
            .ok_or_else(|| bad("the header `Host` names no host"))?;
        // A request may carry a whole address in its first line, which then counts.
        for name in std::iter::once(&named).chain(uri.authority()) {
            if !self.is_ours(name) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    &format!("this server is not called `{}`", one_line(name.as_str(), 80)),
                    "use the address that it printed at its start; names that a proxy passes on \
                     belong into `[http] allowed_hosts`",
                ));
            }
        }
        Ok(())
    }

    fn is_ours(&self, name: &Authority) -> bool {
        if name.as_str().contains('@') {
            return false;
        }
        let host = plain(name.host());
        let port = name.port_u16().unwrap_or(80);
        let ip = host.parse::<IpAddr>().ok();
        let at_home = host == "localhost"
            || ip.is_some_and(|ip| {
                ip.is_loopback() || ip == self.address.ip() && !ip.is_unspecified()
            });
        let listed = |other: &Authority| {
            plain(other.host()) == host
                && match other.port_u16() {
                    Some(other) => other == port,
                    None => [80, 443].contains(&port),
                }
        };
        at_home && port == self.address.port() || self.hosts.iter().any(listed)
    }

    /// The page that a browser asks for, where it is one that may; none without a browser.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Refusal> {
        let Some(value) = only(headers, &ORIGIN)? else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        let allowed = Origin::parse(text)
            .is_some_and(|origin| origin.is_loopback() || self.origins.contains(&origin));
        if allowed {
            return Ok(Some(value.clone()));
        }
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            &format!("pages of `{}` may not use this server", one_line(text, 80)),
            "its owner can add the page's origin to `[http] allowed_origins`",
        ))
    }

    pub fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = only(headers, &AUTHORIZATION)?.and_then(|value| bearer(value.as_bytes()));
        let Some(given) = given else {
            return Err(unauthorized("the bearer token is missing"));
        };
        match self.token.is(given) {
            Ok(true) => Ok(()),
            Ok(false) => Err(unauthorized("the bearer token is not this server's")),
            Err(error) => {
                tracing::error!("{error}");
                Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "this server has no token to compare with",
                    "its log has the reason",
                ))
            }
        }
    }
}

fn unauthorized(what: &str) -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        what,
        "send `Authorization: Bearer TOKEN`; `sandbox-mcp token` prints it on the server's machine",
    )
}

fn bad(what: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what, "send it once, as HTTP/1.1 wants it")
}

/// The header's value; two of them are a trick on whoever reads only one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(bad(&format!("the header `{name}` is there twice"))),
    }
}

/// What stands behind `Bearer`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// A host without the brackets of its address, in small letters.
fn plain(host: &str) -> String {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.unwrap_or(host).to_ascii_lowercase()
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let usual = match scheme.as_str() {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority: Authority = rest.parse().ok()?;
        let behind = rest.strip_prefix(authority.host())?;
        let port = match behind.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if behind.is_empty() => usual,
            None => return None,
        };
        Some(Self { scheme, host: plain(authority.host()), port })
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(address: &str, settings: &Http) -> (tempfile::TempDir, Door) {
        let state = tempfile::tempdir().expect("temp");
        let token = TokenFile::in_state(state.path());
        let address = address.parse().expect("an address");
        (state, Door::new(address, settings, token))
    }

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value"))
        };
        given.iter().map(pair).collect()
    }

    fn host(door: &Door, host: &str) -> Option<StatusCode> {
        let uri = Uri::from_static("/mcp");
        door.check_host(&uri, &headers(&[("host", host)])).err().map(|refusal| refusal.status)
    }

    #[test]
    fn only_our_own_names_open_the_door() {
        let settings = Http {
            allowed_hosts: vec!["mcp.example.org".into(), "Box.lan:9000".into()],
            ..Http::default()
        };
        let (_state, door) = door("127.0.0.1:8443", &settings);
        for ours in [
            "127.0.0.1:8443",
            "localhost:8443",
            "LOCALHOST:8443",
            "[::1]:8443",
            "127.9.9.9:8443",
            "mcp.example.org",
            "mcp.example.org:443",
            "MCP.example.org:80",
            "box.lan:9000",
        ] {
            assert_eq!(host(&door, ours), None, "{ours}");
        }
        for other in [
            "localhost",
            "127.0.0.1",
            "localhost:8444",
            "evil.example:8443",
            "localhost.evil.example:8443",
            "127.0.0.1.evil.example:8443",
            "0.0.0.0:8443",
            "192.168.1.5:8443",
            "localhost:8443@evil.example",
            "evil@localhost:8443",
            "2130706433:8443",
            "box.lan",
            "mcp.example.org:8443",
            "localhost.:8443",
        ] {
            assert_eq!(host(&door, other), Some(StatusCode::FORBIDDEN), "{other}");
        }
        for bad in ["", "a b", "localhost:port", "http://localhost:8443"] {
            assert!(host(&door, bad).is_some(), "{bad}");
        }
        let absent = door.check_host(&Uri::from_static("/mcp"), &HeaderMap::new());
        assert_eq!(absent.expect_err("refused").status, StatusCode::BAD_REQUEST);
        let twice = headers(&[("host", "localhost:8443"), ("host", "localhost:8443")]);
        assert!(door.check_host(&Uri::from_static("/mcp"), &twice).is_err());
        let whole = Uri::from_static("http://evil.example/mcp");
        assert!(door.check_host(&whole, &headers(&[("host", "localhost:8443")])).is_err());
    }

    #[test]
    fn a_bound_address_is_a_name_of_ours_unless_it_is_all_of_them() {
        let (_state, one) = door("192.168.1.5:8443", &Http::default());
        assert_eq!(host(&one, "192.168.1.5:8443"), None);
        assert!(host(&one, "192.168.1.6:8443").is_some());
        let (_state, all) = door("0.0.0.0:8443", &Http::default());
        assert!(host(&all, "0.0.0.0:8443").is_some(), "browsers reach the loopback by it");
    }

    #[test]
    fn pages_of_this_machine_and_listed_ones_may_others_not() {
        let settings =
            Http { allowed_origins: vec!["https://chat.example".into()], ..Http::default() };
        let (_state, door) = door("127.0.0.1:8443", &settings);
        let origin = |origin: &str| door.check_origin(&headers(&[("origin", origin)]));
        assert!(matches!(door.check_origin(&HeaderMap::new()), Ok(None)));
        for good in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://[::1]:9",
            "https://chat.example",
            "https://chat.example:443",
        ] {
            assert_eq!(origin(good).expect(good).expect("an origin"), good);
        }
        for bad in [
            "null",
            "",
            "https://evil.example",
            "http://chat.example",
            "https://chat.example:8443",
            "https://chat.example.evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "http://evil.example#localhost",
            "file://localhost",
            "http://127.0.0.1.evil.example",
        ] {
            let refusal = origin(bad).expect_err(bad);
            assert_eq!(refusal.status, StatusCode::FORBIDDEN, "{bad}");
        }
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        let (_state, door) = door("127.0.0.1:8443", &Http::default());
        let given = |value: &str| door.check_token(&headers(&[("authorization", value)]));
        assert!(given("Bearer ").is_err(), "no token is made yet");
        let token = door.token.obtain().expect("made");
        for good in [format!("Bearer {token}"), format!("bearer   {token}")] {
            assert!(given(&good).is_ok(), "{good}");
        }
        for bad in [
            token.clone(),
            "Bearer".into(),
            "Bearer ".into(),
            format!("Basic {token}"),
            format!("Bearer {token}x"),
            format!("Bearer {token} {token}"),
            format!("Bearer {}", &token[1..]),
        ] {
            let refusal = given(&bad).expect_err("refused");
            assert_eq!(refusal.status, StatusCode::UNAUTHORIZED, "{bad}");
        }
        let twice = format!("Bearer {token}");
        let twice = headers(&[("authorization", "Bearer x"), ("authorization", &twice)]);
        assert!(door.check_token(&twice).is_err());
    }
}
