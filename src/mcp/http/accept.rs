//! The types that a client accepts, and an answer in one piece for clients that accept nothing else.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::refusal::{Body, JSON, Refusal};

const EVENTS: &str = "text/event-stream";

/// The header as rmcp wants it, to the letter.
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");

/// The types that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Takes {
    json: bool,
    events: bool,
}

impl Takes {
    /// Reads the header. A client without one accepts everything.
    pub fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(ACCEPT) {
            return Self { json: true, events: true };
        }
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let kinds: Vec<_> = values
            .flat_map(|value| value.split(','))
            .filter_map(|part| part.split(';').next())
            .map(|kind| kind.trim().to_ascii_lowercase())
            .collect();
        let takes = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
        Self {
            json: takes(&["*/*", "application/*", "application/json"]),
            events: takes(&["*/*", "text/*", EVENTS]),
        }
    }

    /// Writes the header anew where one of the two is enough for what the client wants.
    pub fn settle(self, headers: &mut HeaderMap, is_listening: bool) {
        if self.events || self.json && !is_listening {
            headers.insert(ACCEPT, BOTH);
        }
    }

    /// Tells that an answer must be one JSON object.
    pub fn wants_one_piece(self) -> bool {
        self.json && !self.events
    }
}

/// Waits for the answer in a stream of events, and gives it alone. What was said before it is
/// progress, which a client that takes no events has no place for.
pub(super) async fn one_piece(response: Response<Body>) -> Result<Response<Body>, Refusal> {
    if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != EVENTS) {
        return Ok(response);
    }
    let (mut head, mut body) = response.into_parts();
    let (mut read, mut answer) = (Vec::new(), None);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        read.extend_from_slice(&data);
        while let Some(end) = read.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = read.drain(..end + 2).collect();
            answer = answer_in(&event).or(answer);
        }
    }
    let Some(answer) = answer else {
        let hint = "`list_runs` has the runs, if it was about one";
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the answer did not come", hint));
    };
    head.headers.insert(CONTENT_TYPE, JSON);
    head.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Response::from_parts(head, Full::from(answer).boxed()))
}

/// The data of an event, if it answers a request.
fn answer_in(event: &[u8]) -> Option<Vec<u8>> {
    let data: Vec<u8> = event
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"))
        .flat_map(|data| data.strip_prefix(b" ").unwrap_or(data).iter().copied())
        .collect();
    let message: Value = serde_json::from_slice(&data).ok()?;
    (message.get("result").is_some() || message.get("error").is_some()).then_some(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(given: &[&str]) -> Takes {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(ACCEPT, value.parse().expect("a value"));
        }
        Takes::of(&headers)
    }

    #[test]
    fn one_kind_any_kind_or_no_word_is_enough() {
        for both in [
            &[][..],
            &["*/*"],
            &["application/json, text/event-stream"],
            &["Application/JSON", "text/*;q=0.1"],
        ] {
            assert_eq!(takes(both), Takes { json: true, events: true }, "{both:?}");
        }
        let (json, events) = (takes(&["application/json, application/mcp+json"]), takes(&[EVENTS]));
        assert!(json.wants_one_piece() && !events.wants_one_piece());
        let settled = |takes: Takes, is_listening| {
            let mut headers = HeaderMap::new();
            takes.settle(&mut headers, is_listening);
            headers.contains_key(ACCEPT)
        };
        assert!(settled(json, false) && settled(events, false) && settled(events, true));
        assert!(!settled(json, true) && !settled(takes(&["text/html"]), false));
    }

    #[tokio::test]
    async fn the_answer_is_taken_out_of_its_stream() {
        let stream = |body: &'static str| {
            let mut response = Response::new(Full::from(body).boxed());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
            response.headers_mut().insert("mcp-session-id", HeaderValue::from_static("s"));
            response
        };
        let whole = "id: 0\nretry: 3\ndata:\n\n:\n\ndata: {\"method\":\"x\"}\n\n\
                     id: 1\ndata: {\"id\":1,\"result\":{}}\n\n";
        let answer = one_piece(stream(whole)).await.expect("an answer");
        assert_eq!(
            (&answer.headers()[CONTENT_TYPE], &answer.headers()["mcp-session-id"]),
            (&JSON, &HeaderValue::from_static("s"))
        );
        let Ok(body) = answer.into_body().collect().await;
        assert_eq!(body.to_bytes(), "{\"id\":1,\"result\":{}}");
        let refused = one_piece(stream("data: {\"method\":\"x\"}\n\n")).await.expect_err("none");
        assert_eq!(refused.status, StatusCode::BAD_GATEWAY);
    }
}
