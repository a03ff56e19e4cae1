//! Remembers what a model server was seen to refuse, which it is not asked for again in the same run.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Parameters that an answer can do without. A server that names one of them in a refusal is asked
/// once more without it.
const DISPENSABLE: [&str; 21] = [
    "stream_options",
    "tool_choice",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "verbosity",
];
/// The two names of the bound of an answer.
const BOUNDS: [&str; 2] = ["max_tokens", "max_completion_tokens"];
/// What a message holds of the model's thoughts.
const THOUGHTS: [&str; 2] = ["reasoning_content", "reasoning"];

/// How requests have to be written for one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    without: BTreeSet<&'static str>,
    /// The name of the bound that it takes.
    bound: Option<&'static str>,
    /// Messages hold no thoughts.
    no_thoughts: bool,
    /// One system message, then user and assistant in turn, none of them empty.
    strict_roles: bool,
}

impl Dialect {
    /// Learns from a refusal of a request with these parameters. `false` where it teaches nothing.
    pub fn learn(&mut self, words: &str, parameters: &[String]) -> bool {
        let before = self.clone();
        let words = words.to_lowercase();
        let sent = |name: &str| parameters.iter().any(|parameter| parameter == name);
        let says = |marks: &[&str]| marks.iter().any(|mark| words.contains(mark));
        if says(&["alternate", "either content or tool_calls", "must be at the beginning"])
            || (says(&["system message"]) && says(&["first", "only one", "multiple"]))
            || (says(&["assistant"])
                && says(&[
                    "empty content",
                    "content is empty",
                    "must not be empty",
                    "cannot be empty",
                ]))
        {
            self.strict_roles = true;
        } else if let [Some(_), Some(_)] =
            BOUNDS.map(|name| words.find(name).filter(|_| says(&["instead", "use "])))
        {
            // "Unsupported parameter: 'max_tokens' … Use 'max_completion_tokens' instead."
            self.bound = BOUNDS.into_iter().find(|name| !sent(name));
        } else if names(&words, "max_completion_tokens")
            && sent("max_completion_tokens")
            && is_unknown(&words)
        {
            self.bound = Some("max_tokens");
        } else if THOUGHTS.iter().any(|name| names(&words, name))
            && !says(&["passed back", "required", "missing", "must be provided"])
            && !THOUGHTS.iter().any(|name| sent(name))
        {
            self.no_thoughts = true;
        } else {
            let refused =
                |name: &&str| (sent(name) || *name == "stream_options") && names(&words, name);
            self.without.extend(DISPENSABLE.iter().find(|name| refused(name)));
        }
        *self != before
    }

    pub fn leaves_out(&self, parameter: &str) -> bool {
        self.without.contains(parameter)
    }

    /// Returns the name that the server has for a parameter.
    pub fn name<'a>(&self, parameter: &'a str) -> &'a str {
        match self.bound {
            Some(bound) if BOUNDS.contains(&parameter) => bound,
            _ => parameter,
        }
    }

    /// Returns the messages as the server takes them.
    pub fn messages<'a>(&self, text: &'a str) -> Result<Cow<'a, str>, serde_json::Error> {
        if !self.no_thoughts && !self.strict_roles {
            return Ok(text.into());
        }
        let mut messages: Vec<Map<String, Value>> = serde_json::from_str(text)?;
        if self.no_thoughts {
            for message in &mut messages {
                message.retain(|name, _| !THOUGHTS.contains(&name.as_str()));
            }
        }
        if self.strict_roles {
            messages = in_turn(messages);
        }
        Ok(serde_json::to_string(&messages)?.into())
    }
}

/// Whether a refusal names a parameter. Names that are words of the language count in quotes alone.
fn names(words: &str, name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    words.match_indices(name).any(|(at, _)| {
        let before = words[..at].chars().next_back();
        let after = words[at + name.len()..].chars().next();
        let whole = !before.is_some_and(is_part) && !after.is_some_and(is_part);
        let quoted = before.is_some_and(|c| "'\"`.".contains(c))
            && after.is_some_and(|c| "'\"`:".contains(c));
        whole && (name.contains('_') || quoted)
    })
}

fn is_unknown(words: &str) -> bool {
    [
        "unknown",
        "unsupported",
        "not supported",
        "unrecognized",
        "unexpected",
        "extra",
        "not permitted",
        "not allowed",
    ]
    .iter()
    .any(|mark| words.contains(mark))
}

