//! Reads an answer from its bytes, streamed or whole.

use super::answer::Answer;
use super::fault::Fault;
use super::kind::FaultKind;
use super::piece::Piece;
use super::redact::Secrets;
use super::sse;

/// Most bytes of one server-sent event. Servers that cannot cut send a long file as one.
const MAX_EVENT: usize = 4 * 1024 * 1024;
/// Most bytes of an answer in one JSON object.
const MAX_WHOLE: usize = 16 * 1024 * 1024;

/// Reads an answer from its bytes, however they are cut and whatever their content type says: a
/// stream of events, one JSON object, or JSON objects line by line.
#[derive(Debug)]
pub struct Reader {
    shape: Shape,
    decoder: sse::Decoder,
    answer: Answer,
}

#[derive(Debug)]
enum Shape {
    /// Nothing but white space has come, or a part of a byte order mark.
    Unknown(Vec<u8>),
    Events,
    /// Each line is an event.
    Lines,
    /// One JSON object, so far.
    Whole(Vec<u8>),
}

impl Reader {
    /// A reader of an answer that shall not hold `secrets`.
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            shape: Shape::Unknown(Vec::new()),
            decoder: sse::Decoder::new(MAX_EVENT),
            answer: Answer::new(secrets),
        }
    }

    /// Takes the next bytes; what they say is put into `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Piece>) -> Result<(), Fault> {
        match &mut self.shape {
            Shape::Unknown(first) => {
                first.extend_from_slice(bytes);
                let mark = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(first);
                if b"\xef\xbb\xbf".starts_with(mark) {
                    return Ok(());
                }
                let text = mark.trim_ascii_start().to_vec();
                match text.first() {
                    None => {
                        first.clear();
                        return Ok(());
                    }
                    Some(b'{') => self.shape = Shape::Whole(Vec::new()),
                    Some(_) => self.shape = Shape::Events,
                }
                self.push(&text, out)
            }
            Shape::Events | Shape::Lines => {
                let events = self.decoder.push(bytes);
                self.take(events, out)
            }
            Shape::Whole(whole) => {
                let line_ends = bytes.contains(&b'\n') && !whole.contains(&b'\n');
                whole.extend_from_slice(bytes);
                if whole.len() > MAX_WHOLE {
                    let message = format!("the answer is longer than {MAX_WHOLE} bytes");
                    return Err(Fault::new(FaultKind::NotJson, &message));
                }
                // A first line that is JSON by itself needs no more to be understood.
                let first = whole.split(|byte| *byte == b'\n').next().unwrap_or_default();
                if line_ends && serde_json::from_slice::<serde::de::IgnoredAny>(first).is_ok() {
                    let whole = std::mem::take(whole);
                    self.shape = Shape::Lines;
                    return self.push(&whole, out);
                }
                Ok(())
            }
        }
    }

    /// Takes the end of the bytes, which is a fault if the model had not finished.
    pub fn finish(&mut self, out: &mut Vec<Piece>) -> Result<(), Fault> {
        if let Shape::Whole(whole) = &mut self.shape {
            self.answer.push_event(&std::mem::take(whole), out)?;
        }
        let events = self.decoder.finish();
        self.take(events, out)?;
        self.answer.finish(out)
    }

    /// Lets the words go on that wait for what comes next, of an answer that ends without an end.
    pub fn rest(&mut self, out: &mut Vec<Piece>) {
        self.answer.rest(out);
    }

    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    fn take(&mut self, events: Vec<sse::Event>, out: &mut Vec<Piece>) -> Result<(), Fault> {
        for event in events {
            if self.answer.is_done() {
                break;
            }
            match event {
                sse::Event::Data(data) => self.answer.push_event(&data, out)?,
                sse::Event::Oversized => {
                    let message = format!("the answer holds an event of over {MAX_EVENT} bytes");
                    return Err(Fault::new(FaultKind::NotJson, &message));
                }
                sse::Event::Garbage(line) => self.take_stray(&line, out)?,
            }
        }
        Ok(())
    }

    /// A line that is no part of an event stream. Clients skip those, but some servers put their
    /// errors there: older llama.cpp as `error: {…}`, others as bare JSON.
    fn take_stray(&mut self, line: &str, out: &mut Vec<Piece>) -> Result<(), Fault> {
        if let Some(error) = line.strip_prefix("error:") {
            return Err(Fault::from_error_object(error.as_bytes()));
        }
        let understood = matches!(self.shape, Shape::Lines)
            || line.contains("\"error\"")
            || !self.answer.has_begun();
        if line.starts_with('{') && understood {
            self.answer.push_event(line.as_bytes(), out)?;
        }
        if self.answer.has_begun() {
            return Ok(());
        }
        let message = format!("the answer is not an event stream: {line}");
        Err(Fault::new(FaultKind::NotJson, &message))
    }
}

#[cfg(test)]
mod tests;
