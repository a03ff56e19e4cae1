//! One answer of a model, read from JSON values in bounded memory.
//!
//! [`super::Reader`] takes the bytes; an [`Answer`] takes one JSON value after the other, hands on
//! the [`Piece`]s that it understood, and keeps the sums.

use serde_json::{Map, Value};

use super::calls::Calls;
use super::fault::Fault;
use super::halves;
use super::kind::FaultKind;
use super::piece::{Channel, Extra, Piece, others};
use super::redact::Secrets;
use super::sse;

/// Most bytes of the answer's own text, and of its thoughts, that are kept.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// Tokens, as the server counted them; zero where it did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    /// Of those, read from the server's cache.
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Stop,
    ToolCalls,
    /// The output limit, or a full context.
    Length,
    ContentFilter,
    /// The server gave up, in its own word.
    Broken(String),
}

impl Ending {
    /// Returns the word of the API for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::ToolCalls => "tool_calls",
            Self::Length => "length",
            Self::ContentFilter => "content_filter",
            Self::Broken(word) => word,
        }
    }
}

/// An answer in the making.
#[derive(Debug)]
pub struct Answer {
    secrets: Secrets,
    text_channel: Channel,
    thought_channel: Channel,
    calls: Calls,
    extra: Extra,
    text: String,
    thoughts: String,
    usage: Usage,
    /// Counted in an event of its own, which servers send behind the last words.
    counted_last: bool,
    /// The server's own word for the end.
    reason: Option<String>,
    /// Nothing more is to come.
    done: bool,
    /// Parts that were understood.
    events: u64,
}

impl Answer {
    /// An answer that shall not hold `secrets`.
    pub fn new(secrets: &Secrets) -> Self {
        Self {
            secrets: secrets.clone(),
            text_channel: Channel::new(secrets),
            thought_channel: Channel::new(secrets),
            calls: Calls::new(secrets),
            extra: Extra::default(),
            text: String::new(),
            thoughts: String::new(),
            usage: Usage::default(),
            counted_last: false,
            reason: None,
            done: false,
            events: 0,
        }
    }

    /// Takes the data of one server-sent event.
    pub fn push_event(&mut self, data: &[u8], out: &mut Vec<Piece>) -> Result<(), Fault> {
        if data.trim_ascii() == sse::DONE.as_bytes() {
            self.done = true;
            return Ok(());
        }
        let (text, torn) = halves::decode(data);
        match serde_json::from_str::<Value>(&text) {
            Ok(chunk) if chunk.is_object() => self.push_object(&chunk, torn, out),
            _ => {
                let said = crate::text::prefix(&text, 2000);
                let message = format!("the answer holds what is not JSON: {said}");
                Err(Fault::new(FaultKind::NotJson, &message))
            }
        }
    }

    /// Takes the end of the answer, which is a fault if the model had not finished.
    pub fn finish(&mut self, out: &mut Vec<Piece>) -> Result<(), Fault> {
        if let Some(Ending::Broken(word)) = self.ending() {
            let message = format!("the server broke its answer off (finish reason `{word}`)");
            return Err(Fault::new(FaultKind::StreamCut, &message));
        }
        let counted = self.counted_last && self.says_anything();
        if !self.is_complete() && !counted {
            let message = if self.has_begun() {
                "the server ended its answer before the model had finished"
            } else {
                "the server ended its answer before it had begun"
            };
            return Err(Fault::new(FaultKind::StreamCut, message));
        }
        self.done = true;
        self.calls.finish(out)?;
        self.rest(out);
        Ok(())
    }

