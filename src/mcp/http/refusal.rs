//! Answers that are there as a whole, refusals above all.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use serde_json::json;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Why a request is not answered as it wanted, and what to do about it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    message: String,
    hint: &'static str,
}

impl Refusal {
    pub fn new(status: StatusCode, message: &str, hint: &'static str) -> Self {
        Self { status, message: message.to_owned(), hint }
    }

    pub fn response(self) -> Response<Body> {
        let body = json!({ "error": self.message, "hint": self.hint }).to_string() + "\n";
        let mut response = whole(self.status, JSON, body);
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(http::header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        // What is left of the body is thrown away, so nothing else can follow on this connection.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

pub(super) fn whole(status: StatusCode, kind: HeaderValue, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
