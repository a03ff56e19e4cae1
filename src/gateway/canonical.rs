//! Writes what the agent gets: the answer as the API's description has it, whatever the server sent.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};

use crate::model::{Answer, Ending, Piece, Usage, sse};

/// Writes one answer, in chunks as its pieces come or whole at its end.
#[derive(Debug)]
pub struct Writer {
    id: String,
    created: u64,
    model: String,
    /// For `/v1/completions`, which has texts instead of messages.
    plain: bool,
    begun: bool,
}

impl Writer {
    pub fn new(model: &str, plain: bool) -> Self {
        Self {
            id: format!("chatcmpl-{}", crate::ids::random_word(12)),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()),
            model: model.to_owned(),
            plain,
            begun: false,
        }
    }

    /// Appends the chunk of one piece to `out`.
    pub fn piece(&mut self, piece: &Piece, out: &mut BytesMut) {
        let call = |index: &usize, fields: Value| {
            let mut call = json!({"index": index});
            extend(&mut call, fields);
            json!({"tool_calls": [call]})
        };
        let delta = match piece {
            Piece::Text(text) if self.plain => {
                let choice = json!({"index": 0, "text": text, "finish_reason": null});
                return self.event(&json!([choice]), None, out);
            }
            Piece::Text(text) => json!({"content": text}),
            Piece::Thought(text) => json!({"reasoning_content": text}),
            Piece::Extra(fields) => Value::Object(fields.clone()),
            Piece::Call { index, id, name } => call(
                index,
                json!({"id": id, "type": "function", "function": {"name": name, "arguments": ""}}),
            ),
            Piece::Arguments { index, text } => {
                call(index, json!({"function": {"arguments": text}}))
            }
            Piece::CallExtra { index, fields } => call(index, Value::Object(fields.clone())),
            Piece::Called(_) => return,
        };
        self.delta(delta, None, out);
    }

    /// Appends the end of a streamed answer: its reason, its tokens, and the closing event.
    pub fn end(&mut self, answer: &Answer, out: &mut BytesMut) {
        let ending = answer.ending();
        let reason = ending.as_ref().map(Ending::as_str);
        if self.plain {
            let choice = json!({"index": 0, "text": "", "finish_reason": reason});
            self.event(&json!([choice]), None, out);
        } else {
            self.delta(json!({}), reason, out);
        }
        if answer.usage() != Usage::default() {
            self.event(&json!([]), Some(usage(answer.usage())), out);
        }
        out.put(sse::encode_done());
    }

    /// Returns an answer that was not asked for as a stream.
    pub fn whole(&self, pieces: &[Piece], answer: &Answer) -> Bytes {
        let (mut text, mut thoughts) = (String::new(), String::new());
        let mut message = json!({"role": "assistant"});
        let mut calls = BTreeMap::new();
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Thought(piece) => thoughts.push_str(piece),
                Piece::Extra(fields) => extend(&mut message, Value::Object(fields.clone())),
                Piece::Call { index, id, name } => {
                    let call = json!({"id": id, "type": "function", "function": {"name": name}});
                    calls.insert(*index, (call, String::new()));
                }
                Piece::Arguments { index, text } => {
                    calls.entry(*index).and_modify(|(_, arguments)| arguments.push_str(text));
                }
                Piece::CallExtra { index, fields } => {
                    let fields = Value::Object(fields.clone());
                    calls.entry(*index).and_modify(|(call, _)| extend(call, fields));
                }
                Piece::Called(_) => {}
            }
        }
        let ending = answer.ending();
        let reason = ending.as_ref().map(Ending::as_str);
        let choice = if self.plain {
            json!({"index": 0, "text": text, "finish_reason": reason})
        } else {
            message["content"] = json!(text);
            if !thoughts.is_empty() {
                message["reasoning_content"] = json!(thoughts);
            }
            if !calls.is_empty() {
                let calls = calls.into_values().map(|(mut call, arguments)| {
                    call["function"]["arguments"] = json!(arguments);
                    call
                });
                message["tool_calls"] = calls.collect();
            }
            json!({"index": 0, "message": message, "finish_reason": reason})
        };
        let object = if self.plain { "text_completion" } else { "chat.completion" };
        let mut whole = self.envelope(object, &json!([choice]));
        if answer.usage() != Usage::default() {
            whole["usage"] = usage(answer.usage());
        }
        whole.to_string().into()
    }

    fn delta(&mut self, delta: Value, reason: Option<&str>, out: &mut BytesMut) {
        let mut first = json!({});
        if !self.begun {
            self.begun = true;
            first = json!({"role": "assistant"});
        }
        extend(&mut first, delta);
        let choice = json!({"index": 0, "delta": first, "finish_reason": reason});
        self.event(&json!([choice]), None, out);
    }

    fn event(&self, choices: &Value, usage: Option<Value>, out: &mut BytesMut) {
        let object = if self.plain { "text_completion" } else { "chat.completion.chunk" };
        let mut chunk = self.envelope(object, choices);
        if let Some(usage) = usage {
            chunk["usage"] = usage;
        }
        out.put(sse::encode(&chunk));
    }

    fn envelope(&self, object: &str, choices: &Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model,
            "choices": choices,
        })
    }
}

fn extend(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

fn usage(usage: Usage) -> Value {
    let mut counted = Map::new();
    counted.insert("prompt_tokens".into(), usage.input.into());
    counted.insert("completion_tokens".into(), usage.output.into());
    counted.insert("total_tokens".into(), usage.input.saturating_add(usage.output).into());
    if usage.cached > 0 {
        counted.insert("prompt_tokens_details".into(), json!({"cached_tokens": usage.cached}));
    }
    if usage.reasoning > 0 {
        counted.insert(
            "completion_tokens_details".into(),
            json!({"reasoning_tokens": usage.reasoning}),
        );
    }
    Value::Object(counted)
}
