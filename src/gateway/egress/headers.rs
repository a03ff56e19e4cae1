//! Headers that are about one connection, and all others.

use http::{HeaderMap, HeaderName, header};

/// What is about one connection only, and never goes on; and all that begins with `proxy-`.
/// `Connection` may name more.
const HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

pub fn is_about_connection(name: &HeaderName) -> bool {
    HOP.contains(&name.as_str()) || name.as_str().starts_with("proxy-")
}

/// The headers that are not about one connection.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !is_about_connection(name) && !named.contains(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}