    /// Lets the words go on that were kept back, because they could begin the key.
    pub fn rest(&mut self, out: &mut Vec<Piece>) {
        let thought = self.thought_channel.finish();
        self.think(thought, out);
        let text = self.text_channel.finish();
        self.say(text, out);
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn thoughts(&self) -> &str {
        &self.thoughts
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Returns how it ended, from what really came; `None` while it has not.
    pub fn ending(&self) -> Option<Ending> {
        let reason = self.reason.as_deref().unwrap_or_default();
        Some(match reason {
            "" if !self.done => return None,
            "length" | "max_tokens" | "max_output_tokens" | "model_length" => Ending::Length,
            "content_filter" | "safety" => Ending::ContentFilter,
            "abort" | "aborted" | "error" | "cancelled" | "canceled" | "network_error" => {
                Ending::Broken(reason.to_owned())
            }
            // Some say `stop` behind calls, some `tool_calls` behind words, some words of their own.
            _ if self.calls.len() > 0 => Ending::ToolCalls,
            _ => Ending::Stop,
        })
    }

    /// Nothing more is to come, so the server's connection need not be waited for.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The model has said that it ended, or the server has. Usage may still follow.
    pub fn is_complete(&self) -> bool {
        self.done || self.reason.is_some()
    }

    pub fn has_begun(&self) -> bool {
        self.events > 0
    }

    /// Returns how many parts were understood, an end among them.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The server has told the tokens.
    pub fn is_counted(&self) -> bool {
        self.usage != Usage::default()
    }

    /// The model's words, thoughts or calls have come, or an end without any.
    pub fn says_anything(&self) -> bool {
        !self.text.is_empty() || !self.thoughts.is_empty() || self.calls.len() > 0
    }

    /// Returns how many tokens the server counted where neither a text nor a call came of them: its
    /// parser took them. Thoughts are what they are.
    pub fn swallowed(&self) -> Option<u64> {
        let lost = self.text.trim().is_empty() && self.unexplained();
        lost.then_some(self.usage.output)
    }

    /// Returns how many tokens the server counted where no call and few words came of them. Some
    /// servers keep thoughts to themselves, so this is a sign and no proof.
    pub fn few_words(&self) -> Option<u64> {
        let few = !self.text.trim().is_empty() && self.unexplained();
        few.then_some(self.usage.output)
    }

    /// No call came, and fewer words and thoughts than the tokens that were counted.
    fn unexplained(&self) -> bool {
        // Marks of a turn and around thoughts, and spaces, are tokens too.
        const MARKS: u64 = 16;
        let thought = self.usage.reasoning.max(self.thoughts.len() as u64 / 2);
        let said = self.text.len() as u64 / 2;
        self.calls.len() == 0 && self.usage.output > thought + said + MARKS
    }

    fn push_object(
        &mut self,
        chunk: &Value,
        torn: bool,
        out: &mut Vec<Piece>,
    ) -> Result<(), Fault> {
        let field = |name: &str| chunk.get(name).filter(|value| !value.is_null());
        let choices = field("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let complains = field("object").is_some_and(|kind| kind == "error")
            || (field("choices").is_none()
                && field("usage").is_none()
                && (field("message").is_some_and(Value::is_string) || field("detail").is_some()));
        if field("error").is_some() || complains {
            return Err(Fault::from_error_object(chunk.to_string().as_bytes()));
        }
        self.events += 1;
        self.read_usage(chunk);
        self.counted_last = choices.is_empty() && field("usage").is_some();
        // Only one answer is asked for; a server that gives more has them side by side.
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        for choice in choices.iter().filter(first) {
            if let Some(text) = choice.get("text").and_then(Value::as_str) {
                let text = self.text_channel.pass(text, torn);
                self.say(text, out);
            }
            // A streamed choice has a `delta`, a whole one a `message`.
            let whole = choice.get("message").and_then(Value::as_object);
            let delta = choice.get("delta").and_then(Value::as_object);
            if let Some(part) = delta.or(whole) {
                self.push_part(part, torn, out)?;
            }
            self.done |= whole.is_some() && delta.is_none();
            // SGLang has an object whose `type` is the word.
            let reason = choice.get("finish_reason");
            let reason = reason.and_then(|reason| reason.get("type").or(Some(reason)));
            if let Some(reason) = reason.and_then(Value::as_str).filter(|word| !word.is_empty()) {
                self.reason = Some(crate::text::one_line(reason, 40));
            }
        }
        Ok(())
    }

    fn push_part(
        &mut self,
        part: &Map<String, Value>,
        torn: bool,
        out: &mut Vec<Piece>,
    ) -> Result<(), Fault> {
        const THOUGHTS: [&str; 4] =
            ["reasoning_content", "reasoning", "reasoning_text", "thinking"];
        const KNOWN: [&str; 5] = ["role", "content", "refusal", "tool_calls", "function_call"];
        // Servers that give two of them say the same twice.
        let mut thought = THOUGHTS.iter().filter_map(|name| part.get(*name)?.as_str());
        if let Some(thought) = thought.find(|thought| !thought.is_empty()) {
            let thought = self.thought_channel.pass(thought, torn);
            self.think(thought, out);
        }
        for name in ["content", "refusal"] {
            self.push_content(part.get(name).unwrap_or(&Value::Null), torn, out);
        }
        let calls = part.get("tool_calls").and_then(Value::as_array);
        let old = part.get("function_call").filter(|call| call.is_object());
        for call in calls.into_iter().flatten().chain(old) {
            self.calls.push(call, torn, out)?;
        }
        let mut fields = others(part, &KNOWN);
        fields.retain(|name, value| !(THOUGHTS.contains(&name.as_str()) && value.is_string()));
        let fields = self.extra.admit(fields, &self.secrets);
        if !fields.is_empty() {
            out.push(Piece::Extra(fields));
        }
        Ok(())
    }

    /// Content is a text, or a list of parts of which some may be thoughts.
    fn push_content(&mut self, content: &Value, torn: bool, out: &mut Vec<Piece>) {
        match content {
            Value::String(text) => {
                let text = self.text_channel.pass(text, torn);
                self.say(text, out);
            }
            Value::Array(parts) => {
                for part in parts {
                    self.push_content(part, torn, out);
                }
            }
            Value::Object(part) => {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
                let thinks = ["think", "reason"].iter().any(|word| kind.contains(word));
                let inner = ["text", "thinking", "reasoning", "content", "refusal"];
                let inner = inner.iter().find_map(|name| part.get(*name));
                let text = inner.map(plain).unwrap_or_default();
                if thinks {
                    let thought = self.thought_channel.pass(&text, torn);
                    self.think(thought, out);
                } else {
                    let text = self.text_channel.pass(&text, torn);
                    self.say(text, out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn say(&mut self, text: String, out: &mut Vec<Piece>) {
        keep(&mut self.text, &text);
        if !text.is_empty() {
            out.push(Piece::Text(text));
        }
    }

    fn think(&mut self, thought: String, out: &mut Vec<Piece>) {
        keep(&mut self.thoughts, &thought);
        if !thought.is_empty() {
            out.push(Piece::Thought(thought));
        }
    }

    /// The common `usage`, which may come in every chunk and counts up; else llama.cpp's `timings`
    /// or Ollama's own counters.
    fn read_usage(&mut self, chunk: &Value) {
        let number = |path: &str| chunk.pointer(path).and_then(Value::as_u64);
        if chunk.get("usage").is_some_and(Value::is_object) {
            let cached = number("/usage/prompt_tokens_details/cached_tokens");
            self.usage = Usage {
                input: number("/usage/prompt_tokens").unwrap_or(self.usage.input),
                cached: cached.unwrap_or(self.usage.cached),
                output: number("/usage/completion_tokens").unwrap_or(self.usage.output),
                reasoning: number("/usage/completion_tokens_details/reasoning_tokens")
                    .or_else(|| number("/usage/reasoning_tokens"))
                    .unwrap_or(self.usage.reasoning),
            };
        } else if self.usage == Usage::default() {
            // `prompt_n` leaves out what was found in the cache.
            let cached = number("/timings/cache_n").unwrap_or(0);
            let prompt = number("/timings/prompt_n").map(|n| n.saturating_add(cached));
            self.usage.cached = cached;
            self.usage.input = prompt.or_else(|| number("/prompt_eval_count")).unwrap_or(0);
            self.usage.output =
                number("/timings/predicted_n").or_else(|| number("/eval_count")).unwrap_or(0);
        }
    }
}

fn keep(kept: &mut String, text: &str) {
    let room = MAX_TEXT.saturating_sub(kept.len());
    kept.push_str(crate::text::prefix(text, room));
}

/// The text of a part, which some servers put into parts once more.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().map(|part| plain(part.get("text").unwrap_or(part))).collect()
        }
        _ => String::new(),
    }
}
