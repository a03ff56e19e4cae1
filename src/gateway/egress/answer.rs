//! What a sandbox is told when something does not pass.

use super::attempt::Refusal;

/// One refusal, with what the agent and a person need to know.
#[derive(Debug)]
pub struct Refused<'a> {
    pub reason: Refusal,
    /// Already judged to be a name, or not shown.
    pub target: &'a str,
    pub port: u16,
    /// Why a request is malformed.
    pub why: &'static str,
}

impl Refused<'_> {
    pub fn status(&self) -> u16 {
        match self.reason {
            Refusal::Malformed | Refusal::BadName => 400,
            Refusal::TooSlow => 408,
            Refusal::Unresolvable | Refusal::Unreachable | Refusal::UpstreamTls => 502,
            Refusal::TooMany => 503,
            _ => 403,
        }
    }

    pub fn text(&self) -> String {
        let Self { target, port, why, .. } = self;
        let what = match self.reason {
            Refusal::Malformed | Refusal::BadName => {
                return format!("sandbox-mcp: this request does not pass: {why}.\n");
            }
            Refusal::IpLiteral => {
                return "sandbox-mcp: addresses never pass, only names of allowed domains.\n"
                    .into();
            }
            Refusal::NotAllowed => format!(
                "is not among the allowed domains. A person can allow it: \
                 [egress] allow = [\"{target}\"]. Do not try to go around this."
            ),
            Refusal::Port if *port == 443 => "is for https; plain http does not pass there.".into(),
            Refusal::Port => format!(
                "is not an allowed port. A person can allow it: [egress] ports = [{port}]. \
                 Do not try to go around this."
            ),
            Refusal::Unresolvable => "has no address that could be found.".into(),
            Refusal::PrivateAddress => {
                "is not on the internet: it has a private or special address. \
                 Do not try to go around this."
                    .into()
            }
            Refusal::OwnAddress => {
                "is this machine itself. A person can open a port of it: [egress] host_ports. \
                 Do not try to go around this."
                    .into()
            }
            Refusal::Unreachable => "did not answer, or broke the connection.".into(),
            Refusal::UpstreamTls => "could not prove that it is this host.".into(),
            Refusal::TooMany => "has to wait: too many connections are open at once.".into(),
            Refusal::Bytes => "does not pass: this run has moved as many bytes as it may.".into(),
            Refusal::TooSlow => "was asked for too slowly.".into(),
            Refusal::NotTls | Refusal::NoSni | Refusal::SniMismatch => {
                "takes only TLS that names the same host.".into()
            }
        };
        if target.is_empty() {
            return format!("sandbox-mcp: the request {what}\n");
        }
        format!("sandbox-mcp: `{target}:{port}` {what}\n")
    }

    /// The whole answer, after which the connection is closed. The reason stands in the first line
    /// as well: of the answer to a `CONNECT` most clients show nothing else.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (status, reason, text) = (self.status(), self.reason.as_str(), self.text());
        let phrase = match status {
            400 => "Bad Request",
            408 => "Request Timeout",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Forbidden",
        };
        format!(
            "HTTP/1.1 {status} {phrase} by sandbox-mcp: {reason}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             x-sandbox-refused: {reason}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        )
        .into_bytes()
    }
}

/// A fatal TLS alert, `access_denied`: what a client of TLS understands once it is answered no more.
pub const TLS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];
