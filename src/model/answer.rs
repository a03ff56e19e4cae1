//! One answer of a model, put together from what the server sends, in bounded memory.
//!
//! [`Reader`] takes the bytes of a stream; [`Answer`] takes whole JSON values. Tool calls are handed
//! out as soon as they are complete, which is before the answer is.

use serde_json::Value;

use super::Fault;
use super::fault::FaultKind;
use super::sse;

/// Most bytes of one tool call's arguments that are kept.
const MAX_ARGUMENTS: usize = 256 * 1024;
/// Most tool calls of one answer that are kept.
const MAX_CALLS: usize = 128;
/// Most bytes of one server-sent event that is looked into.
const MAX_EVENT: usize = 1024 * 1024;
/// Most bytes of the answer's own text that are kept.
const MAX_TEXT: usize = 64 * 1024;

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
                    call.arguments.push_str(crate::text::prefix(text, room))
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
    fn hand_out(&mut self, calls: &mut Vec<ToolCall>) {
        for slot in self.calls.iter_mut().filter(|slot| !slot.handed_out) {
            slot.handed_out = true;
            let arguments = std::mem::take(&mut slot.call.arguments);
            calls.push(ToolCall { arguments, ..slot.call.clone() });
        }
    }

    /// OpenAI's `usage`, which may come in every chunk and counts up; else llama.cpp's `timings`
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

/// Reads a streamed answer from its bytes, however they are cut.
#[derive(Debug)]
pub struct Reader {
    decoder: sse::Decoder,
    answer: Answer,
}

impl Default for Reader {
    fn default() -> Self {
        Self { decoder: sse::Decoder::new(MAX_EVENT), answer: Answer::default() }
    }
}

impl Reader {
    /// Takes the next bytes; tool calls that they complete are put into `calls`.
    pub fn push(&mut self, bytes: &[u8], calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        let events = self.decoder.push(bytes);
        self.take(events, calls)
    }

    /// Takes the end of the stream, which is a fault if the model had not finished.
    pub fn finish(&mut self, calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        let events = self.decoder.finish();
        self.take(events, calls)?;
        if self.answer.is_complete() {
            self.answer.hand_out(calls);
            return Ok(());
        }
        let message = if self.answer.began {
            "the server ended its answer before the model had finished"
        } else {
            "the server ended its answer before it had begun"
        };
        Err(Fault::new(FaultKind::StreamCut, message))
    }

    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    fn take(&mut self, events: Vec<sse::Event>, calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        for event in events {
            match event {
                sse::Event::Data(data) => self.answer.push_event(&data, calls)?,
                // Too long to be looked into, such as a picture; it passes all the same.
                sse::Event::Oversized => {}
                // Some servers write an error without `data:` before it; clients skip other lines.
                sse::Event::Garbage(line) if self.answer.began => {
                    if line.starts_with('{') && line.contains("\"error\"") {
                        self.answer.push_event(&line, calls)?;
                    }
                }
                sse::Event::Garbage(line) => {
                    if line.starts_with('{') {
                        // An error object says more than we could.
                        self.answer.push_event(&line, calls)?;
                    }
                    let message = format!("the answer is not an event stream: {line}");
                    return Err(Fault::new(FaultKind::NotJson, &message));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(events: &[Value]) -> (Answer, Vec<ToolCall>, Result<(), Fault>) {
        let mut reader = Reader::default();
        let mut calls = Vec::new();
        let mut outcome = Ok(());
        for event in events {
            outcome = outcome.and_then(|()| reader.push(&sse::encode(event), &mut calls));
        }
        let outcome = outcome.and_then(|()| reader.finish(&mut calls));
        (reader.answer, calls, outcome)
    }

    fn delta(delta: &Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta}]})
    }

