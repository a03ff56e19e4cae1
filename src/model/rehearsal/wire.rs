//! The rehearsal's replies in the shape of the API: JSON, or a stream of events.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use super::MODEL;
use super::script::{Reply, reply};
use crate::model::sse;

/// Most bytes of a request that the rehearsal reads.
const MAX_REQUEST: usize = 16 * 1024 * 1024;

/// Answers one request: status, content type and the body in the pieces in which it is sent.
/// `path` is below `/v1`.
pub fn respond(path: &str, body: &[u8]) -> (u16, &'static str, Vec<Bytes>) {
    let refuse = |status, message: &str| {
        let body = json!({"error": {"message": message, "type": "invalid_request_error"}});
        (status, "application/json", vec![Bytes::from(body.to_string())])
    };
    match path {
        "/models" => (200, "application/json", vec![Bytes::from(models().to_string())]),
        "/chat/completions" if body.len() > MAX_REQUEST => refuse(413, "the request is too long"),
        "/chat/completions" => match serde_json::from_slice::<Value>(body) {
            Ok(request) => complete(&request, body.len()),
            Err(error) => refuse(400, &format!("the request is not JSON: {error}")),
        },
        _ => refuse(404, "the rehearsal model only chats"),
    }
}

fn models() -> Value {
    json!({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "sandbox-mcp"}]})
}

fn complete(request: &Value, request_bytes: usize) -> (u16, &'static str, Vec<Bytes>) {
    let reply = reply(request);
    let usage = usage(&reply, request_bytes);
    if request.get("stream").and_then(Value::as_bool) == Some(true) {
        (200, "text/event-stream", stream(&reply, &usage))
    } else {
        (200, "application/json", vec![Bytes::from(whole(&reply, &usage).to_string())])
    }
}

/// A script has no tokens; four bytes stand for one, which is near what models count.
fn usage(reply: &Reply, request_bytes: usize) -> Value {
    let said = match reply {
        Reply::Text(text) => text.len(),
        Reply::Call { text, arguments, .. } => text.len() + arguments.to_string().len(),
    };
    let (prompt, completion) = (request_bytes.div_ceil(4), said.div_ceil(4));
    json!({
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
    })
}

fn envelope(object: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    json!({"id": "rehearsal", "object": object, "created": now, "model": MODEL})
}

fn whole(reply: &Reply, usage: &Value) -> Value {
    let (message, reason) = match reply {
        Reply::Text(text) => (json!({"role": "assistant", "content": text}), "stop"),
        Reply::Call { text, id, name, arguments } => {
            let function = json!({"name": name, "arguments": arguments.to_string()});
            let call = json!({"id": id, "type": "function", "function": function});
            (json!({"role": "assistant", "content": text, "tool_calls": [call]}), "tool_calls")
        }
    };
    let mut answer = envelope("chat.completion");
    answer["choices"] = json!([{"index": 0, "message": message, "finish_reason": reason}]);
    answer["usage"] = usage.clone();
    answer
}

/// The stream as a model server cuts it: words one by one, a call's arguments in two pieces.
fn stream(reply: &Reply, usage: &Value) -> Vec<Bytes> {
    let chunk = |delta: Value, reason: Option<&str>| {
        let mut chunk = envelope("chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        sse::encode(&chunk)
    };
    let mut chunks = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    let words = |text: &str| -> Vec<Bytes> {
        text.split_inclusive(' ').map(|word| chunk(json!({"content": word}), None)).collect()
    };
    match reply {
        Reply::Text(text) => {
            chunks.extend(words(text));
            chunks.push(chunk(json!({}), Some("stop")));
        }
        Reply::Call { text, id, name, arguments } => {
            chunks.extend(words(text));
            let arguments = arguments.to_string();
            let head = crate::text::prefix(&arguments, arguments.len() / 2);
            let tail = &arguments[head.len()..];
            let function = json!({"name": name, "arguments": head});
            let call = json!({"index": 0, "id": id, "type": "function", "function": function});
            chunks.push(chunk(json!({"tool_calls": [call]}), None));
            let call = json!({"index": 0, "function": {"arguments": tail}});
            chunks.push(chunk(json!({"tool_calls": [call]}), None));
            chunks.push(chunk(json!({}), Some("tool_calls")));
        }
    }
    let mut last = envelope("chat.completion.chunk");
    last["choices"] = json!([]);
    last["usage"] = usage.clone();
    chunks.push(sse::encode(&last));
    chunks.push(sse::encode_done());
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Ending, Piece, Reader, Secrets};

    #[test]
    fn both_shapes_say_the_same() {
        let tools = json!([{"type": "function", "function": {"name": "bash", "parameters": {}}}]);
        let mut request =
            json!({"messages": [{"role": "user", "content": "grüße"}], "tools": tools});
        let (_, kind, body) = respond("/chat/completions", request.to_string().as_bytes());
        assert_eq!((kind, body.len()), ("application/json", 1));
        let read = |body: &[Bytes]| {
            let mut reader = Reader::new(&Secrets::default());
            let mut pieces = Vec::new();
            for bytes in body {
                reader.push(bytes, &mut pieces).expect("well formed");
            }
            reader.finish(&mut pieces).expect("complete");
            let called = pieces.into_iter().filter(|piece| matches!(piece, Piece::Called(_)));
            (called.collect::<Vec<_>>(), reader)
        };
        let (from_whole, whole) = read(&body);

        request["stream"] = json!(true);
        let (_, kind, body) = respond("/chat/completions", request.to_string().as_bytes());
        assert_eq!(kind, "text/event-stream");
        let (from_stream, streamed) = read(&body);
        assert_eq!(from_stream, from_whole);
        assert!(matches!(&from_stream[..], [Piece::Called(call)] if call.name == "bash"));
        let (streamed, whole) = (streamed.answer(), whole.answer());
        assert_eq!(streamed.text(), whole.text());
        assert_eq!(streamed.ending(), Some(Ending::ToolCalls));
        assert!(streamed.is_done() && streamed.usage().input > 0 && streamed.usage().output > 0);
    }

    #[test]
    fn other_paths_and_broken_requests_are_refused() {
        assert_eq!(respond("/models", b"").0, 200);
        assert_eq!(respond("/embeddings", b"{}").0, 404);
        assert_eq!(respond("/chat/completions", b"{").0, 400);
    }
}
