//! Which requests pass. Everything that is not named here is refused.
//!
//! The same port that serves `/v1/chat/completions` often serves more: Ollama pulls, pushes and
//! deletes models under `/api`, LM Studio loads them, vLLM can be put to sleep. `/v1/responses`
//! is left out on purpose: its tools make the *server* call addresses that the request names.

use http::request::Parts;
use http::{Method, Version, header};

/// Longer than the first line of any request that passes.
const LONGEST_LINE: usize = 1024;

/// The target of a request as it stood on the wire. The parser of requests drops a fragment (`#x`)
/// before anybody could compare it.
#[derive(Clone, Debug)]
pub struct Target(String);

/// The first line of a connection, as far as it has come.
#[derive(Debug, Default)]
pub struct FirstLine {
    bytes: Vec<u8>,
    whole: bool,
}

impl FirstLine {
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                _ if self.whole || self.bytes.len() > LONGEST_LINE => return,
                // Parsers skip empty lines in front of a request.
                b'\r' | b'\n' if self.bytes.is_empty() => {}
                b'\n' => self.whole = true,
                byte => self.bytes.push(*byte),
            }
        }
    }

    /// The target; nothing where the line is too long or has not three parts.
    pub fn target(&self) -> Option<Target> {
        let line = std::str::from_utf8(&self.bytes).ok().filter(|_| self.whole)?;
        let [_method, target, _version] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        Some(Target(target.to_owned()))
    }
}

/// What a request may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// Goes to the model server, to this path below `/v1`.
    Forward(&'static str),
    /// Answered by the relay itself: the list of models, which is one model.
    Models,
    /// Likewise, for the model with this id.
    Model(&'a str),
}

/// What passes, for the message to those that do not.
pub const ALLOWED: &str = "POST /v1/chat/completions, POST /v1/completions and GET /v1/models";

/// The bytes of the target must be those of a route: no decoding and no normalising is done, so
/// there is nothing that we and the server could understand differently.
pub fn route(head: &Parts) -> Option<Route<'_>> {
    if head.headers.contains_key(header::UPGRADE) || head.version > Version::HTTP_11 {
        return None;
    }
    match (&head.method, target(head)?) {
        (&Method::POST, "/v1/chat/completions") => Some(Route::Forward("/chat/completions")),
        (&Method::POST, "/v1/completions") => Some(Route::Forward("/completions")),
        (&Method::GET, "/v1/models") => Some(Route::Models),
        (&Method::GET, target) => {
            let id = target.strip_prefix("/v1/models/")?;
            (!id.contains(['?', '#'])).then_some(Route::Model(id))
        }
        _ => None,
    }
}

/// What was asked for, as it stood on the wire.
pub fn target(head: &Parts) -> Option<&str> {
    head.extensions.get().map(|Target(target)| target.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The head as the parser of requests leaves it, with what stood on the wire.
    fn head(method: &str, target: &str) -> Option<Parts> {
        let mut line = FirstLine::default();
        for byte in format!("\r\n{method} {target} HTTP/1.1\r\nHost: x#y\r\n").bytes() {
            line.push(&[byte]);
        }
        let mut request = http::Request::builder().method(method).uri(target).body(()).ok()?;
        request.extensions_mut().insert(line.target()?);
        Some(request.into_parts().0)
    }

    fn passes(method: &str, target: &str) -> bool {
        head(method, target).is_some_and(|head| route(&head).is_some())
    }

    #[test]
    fn only_the_named_requests_pass() {
        assert!(passes("POST", "/v1/chat/completions"));
        assert!(passes("POST", "/v1/completions"));
        assert!(passes("GET", "/v1/models"));
        assert!(passes("GET", "/v1/models/org/name"));
    }

    #[test]
    fn tricks_with_paths_and_methods_do_not_pass() {
        for uri in [
            "/",
            "*",
            "/v1",
            "/v1/",
            "/api/pull",
            "/api/generate",
            "/v1/responses",
            "/v1/embeddings",
            "/v1/../api/pull",
            "/v1/chat/../../api/pull",
            "/v1/chat/completions/",
            "//v1/chat/completions",
            "/v1//chat/completions",
            "/v1/chat/completions?x=1",
            "/v1/chat/completions?",
            "/v1/chat/completions#",
            "/v1/chat/completions#x",
            "/v1/chat/completions#/../../api/pull",
            "/v1/chat%2Fcompletions",
            "/%76%31/chat/completions",
            "/v1/chat/completions%00",
            "/V1/chat/completions",
            "/v1/chat/completions;x",
            "/v1\\chat\\completions",
            "http://127.0.0.1:11434/api/pull",
            "http://127.0.0.1/v1/chat/completions",
            "//127.0.0.1/v1/chat/completions",
            "/v1/chat/completions/../../../api/pull",
            "127.0.0.1:11434",
        ] {
            assert!(!passes("POST", uri), "POST {uri}");
        }
        for method in [
            "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PRI", "POSTX",
            "post",
        ] {
            assert!(!passes(method, "/v1/chat/completions"), "{method}");
        }
        for method in ["POST", "DELETE", "HEAD", "PUT"] {
            assert!(!passes(method, "/v1/models"), "{method}");
        }
        for target in ["/v1/models#x", "/v1/models/org/name#x", "/v1/models/org/name?x"] {
            assert!(!passes("GET", target), "{target}");
        }
        let long = format!("/v1/models/{}", "x".repeat(LONGEST_LINE));
        assert!(!passes("GET", &long));
    }

    #[test]
    fn upgrades_and_other_protocols_do_not_pass() {
        let head = || head("POST", "/v1/chat/completions").expect("a head");
        let mut other = head();
        other.version = Version::HTTP_2;
        assert!(route(&other).is_none());
        let mut upgrade = head();
        upgrade.headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
        assert!(route(&upgrade).is_none());
    }
}
