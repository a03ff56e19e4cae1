//! The relay's own answers, in the shape that agents expect of a model server.

use std::convert::Infallible;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};

use crate::model::{Endpoint, Fault};

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A whole answer.
pub fn whole(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    answer(status, "application/json", Full::new(body.into()).boxed_unsync())
}

/// An answer that is still being made.
pub fn streamed(chunks: Pin<Box<dyn Stream<Item = Bytes> + Send>>) -> Response<Body> {
    let frames = futures_util::StreamExt::map(chunks, |chunk| Ok(Frame::data(chunk)));
    answer(StatusCode::OK, "text/event-stream", BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// A request that was not the agent's to make, or not well made.
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let error = json!({"message": message, "type": "sandbox_mcp", "code": code});
    whole(status, json!({ "error": error }).to_string())
}

/// What an agent is told of a fault. The status is one that no agent tries again: it would go on
/// for minutes, in silence, against a server that we know to be down.
pub fn fault(fault: &Fault) -> Response<Body> {
    whole(StatusCode::BAD_REQUEST, fault_object(fault).to_string())
}

pub fn fault_object(fault: &Fault) -> Value {
    json!({"error": {
        "message": format!("model server: {}", fault.message),
        "type": "sandbox_mcp",
        "code": fault.kind.as_str(),
    }})
}

fn model_object(endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.model, "object": "model", "created": 0, "owned_by": "sandbox-mcp",
        "max_model_len": endpoint.context,
    })
}

/// The one model there is. The server's other models are none of the sandbox's business.
pub fn models(endpoint: &Endpoint) -> Response<Body> {
    let list = json!({"object": "list", "data": [model_object(endpoint)]});
    whole(StatusCode::OK, list.to_string())
}

/// The one model there is, if `id` (as it stood in the path) names it.
pub fn model(endpoint: &Endpoint, id: &str) -> Response<Body> {
    if id == endpoint.model || id.replace("%2F", "/").replace("%3A", ":") == endpoint.model {
        return whole(StatusCode::OK, model_object(endpoint).to_string());
    }
    let message = format!("the only model here is `{}`", endpoint.model);
    refusal(StatusCode::NOT_FOUND, "model_not_found", &message)
}
