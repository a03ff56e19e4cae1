//! Reads a streamed answer from its bytes.

use super::answer::{Answer, ToolCall};
use super::fault::Fault;
use super::kind::FaultKind;
use super::sse;

/// Most bytes of one server-sent event that is looked into.
const MAX_EVENT: usize = 1024 * 1024;

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
        let message = if self.answer.has_begun() {
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
                sse::Event::Garbage(line) => self.take_stray(&line, calls)?,
            }
        }
        Ok(())
    }

    /// A line that is no part of the stream. Clients skip those, but some servers put their errors
    /// there: older llama.cpp as `error: {…}`, others as bare JSON.
    fn take_stray(&mut self, line: &str, calls: &mut Vec<ToolCall>) -> Result<(), Fault> {
        if let Some(error) = line.strip_prefix("error:") {
            return Err(Fault::from_error_object(error.as_bytes()));
        }
        if line.starts_with('{') && (line.contains("\"error\"") || !self.answer.has_begun()) {
            self.answer.push_event(line, calls)?;
        }
        if self.answer.has_begun() {
            return Ok(());
        }
        let message = format!("the answer is not an event stream: {line}");
        Err(Fault::new(FaultKind::NotJson, &message))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::answer::{MAX_CALLS, MAX_TEXT};
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
        let old = fault(b"error: {\"code\": 500, \"message\": \"context size exceeded\"}\n");
        assert_eq!(old.kind, FaultKind::ContextOverflow);
    }

    #[test]
    fn memory_is_bounded_whatever_is_sent() {
        let big = "x".repeat(100_000);
        let mut events = vec![delta(&json!({"content": big})); 3];
        events.extend((0..500).map(|index| call(index, None, Some("t"), "{}")));
        events.extend((0..10).map(|_| call(127, None, None, &big)));
        let (answer, calls, _) = read(&events);
        assert!(answer.text().len() <= MAX_TEXT);
        assert_eq!(calls.len(), MAX_CALLS);
    }
}
