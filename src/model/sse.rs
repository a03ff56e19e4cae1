//! Server-sent events, as far as model servers use them: `data:` lines that each hold one JSON
//! object, and a closing `data: [DONE]`.

use bytes::Bytes;
use serde_json::Value;

/// The last event of a complete answer.
pub const DONE: &str = "[DONE]";

/// One event with `json` as its data.
pub fn encode(json: &Value) -> Bytes {
    // JSON's own text holds no line break, so one `data:` line is enough.
    Bytes::from(format!("data: {json}\n\n"))
}

/// The event that closes a complete answer.
pub fn encode_done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

/// What the decoder found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The data of one event; several `data:` lines are joined by line breaks.
    Data(Vec<u8>),
    /// An event that was longer than the decoder's limit, and was passed over.
    Oversized,
    /// A line that is no part of an event stream, such as HTML, a stack trace or bare JSON.
    Garbage(String),
}

/// Splits a byte stream into events, however the bytes are cut, in bounded memory.
#[derive(Debug)]
pub struct Decoder {
    /// Most bytes of one line, and of one event's data.
    limit: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    oversized: bool,
    /// The last byte was a carriage return, so a line feed next belongs to the same line end.
    after_cr: bool,
}

impl Decoder {
    pub fn new(limit: usize) -> Self {
        Self { limit, line: Vec::new(), data: None, oversized: false, after_cr: false }
    }

    /// Takes the next bytes and returns the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut rest = bytes;
        if self.after_cr && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        if !bytes.is_empty() {
            self.after_cr = false;
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&rest[..end]);
            self.end_line(&mut events);
            let crlf = rest[end] == b'\r' && rest.get(end + 1) == Some(&b'\n');
            self.after_cr = rest[end] == b'\r' && end + 1 == rest.len();
            rest = &rest[end + 1 + usize::from(crlf)..];
        }
        self.extend_line(rest);
        events
    }

    /// Takes the end of the stream; an event that was not closed by a blank line still counts,
    /// because several servers leave the last one open.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut events);
        }
        self.end_event(&mut events);
        events
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() > self.limit {
            self.oversized = true;
            self.line.clear();
        }
        if !self.oversized {
            self.line.extend_from_slice(bytes);
        }
    }

    fn end_line(&mut self, events: &mut Vec<Event>) {
        let line = std::mem::take(&mut self.line);
        if self.oversized {
            // One report for one long line; the next line starts afresh.
            self.oversized = false;
            self.data = None;
            events.push(Event::Oversized);
            return;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let data = self.data.get_or_insert_default();
                if data.len() + value.len() >= self.limit {
                    self.data = None;
                    events.push(Event::Oversized);
                    return;
                }
                if !data.is_empty() {
                    data.push(b'\n');
                }
                data.extend_from_slice(value);
            }
            // A comment (keep-alive), or a field that says nothing about the answer.
            b"" if !line.is_empty() => {}
            b"event" | b"id" | b"retry" => {}
            b"" => self.end_event(events),
            _ => {
                let text = String::from_utf8_lossy(&line);
                events.push(Event::Garbage(text.into_owned()));
            }
        }
    }

    fn end_event(&mut self, events: &mut Vec<Event>) {
        if let Some(data) = self.data.take() {
            events.push(Event::Data(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(64);
        let mut events: Vec<_> = chunks.iter().flat_map(|chunk| decoder.push(chunk)).collect();
        events.extend(decoder.finish());
        events
    }

    fn data(text: &str) -> Event {
        Event::Data(text.into())
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let stream = b": ping\r\n\r\nevent: x\r\ndata: {\"a\":\"\xc3\xa4\"}\r\n\r\ndata:b\n\ndata: [DONE]\n\n";
        let whole = decode(&[stream]);
        assert_eq!(whole, [data("{\"a\":\"ä\"}"), data("b"), data(DONE)]);
        for at in 0..stream.len() {
            assert_eq!(decode(&[&stream[..at], &stream[at..]]), whole, "cut at {at}");
        }
        let bytes: Vec<_> = stream.chunks(1).collect();
        assert_eq!(decode(&bytes), whole);
    }

    #[test]
    fn data_lines_of_one_event_are_joined_and_the_last_event_needs_no_blank_line() {
        assert_eq!(decode(&[b"data: a\ndata: b\n\ndata: c"]), [data("a\nb"), data("c")]);
        assert_eq!(decode(&[b"data: a\r\rdata: b\r\r"]), [data("a"), data("b")]);
    }

    #[test]
    fn long_lines_are_passed_over_and_what_follows_is_read() {
        let long = vec![b'x'; 1000];
        let events = decode(&[b"data: ", &long, b"\n\ndata: ok\n\n"]);
        assert_eq!(events, [Event::Oversized, data("ok")]);
        let many = b"data: aaaaaaaaaaaaaaaaaaaaaaaaa\n".repeat(10);
        assert!(decode(&[&many]).contains(&Event::Oversized));
    }

    #[test]
    fn what_is_no_event_stream_is_called_so() {
        assert!(matches!(&decode(&[b"<html>\n"])[0], Event::Garbage(line) if line == "<html>"));
    }

    #[test]
    fn encoding_is_read_back() {
        let json = serde_json::json!({"text": "two\nlines"});
        assert_eq!(
            decode(&[&encode(&json), &encode_done()]),
            [data(&json.to_string()), data(DONE)]
        );
    }
}