/// The same conversation with one system message at its beginning, no empty answer, and no two
/// messages of one side in a row.
fn in_turn(messages: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
    let role = |message: &Map<String, Value>| message.get("role").cloned().unwrap_or_default();
    let calls = |message: &Map<String, Value>| {
        message.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty())
    };
    let mut out: Vec<Map<String, Value>> = Vec::with_capacity(messages.len());
    let (system, others): (Vec<_>, Vec<_>) =
        messages.into_iter().partition(|message| role(message) == "system");
    for message in system.into_iter().chain(others) {
        let kind = role(&message);
        if kind == "assistant" && !calls(&message) && is_blank(message.get("content")) {
            continue;
        }
        match out.last_mut() {
            Some(last) if role(last) == kind && kind != "tool" && !calls(last) => {
                let content = joined(last.get("content"), message.get("content"));
                last.extend(message);
                last.insert("content".into(), content);
            }
            _ => out.push(message),
        }
    }
    out
}

fn is_blank(content: Option<&Value>) -> bool {
    match content {
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(Value::Array(parts)) => parts.iter().all(|part| is_blank(part.get("text"))),
        Some(_) => content == Some(&Value::Null),
        None => true,
    }
}

fn joined(one: Option<&Value>, other: Option<&Value>) -> Value {
    if let (Some(Value::String(one)), Some(Value::String(other))) = (one, other) {
        return format!("{one}\n\n{other}").into();
    }
    let parts = |content: Option<&Value>| match content {
        Some(Value::Array(parts)) => parts.clone(),
        Some(Value::String(text)) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    };
    [parts(one), parts(other)].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(words: &str, parameters: &[&str]) -> Option<Dialect> {
        let mut dialect = Dialect::default();
        let parameters: Vec<_> = parameters.iter().map(|name| (*name).to_owned()).collect();
        dialect.learn(words, &parameters).then_some(dialect)
    }

    #[test]
    fn a_refusal_that_names_what_was_sent_teaches_to_leave_it_out() {
        let words = "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted'}]";
        assert!(learned(words, &["messages"]).is_some_and(|d| d.leaves_out("stream_options")));
        for (words, name) in [
            ("Unsupported value: 'temperature' does not support 0 with this model.", "temperature"),
            ("Unexpected fields in the request: {'seed'}", "seed"),
            ("parallel_tool_calls is not supported", "parallel_tool_calls"),
            ("property `thinking` is unknown", "thinking"),
        ] {
            assert!(learned(words, &[name]).is_some_and(|d| d.leaves_out(name)), "{words}");
            assert_eq!(learned(words, &["messages"]), None, "it was not sent: {words}");
        }
        assert_eq!(learned("no user query found; reasoning failed", &["user", "reasoning"]), None);
        assert_eq!(learned("'tools' are not supported", &["tools"]), None, "the agent needs them");
    }

    #[test]
    fn the_bound_has_the_name_that_the_server_wants() {
        let words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
        let dialect = learned(words, &["max_tokens"]).expect("learned");
        assert_eq!(dialect.name("max_tokens"), "max_completion_tokens");
        let old = learned("Unknown field 'max_completion_tokens'", &["max_completion_tokens"]);
        assert_eq!(old.expect("learned").name("max_completion_tokens"), "max_tokens");
        assert_eq!(
            learned("max_tokens=9 cannot be greater than max_model_len=5", &["max_tokens"]),
            None
        );
    }

    #[test]
    fn thoughts_are_left_out_where_they_are_refused_and_kept_where_they_are_wanted() {
        let refused =
            "messages.2.assistant.reasoning_content: property 'reasoning_content' is unsupported";
        let dialect = learned(refused, &[]).expect("learned");
        let out =
            dialect.messages(r#"[{"role":"assistant","reasoning_content":"x","content":"y"}]"#);
        assert_eq!(out.expect("JSON"), r#"[{"role":"assistant","content":"y"}]"#);
        let wanted = "The `reasoning_content` in the thinking mode must be passed back to the API.";
        assert_eq!(learned(wanted, &[]), None);
    }

    #[test]
    fn strict_templates_get_a_conversation_in_turn() {
        let dialect = learned("Conversation roles must alternate user/assistant/…", &[]);
        let messages = json!([
            {"role": "system", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": "do it"},
            {"role": "assistant", "content": " ", "reasoning_content": "hm"},
            {"role": "user", "content": [{"type": "text", "text": "go on"}]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": "y"},
            {"role": "assistant", "content": "one"},
            {"role": "assistant", "content": "two", "tool_calls": [{"id": "3"}]},
        ]);
        let out =
            dialect.expect("learned").messages(&messages.to_string()).expect("JSON").into_owned();
        let expected = json!([
            {"role": "system", "content": "a\n\nb"},
            {"role": "user", "content": [{"type": "text", "text": "do it"}, {"type": "text", "text": "go on"}]},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": "y"},
            {"role": "assistant", "content": "one\n\ntwo", "tool_calls": [{"id": "3"}]},
        ]);
        assert_eq!(serde_json::from_str::<Value>(&out).expect("JSON"), expected);
    }
}