    fn finish(reason: &str) -> Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    }

    fn call(index: u64, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
        let function = json!({"name": name, "arguments": arguments});
        delta(&json!({"tool_calls": [{"index": index, "id": id, "function": function}]}))
    }

    #[test]
    fn tool_calls_are_put_together_from_their_pieces() {
        let (answer, calls, outcome) = read(&[
            call(0, Some("a"), Some("bash"), ""),
            call(0, None, None, "{\"command\":"),
            call(0, None, None, "\"ls\"}"),
            call(1, Some("b"), Some("read"), "{}"),
            finish("tool_calls"),
        ]);
        outcome.expect("complete");
        let seen: Vec<_> =
            calls.iter().map(|c| (c.id.as_str(), c.name.as_str(), c.arguments.as_str())).collect();
        assert_eq!(seen, [("a", "bash", "{\"command\":\"ls\"}"), ("b", "read", "{}")]);
        assert_eq!(answer.finish_reason(), Some("tool_calls"));
    }

    #[test]
    fn a_call_is_handed_out_before_the_answer_ends() {
        let mut reader = Reader::default();
        let mut calls = Vec::new();
        reader.push(&sse::encode(&call(0, Some("a"), Some("x"), "{}")), &mut calls).expect("fine");
        assert!(calls.is_empty(), "more arguments could follow");
        reader.push(&sse::encode(&finish("tool_calls")), &mut calls).expect("fine");
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn calls_without_an_index_and_with_object_arguments_are_understood() {
        let function = json!({"name": "x", "arguments": {"a": 1}});
        let piece = |id: &str| json!({"tool_calls": [{"id": id, "function": function}]});
        let (_, calls, outcome) = read(&[delta(&piece("1")), delta(&piece("2")), finish("stop")]);
        outcome.expect("complete");
        assert_eq!(calls.len(), 2);
        assert_eq!(calls[1].arguments, "{\"a\":1}");
    }

    #[test]
    fn every_servers_way_of_counting_is_read() {
        let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}});
        for (counted, expected) in [
            (json!({"choices": [], "usage": usage}), (7, 5, 3)),
            (json!({"timings": {"prompt_n": 4, "cache_n": 3, "predicted_n": 5}}), (7, 5, 0)),
            (json!({"prompt_eval_count": 7, "eval_count": 5}), (7, 5, 0)),
            (json!({"usage": null}), (0, 0, 0)),
        ] {
            let (answer, ..) = read(&[finish("stop"), counted]);
            let usage = answer.usage();
            assert_eq!((usage.input, usage.output, usage.reasoning), expected);
        }
    }

    #[test]
    fn an_end_without_an_end_is_a_cut() {
        let kind = |events: &[Value]| read(events).2.expect_err("a fault").kind;
        assert_eq!(kind(&[delta(&json!({"content": "half an ans"}))]), FaultKind::StreamCut);
        assert_eq!(kind(&[]), FaultKind::StreamCut);
        assert_eq!(
            kind(&[json!({"error": {"message": "CUDA out of memory"}})]),
            FaultKind::StreamError
        );
        assert_eq!(kind(&[json!("text")]), FaultKind::NotJson);
        let (_, _, done) = read(&[]);
        done.expect_err("a fault");
        let mut reader = Reader::default();
        reader.push(&sse::encode_done(), &mut Vec::new()).expect("fine");
        assert!(reader.answer().is_done());
    }

    #[test]
    fn what_is_no_stream_is_a_fault_at_its_first_line() {
        let fault =
            |bytes: &[u8]| Reader::default().push(bytes, &mut Vec::new()).expect_err("a fault");
        assert_eq!(fault(b"<html>\n").kind, FaultKind::NotJson);
        assert_eq!(fault(b"data: {broken\n\n").kind, FaultKind::NotJson);
        let bare = fault(b"{\"error\": {\"message\": \"engine died\"}}\n");
        assert_eq!((bare.kind, bare.message.as_str()), (FaultKind::StreamError, "engine died"));
    }

    #[test]
    fn memory_is_bounded_whatever_is_sent() {
        let big = "x".repeat(100_000);
        let mut events = vec![delta(&json!({"content": big})); 3];
        events.extend((0..500).map(|index| call(index, None, Some("t"), "{}")));
        events.extend((0..10).map(|_| call(127, None, None, &big)));
        let (answer, calls, _) = read(&events);
        assert!(answer.text().len() <= MAX_TEXT);
        assert_eq!(calls.len(), MAX_CALLS - 1, "the last one is open");
    }
}
