//! The head of a request to the proxy, judged byte for byte before anything acts on it.
//!
//! Only two shapes pass: `CONNECT name:port` and `GET http://name/…`. What a lenient reader could
//! understand differently (bare line feeds, folded or doubled headers, a length besides chunks, a
//! Host that says something else than the target) does not.

use httparse::{EMPTY_HEADER, Header, Status};

use super::{Kind, Refusal};
use crate::config::{Name, NotAName};

/// Most headers of one request.
const MAX_HEADERS: usize = 64;
/// The methods that pass besides `CONNECT`. `TRACE` would show what hops add.
pub const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A request that is well-formed; whether it may pass is another's question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// [`Kind::Connect`] or [`Kind::Http`].
    pub kind: Kind,
    pub name: Name,
    pub port: u16,
}

/// A request that is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    pub kind: Kind,
    pub reason: Refusal,
    /// What was asked for, as far as it could be read. Untrusted.
    pub target: String,
    pub port: u16,
    pub why: &'static str,
}

/// Where a head ends, behind the empty line that ends it. `seen` bytes have been looked at before.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    // The end may be cut anywhere.
    let from = seen.saturating_sub(3);
    let at = bytes.get(from..)?.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(from + at + 4)
}

/// Reads a head, whole and with nothing behind it.
pub fn parse(head: &[u8]) -> Result<Head, Bad> {
    let line = head.split(|byte| *byte == b'\r' || *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(&line[..line.len().min(600)]);
    let connect = line.starts_with("CONNECT ");
    let asked = line.split(' ').nth(1).unwrap_or_default();
    read(head).map_err(|(reason, why)| {
        let authority = asked.split_once("://").map_or(asked, |(_, rest)| rest);
        let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
        let (target, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().unwrap_or(0)),
            None if connect || authority.is_empty() => (authority, 0),
            None => (authority, 80),
        };
        let kind = if connect { Kind::Connect } else { Kind::Http };
        Bad { kind, reason, target: target.to_owned(), port, why }
    })
}

type Reason = (Refusal, &'static str);

fn malformed<T>(why: &'static str) -> Result<T, Reason> {
    Err((Refusal::Malformed, why))
}

fn read(head: &[u8]) -> Result<Head, Reason> {
    if !has_plain_lines(head) {
        return malformed("its lines do not end as they must, or it has NUL bytes");
    }
    // The parser would skip empty lines in front.
    if !head.first().is_some_and(u8::is_ascii_uppercase) {
        return malformed("it does not begin with a method");
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(Status::Complete(length)) if length == head.len()) {
        return malformed("it is not an HTTP/1 request");
    }
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return malformed("it is not an HTTP/1 request");
    };
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return malformed("its target has other than plain ASCII characters");
    }
    let framed = check_framing(request.headers, version)?;
    if method == "CONNECT" {
        if framed {
            return malformed("a CONNECT has no body");
        }
        let (name, port) = authority(target)?;
        let Some(port) = port else { return malformed("a CONNECT names a port") };
        // Old clients (Python up to 3.11) send HTTP/1.0 and no Host.
        check_host(request.headers, version, &name, |host| host.is_none_or(|host| host == port))?;
        return Ok(Head { kind: Kind::Connect, name, port });
    }
    if !METHODS.contains(&method) {
        return malformed("its method does not pass");
    }
    let Some(rest) = target.strip_prefix("http://") else {
        return malformed(
            "this is a proxy: it takes `CONNECT name:443` for https and `GET http://name/…`",
        );
    };
    if rest.contains('#') {
        return malformed("a target has no fragment");
    }
    let (name, port) = authority(rest.split(['/', '?']).next().unwrap_or_default())?;
    let port = port.unwrap_or(80);
    check_host(request.headers, version, &name, |host| host.unwrap_or(80) == port)?;
    Ok(Head { kind: Kind::Http, name, port })
}

/// Every line ends with CR LF, neither of them stands elsewhere, and nothing is NUL.
fn has_plain_lines(head: &[u8]) -> bool {
    head.iter().enumerate().all(|(at, byte)| match byte {
        0 => false,
        b'\r' => head.get(at + 1) == Some(&b'\n'),
        b'\n' => at > 0 && head[at - 1] == b'\r',
        _ => true,
    })
}

fn values<'a>(headers: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// Whether there is a body; there must be no two opinions about its length.
fn check_framing(headers: &[Header<'_>], version: u8) -> Result<bool, Reason> {
    if values(headers, "upgrade").next().is_some() {
        return malformed("upgrades do not pass");
    }
    let lengths: Vec<_> = values(headers, "content-length").collect();
    let codings: Vec<_> = values(headers, "transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(false),
        ([length], []) => {
            let fit = (1..=18).contains(&length.len()) && length.iter().all(u8::is_ascii_digit);
            if fit { Ok(true) } else { malformed("its Content-Length is not a number") }
        }
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && version == 1 => Ok(true),
        _ => malformed("it says more than one thing about the length of its body"),
    }
}

/// The Host header must be there once (HTTP/1.0 may leave it out) and name the target.
fn check_host(
    headers: &[Header<'_>],
    version: u8,
    name: &Name,
    is_port: impl Fn(Option<u16>) -> bool,
) -> Result<(), Reason> {
    let mut hosts = values(headers, "host");
    match (hosts.next(), hosts.next()) {
        (None, _) if version == 0 => Ok(()),
        (Some(host), None) => {
            let host = std::str::from_utf8(host).ok().and_then(|host| authority(host).ok());
            match host {
                Some((host, port)) if host == *name && is_port(port) => Ok(()),
                _ => malformed("its Host header does not name its target"),
            }
        }
        _ => malformed("it must have one Host header"),
    }
}

/// `name` or `name:port`, and nothing else.
fn authority(text: &str) -> Result<(Name, Option<u16>), Reason> {
    let bad_name = |why: NotAName| match why {
        NotAName::Address => (why.into(), "addresses never pass, only names"),
        NotAName::Malformed => (why.into(), "its host is not a name of at least two labels"),
    };
    if text.contains('@') {
        return malformed("its target holds a user's name");
    }
    // An IPv6 address is full of colons.
    if text.starts_with('[') || text.matches(':').count() > 1 {
        return Err(bad_name(Name::parse(text).err().unwrap_or(NotAName::Malformed)));
    }
    let Some((name, port)) = text.split_once(':') else {
        return Ok((Name::parse(text).map_err(bad_name)?, None));
    };
    let digits = (1..=5).contains(&port.len())
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.starts_with('0');
    match port.parse() {
        Ok(port) if digits => Ok((Name::parse(name).map_err(bad_name)?, Some(port))),
        _ => malformed("its port is not a number from 1 to 65535"),
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
