//! The tool calls of one answer, put together from their pieces.
//!
//! Servers disagree on how a piece names its call. The rules here: an index names a call, until a
//! piece with another id or name shows that a new call uses the same index. Without an index, the id
//! does; without both, a piece belongs to the last call unless it begins a new one.

use serde_json::{Map, Value};

use super::fault::Fault;
use super::kind::FaultKind;
use super::piece::{Channel, Extra, Piece, ToolCall};
use super::redact::Secrets;

/// Most bytes of one tool call's arguments that are kept for the record; all of them go on.
const MAX_KEPT: usize = 256 * 1024;
/// Most bytes of arguments that wait until it is known what they are.
const MAX_HELD: usize = 1024 * 1024;
/// Most tool calls of one answer.
pub(super) const MAX_CALLS: usize = 128;
/// Most bytes of an id or a name.
const MAX_NAME: usize = 200;

#[derive(Debug)]
pub struct Calls {
    secrets: Secrets,
    list: Vec<Call>,
    extra: Extra,
    /// Calls that have begun to go on.
    sent: usize,
}

/// A call in the making.
#[derive(Debug)]
struct Call {
    /// The server's own index.
    at: Option<u64>,
    /// The server's own id.
    id: String,
    name: String,
    channel: Channel,
    json: Scan,
    /// Arguments that have not gone on: a server may send `{}` before the real ones, or the object
    /// as a JSON string.
    held: String,
    kept: String,
    clipped: bool,
    /// Fields that wait until the call has begun.
    extra: Map<String, Value>,
    /// Its place among the calls that go on.
    index: Option<usize>,
    ended: bool,
}

/// A piece of a call, as a server sends it.
#[derive(Debug, Default)]
struct Part {
    at: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Map<String, Value>,
}

impl Part {
    fn from_json(json: &Value) -> Self {
        let Some(fields) = json.as_object() else { return Self::default() };
        // Most have `function`; some put its fields beside the id.
        let function = fields.get("function").and_then(Value::as_object).unwrap_or(fields);
        let word = |value: Option<&Value>| match value {
            Some(Value::String(text)) => crate::text::prefix(text, MAX_NAME).to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let index = fields.get("index");
        let known = ["index", "id", "type", "function", "name", "arguments"];
        Self {
            at: index.and_then(|at| at.as_u64().or_else(|| at.as_str()?.parse().ok())),
            id: word(fields.get("id")),
            name: word(function.get("name")),
            arguments: match function.get("arguments") {
                None | Some(Value::Null) => String::new(),
                Some(Value::String(text)) => text.clone(),
                Some(object) => object.to_string(),
            },
            extra: super::piece::others(fields, &known),
        }
    }

    fn begins_arguments(&self) -> bool {
        self.arguments.trim_start().starts_with('{')
    }
}

impl Calls {
    pub fn new(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), list: Vec::new(), extra: Extra::default(), sent: 0 }
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Takes a piece; what may go on is put into `out`.
    pub fn push(&mut self, json: &Value, torn: bool, out: &mut Vec<Piece>) -> Result<(), Fault> {
        let mut part = Part::from_json(json);
        let index = match self.find(&part) {
            Some(index) => index,
            None => self.begin(&part, out)?,
        };
        let taken = self.list.iter().any(|call| !part.id.is_empty() && call.id == part.id);
        let call = &mut self.list[index];
        if call.id.is_empty() && !taken {
            call.id.clone_from(&part.id);
        }
        call.extend_name(&part.name);
        let extra = std::mem::take(&mut part.extra);
        call.extra.extend(self.extra.admit(extra, &self.secrets));
        call.extend_arguments(&part, torn, &mut self.sent, out);
        Ok(())
    }

    /// The call that a piece goes on with.
    fn find(&self, part: &Part) -> Option<usize> {
        let by_id = || self.list.iter().rposition(|call| call.id == part.id);
        let index = match part.at {
            Some(_) => self.list.iter().rposition(|call| call.at == part.at),
            None if part.id.is_empty() => None,
            None => by_id(),
        };
        let index = match (index, part.at) {
            (None, None) => self.list.len().checked_sub(1)?,
            (index, _) => index?,
        };
        self.list[index].goes_on(part).then_some(index)
    }

    fn begin(&mut self, part: &Part, out: &mut Vec<Piece>) -> Result<usize, Fault> {
        if self.list.len() == MAX_CALLS {
            let message = format!("the answer asks for more than {MAX_CALLS} tools at once");
            return Err(Fault::new(FaultKind::StreamError, &message));
        }
        // Those before it that are complete can be told.
        for call in self.list.iter_mut().filter(|call| call.is_complete()) {
            call.end(&mut self.sent, out);
        }
        self.list.push(Call {
            at: part.at,
            id: String::new(),
            name: String::new(),
            channel: Channel::new(&self.secrets),
            json: Scan::default(),
            held: String::new(),
            kept: String::new(),
            clipped: false,
            extra: Map::new(),
            index: None,
            ended: false,
        });
        Ok(self.list.len() - 1)
    }

    /// The model has said that it ended: every call is complete as it is.
    pub fn finish(&mut self, out: &mut Vec<Piece>) -> Result<(), Fault> {
        for call in &mut self.list {
            if call.name.is_empty() {
                let message = "the answer holds a tool call without a name";
                return Err(Fault::new(FaultKind::StreamError, message));
            }
            call.end(&mut self.sent, out);
        }
        Ok(())
    }
}

