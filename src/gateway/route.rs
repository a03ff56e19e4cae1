//! Which requests pass. Everything that is not named here is refused.
//!
//! The same port that serves `/v1/chat/completions` often serves more: Ollama pulls, pushes and
//! deletes models under `/api`, LM Studio loads them, vLLM can be put to sleep. `/v1/responses`
//! is left out on purpose: its tools make the *server* call addresses that the request names.

use http::{HeaderMap, Method, Uri, Version, header};

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

/// The bytes of the path must be those of a route: no decoding and no normalising is done, so there
/// is nothing that we and the server could understand differently.
pub fn route<'a>(
    method: &Method,
    uri: &'a Uri,
    version: Version,
    headers: &HeaderMap,
) -> Option<Route<'a>> {
    // A proxy's request (`GET http://host/…`, `CONNECT host:port`) carries a scheme or authority.
    if uri.scheme().is_some() || uri.authority().is_some() || uri.query().is_some() {
        return None;
    }
    if headers.contains_key(header::UPGRADE) || version > Version::HTTP_11 {
        return None;
    }
    match (method, uri.path()) {
        (&Method::POST, "/v1/chat/completions") => Some(Route::Forward("/chat/completions")),
        (&Method::POST, "/v1/completions") => Some(Route::Forward("/completions")),
        (&Method::GET, "/v1/models") => Some(Route::Models),
        (&Method::GET, path) => path.strip_prefix("/v1/models/").map(Route::Model),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(method: &str, uri: &str) -> bool {
        let method = method.parse().expect("a method");
        let Ok(uri) = uri.parse::<Uri>() else { return false };
        route(&method, &uri, Version::HTTP_11, &HeaderMap::new()).is_some()
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
    }

    #[test]
    fn upgrades_and_other_protocols_do_not_pass() {
        let uri = Uri::from_static("/v1/chat/completions");
        let mut headers = HeaderMap::new();
        assert!(route(&Method::POST, &uri, Version::HTTP_2, &headers).is_none());
        headers.insert(header::UPGRADE, http::HeaderValue::from_static("websocket"));
        assert!(route(&Method::POST, &uri, Version::HTTP_11, &headers).is_none());
    }
}
