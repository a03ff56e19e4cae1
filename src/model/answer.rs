//! One answer of a model, put together from what the server sends, in bounded memory.
//!
//! [`super::Reader`] takes the bytes of a stream; [`Answer`] takes whole JSON values. Tool calls are handed
//! out as soon as they are complete, which is before the answer is.

use serde_json::Value;

use super::Fault;
use super::kind::FaultKind;
use super::sse;

/// Most bytes of one tool call's arguments that are kept.
const MAX_ARGUMENTS: usize = 256 * 1024;
/// Most tool calls of one answer that are kept.
pub(super) const MAX_CALLS: usize = 128;
/// Most bytes of the answer's own text that are kept.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// A tool that the model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// As the model wrote them: JSON if the model is good at it.
    pub arguments: String,
}

/// Tokens, as the server counted them; zero where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// An answer in the making.
#[derive(Debug, Default)]
pub struct Answer {
    calls: Vec<Slot>,
    text: String,
    usage: Usage,
    finish_reason: Option<String>,
    /// The closing `[DONE]` has been seen.
    done: bool,
    /// At least one piece was understood.
    began: bool,
}

#[derive(Debug)]
struct Slot {
    index: u64,
    call: ToolCall,
    handed_out: bool,
}

impl Answer {
    /// Takes the data of one server-sent event.
    pub fn push_event(&mut self, data: &str, calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        if data.trim() == sse::DONE {
            self.done = true;
            self.hand_out(calls);
            return Ok(());
        }
        match serde_json::from_str::<Value>(data) {
            Ok(chunk) if chunk.is_object() => self.push_object(&chunk, calls),
            _ => Err(Fault::new(
                FaultKind::NotJson,
                &format!("the answer holds what is not JSON: {}", crate::text::prefix(data, 2000)),
            )),
        }
    }

    /// Takes a whole answer that was not streamed.
    pub fn push_whole(&mut self, body: &[u8], calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        match serde_json::from_slice::<Value>(body) {
            Ok(whole) if whole.is_object() => {
                self.push_object(&whole, calls)?;
                self.done = true;
                self.hand_out(calls);
                Ok(())
            }
            _ => {
                let text = String::from_utf8_lossy(&body[..body.len().min(2000)]);
                let message = format!("the answer is not JSON: {text}");
                Err(Fault::new(FaultKind::NotJson, &message))
            }
        }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub fn finish_reason(&self) -> Option<&str> {
        self.finish_reason.as_deref()
    }

    /// Nothing more is to come, so the server's connection need not be waited for.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The model has said that it ended, or the server has. Usage may still follow.
    pub fn is_complete(&self) -> bool {
        self.done || self.finish_reason.is_some()
    }

    pub fn has_begun(&self) -> bool {
        self.began
    }

    fn push_object(&mut self, chunk: &Value, calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        if chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(Fault::from_error_object(chunk.to_string().as_bytes()));
        }
        self.began = true;
        self.read_usage(chunk);
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            // A streamed choice has a `delta`, a whole one a `message`.
            if let Some(piece) = choice.get("delta").or_else(|| choice.get("message")) {
                self.read_text(piece);
                let pieces = piece.get("tool_calls").and_then(Value::as_array);
                for piece in pieces.into_iter().flatten() {
                    self.read_call(piece, calls);
                }
            }
            if let Some(text) = choice.get("text").and_then(Value::as_str) {
                self.append_text(text);
            }
            if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
                self.finish_reason = Some(crate::text::one_line(reason, 40));
                self.hand_out(calls);
            }
        }
        Ok(())
    }

    fn read_text(&mut self, piece: &Value) {
        if let Some(text) = piece.get("content").and_then(Value::as_str) {
            self.append_text(text);
        }
    }

    fn append_text(&mut self, text: &str) {
        let room = MAX_TEXT.saturating_sub(self.text.len());
        self.text.push_str(crate::text::prefix(text, room));
    }

    /// Pieces of one call share an `index`; some servers leave it out and send calls whole.
    fn read_call(&mut self, piece: &Value, calls: &mut Vec<ToolCall>) {
        let id = piece.get("id").and_then(Value::as_str).unwrap_or_default();
        let index = piece.get("index").and_then(Value::as_u64).unwrap_or_else(|| {
            match self.calls.last() {
                // Without index and without a new id it continues the call before it.
                Some(slot) if id.is_empty() || slot.call.id == id => slot.index,
                Some(slot) => slot.index.saturating_add(1),
                None => 0,
            }
        });
        if !self.calls.iter().any(|slot| slot.index == index) {
            // A new call begins, so those before it are complete.
            self.hand_out(calls);
            if self.calls.len() >= MAX_CALLS {
                return;
            }
            let call =
                ToolCall { id: String::new(), name: String::new(), arguments: String::new() };
            self.calls.push(Slot { index, call, handed_out: false });
        }
        let Some(slot) = self.calls.iter_mut().find(|slot| slot.index == index) else {
            return;
        };
        if slot.handed_out {
            return;
        }
        let call = &mut slot.call;
        if call.id.is_empty() {
            crate::text::prefix(id, 200).clone_into(&mut call.id);
        }
        if let Some(function) = piece.get("function") {
            let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
            if call.name.len() + name.len() <= 200 && call.name != name {
                call.name.push_str(name);
            }
            let room = MAX_ARGUMENTS.saturating_sub(call.arguments.len());
            match function.get("arguments") {
                Some(Value::String(text)) => {
                    call.arguments.push_str(crate::text::prefix(text, room));
                }
                // Some servers send the object itself.
                Some(object @ Value::Object(_)) => {
                    call.arguments.push_str(crate::text::prefix(&object.to_string(), room));
                }
                _ => {}
            }
        }
    }

    /// Hands out what is complete; a call that was handed out only keeps its place.
    pub(super) fn hand_out(&mut self, calls: &mut Vec<ToolCall>) {
        for slot in self.calls.iter_mut().filter(|slot| !slot.handed_out) {
            slot.handed_out = true;
            let arguments = std::mem::take(&mut slot.call.arguments);
            calls.push(ToolCall { arguments, ..slot.call.clone() });
        }
    }

    /// The common `usage`, which may come in every chunk and counts up; else llama.cpp's `timings`
    /// or Ollama's own counters.
    fn read_usage(&mut self, chunk: &Value) {
        let number = |path: &str| chunk.pointer(path).and_then(Value::as_u64);
        if chunk.get("usage").is_some_and(Value::is_object) {
            self.usage = Usage {
                input: number("/usage/prompt_tokens").unwrap_or(self.usage.input),
                output: number("/usage/completion_tokens").unwrap_or(self.usage.output),
                reasoning: number("/usage/completion_tokens_details/reasoning_tokens")
                    .or_else(|| number("/usage/reasoning_tokens"))
                    .unwrap_or(self.usage.reasoning),
            };
        } else if self.usage == Usage::default() {
            // `prompt_n` leaves out what was found in the cache.
            let prompt =
                number("/timings/prompt_n").map(|n| n + number("/timings/cache_n").unwrap_or(0));
            self.usage.input = prompt.or_else(|| number("/prompt_eval_count")).unwrap_or(0);
            self.usage.output =
                number("/timings/predicted_n").or_else(|| number("/eval_count")).unwrap_or(0);
        }
    }
}