impl Call {
    /// Whether a piece that could be this call's is so, or begins a new one in the same place.
    fn goes_on(&self, part: &Part) -> bool {
        // Some servers make a new id up for each piece; only a name can begin a call.
        if part.name.is_empty() {
            return true;
        }
        let same_name = part.name == self.name;
        let other_id = !part.id.is_empty() && !self.id.is_empty() && part.id != self.id;
        if !self.json.begun {
            // Without an index calls come whole, so another name is not the rest of this one.
            let other_call = part.at.is_none() && !same_name && !self.name.is_empty();
            return !other_id && !other_call;
        }
        if same_name && !self.json.complete && !part.begins_arguments() {
            return true;
        }
        let same_id = !part.id.is_empty() && part.id == self.id;
        !other_id && same_name && (same_id || !(self.json.complete && part.begins_arguments()))
    }

    fn is_complete(&self) -> bool {
        self.json.complete || unwrapped(&self.held).is_some()
    }

    fn extend_name(&mut self, name: &str) {
        if self.index.is_some() || name == self.name {
            return;
        }
        if name.starts_with(&self.name) {
            name.clone_into(&mut self.name);
        } else if self.name.len() + name.len() <= MAX_NAME {
            self.name.push_str(name);
        }
    }

    fn extend_arguments(
        &mut self,
        part: &Part,
        torn: bool,
        sent: &mut usize,
        out: &mut Vec<Piece>,
    ) {
        if self.ended || part.arguments.is_empty() {
            return;
        }
        if self.json.complete && part.begins_arguments() {
            if self.held.trim() != "{}" {
                // Some servers say the whole call once more at its end.
                return;
            }
            self.held.clear();
            self.kept.clear();
            self.json = Scan::default();
        }
        let text = self.channel.pass(&part.arguments, torn);
        self.take(&text);
        self.flush(sent, out);
    }

    fn take(&mut self, text: &str) {
        self.json.feed(text);
        let room = MAX_KEPT - self.kept.len();
        self.clipped |= text.len() > room;
        self.kept.push_str(crate::text::prefix(text, room));
        self.held.push_str(text);
    }

    /// Lets arguments go on that can mean one thing only.
    fn flush(&mut self, sent: &mut usize, out: &mut Vec<Piece>) {
        let held = self.held.trim();
        let unclear = held.is_empty() || held == "{" || held == "{}" || held.starts_with('"');
        if self.name.is_empty() || (unclear && self.held.len() < MAX_HELD) {
            return;
        }
        self.send(sent, out);
    }

    fn send(&mut self, sent: &mut usize, out: &mut Vec<Piece>) {
        let index = if let Some(index) = self.index {
            index
        } else {
            let index = *sent;
            *sent += 1;
            self.index = Some(index);
            if self.id.is_empty() {
                self.id = new_id();
            }
            out.push(Piece::Call { index, id: self.id.clone(), name: self.name.clone() });
            index
        };
        if !self.extra.is_empty() {
            let fields = std::mem::take(&mut self.extra);
            out.push(Piece::CallExtra { index, fields });
        }
        if !self.held.is_empty() {
            out.push(Piece::Arguments { index, text: std::mem::take(&mut self.held) });
        }
    }

    fn end(&mut self, sent: &mut usize, out: &mut Vec<Piece>) {
        if self.ended || self.name.is_empty() {
            return;
        }
        self.ended = true;
        let rest = self.channel.finish();
        self.take(&rest);
        if self.kept.trim().is_empty() {
            // A tool without parameters; an agent wants an object all the same.
            self.take("{}");
        }
        if let Some(inner) = unwrapped(&self.held) {
            self.kept.clone_from(&inner);
            self.held = inner;
        }
        self.send(sent, out);
        let arguments = std::mem::take(&mut self.kept);
        let (id, name) = (self.id.clone(), self.name.clone());
        out.push(Piece::Called(ToolCall { id, name, arguments, clipped: self.clipped }));
    }
}

/// The object in a JSON string that holds the text of an object.
fn unwrapped(held: &str) -> Option<String> {
    let inner: String =
        held.trim_start().starts_with('"').then(|| serde_json::from_str(held).ok())??;
    serde_json::from_str::<Map<String, Value>>(&inner).is_ok().then_some(inner)
}

/// An id where the server gives none: nine letters and digits, because Mistral's templates refuse
/// others, and random, because one conversation holds the calls of many answers.
fn new_id() -> String {
    crate::ids::random_word(9)
}

/// Tells from the text of a JSON object, as it comes, when it is complete.
#[derive(Debug, Default)]
struct Scan {
    depth: u32,
    at: Place,
    /// Anything but white space has come.
    begun: bool,
    complete: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Place {
    #[default]
    Outside,
    String,
    /// Behind a backslash in a string.
    Escape,
}

impl Scan {
    fn feed(&mut self, text: &str) {
        for byte in text.bytes() {
            self.begun |= !byte.is_ascii_whitespace();
            self.at = match (self.at, byte) {
                (Place::Outside, b'"') | (Place::Escape, _) => Place::String,
                (Place::String, b'"') => Place::Outside,
                (Place::String, b'\\') => Place::Escape,
                (at, _) => at,
            };
            match (self.at, byte) {
                (Place::Outside, b'{' | b'[') => self.depth = self.depth.saturating_add(1),
                (Place::Outside, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.complete |= self.depth == 0;
                }
                _ => {}
            }
        }
    }
}
