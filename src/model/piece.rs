//! The parts of an answer, in the order in which the server sends them and in one form, whichever
//! form the server uses.

use serde_json::{Map, Value};

use super::halves::Halves;
use super::redact::{Redactor, Secrets};

/// The next part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Words of the answer.
    Text(String),
    /// Words that the model thinks.
    Thought(String),
    /// A field of the message that only server and agent understand, such as a signature.
    Extra(Map<String, Value>),
    /// A tool call begins. Indexes count from 0 without a gap.
    Call { index: usize, id: String, name: String },
    /// Further text of a call's arguments.
    Arguments { index: usize, text: String },
    /// A field of a call that only server and agent understand.
    CallExtra { index: usize, fields: Map<String, Value> },
    /// A call whose arguments are complete.
    Called(ToolCall),
}

/// A tool that the model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// As the model wrote them: JSON if the model is good at it.
    pub arguments: String,
    /// `arguments` is only the beginning.
    pub clipped: bool,
}

impl ToolCall {
    /// Returns the arguments where they are what an agent can use: a JSON object.
    pub fn object(&self) -> Option<Value> {
        serde_json::from_str(&self.arguments).ok().filter(Value::is_object)
    }
}

/// The fields of `object` that have a value and are not `known`.
pub fn others(object: &Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let unknown =
        object.iter().filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    unknown.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Bounds the fields of an answer that pass without being understood.
#[derive(Debug)]
pub struct Extra {
    /// Bytes that may still pass.
    left: usize,
}

impl Default for Extra {
    fn default() -> Self {
        // Signatures of long thoughts have some hundred kilobytes.
        Self { left: 1024 * 1024 }
    }
}

impl Extra {
    /// Returns those of `fields` that may pass, without secrets.
    pub fn admit(&mut self, fields: Map<String, Value>, secrets: &Secrets) -> Map<String, Value> {
        let mut admitted = Map::new();
        for (name, mut value) in fields {
            let size = name.len() + value.to_string().len();
            let Some(left) = self.left.checked_sub(size) else { continue };
            self.left = left;
            redact(&mut value, secrets);
            admitted.insert(secrets.redact(&name), value);
        }
        admitted
    }
}

/// Takes secrets out of every text in `value`.
pub fn redact(value: &mut Value, secrets: &Secrets) {
    match value {
        Value::String(text) => *text = secrets.redact(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact(item, secrets)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(name, mut value)| {
                    redact(&mut value, secrets);
                    (secrets.redact(&name), value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// One text of an answer on its way: whole characters, without secrets.
#[derive(Debug)]
pub struct Channel {
    halves: Halves,
    redactor: Redactor,
}

impl Channel {
    pub fn new(secrets: &Secrets) -> Self {
        Self { halves: Halves::default(), redactor: Redactor::new(secrets) }
    }

    /// Returns what may go on. `torn` says that the piece may hold halves of characters.
    pub fn pass(&mut self, piece: &str, torn: bool) -> String {
        let whole = self.halves.join(piece, torn).into_owned();
        text(&self.redactor.pass(whole.into()))
    }

    /// Returns what was kept back, at the end of the text.
    pub fn finish(&mut self) -> String {
        let last = self.redactor.pass(self.halves.finish().into());
        text(&[last, self.redactor.rest()].concat())
    }
}

/// What a redactor leaves of a text, which it cuts at ASCII only.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
