//! Entrances for fuzzing: each reads hostile bytes as the product does, and asserts what must hold
//! of the outcome. Not an interface.

use serde_json::json;

use crate::agent::{AgentEvent, opencode};
use crate::config::{Config, Environment, LoadOptions, Name, Project, load_for};
use crate::gateway::fuzzing as gateway;
use crate::text;
use crate::workspace::fuzzing as workspace;

/// Bytes that a sandbox's first process says.
pub fn pipe(bytes: &[u8]) {
    crate::sandbox::fuzzing::pipe(bytes);
}

/// A line of the agent's output.
pub fn agent_line(bytes: &[u8]) {
    let line = String::from_utf8_lossy(bytes);
    match opencode::parse(&line) {
        Some(AgentEvent::Text { text }) => harmless(&text),
        Some(AgentEvent::Tool { name, title, error, .. }) => {
            harmless(&name);
            harmless(&title);
            harmless(&error.unwrap_or_default());
        }
        Some(AgentEvent::Error { name, message, .. }) => {
            harmless(&name);
            harmless(&message);
        }
        Some(AgentEvent::StepStarted | AgentEvent::StepFinished { .. }) | None => {}
    }
    harmless(&text::clean(&line));
}

/// Nothing that steers a terminal, turns text around or is not seen.
fn harmless(text: &str) {
    let bad = text
        .chars()
        .find(|c| (c.is_control() && !['\n', '\t'].contains(c)) || text::is_invisible(*c));
    assert_eq!(bad, None, "{text:?}");
}

/// The head of a request to the egress proxy.
pub fn proxy_head(bytes: &[u8]) {
    if let Ok(head) = gateway::proxy_head(bytes) {
        // One reader's name is every reader's name.
        assert_eq!(Name::parse(head.name.as_str()).as_ref(), Ok(&head.name));
        assert_ne!(head.port, 0);
    }
}

/// The first bytes in a tunnel. What is behind a `ClientHello` changes nothing in it, and however
/// it arrives, no other is seen.
pub fn client_hello(bytes: &[u8]) {
    let whole = gateway::client_hello(bytes);
    for end in 0..bytes.len().min(600) {
        let part = gateway::client_hello(&bytes[..end]);
        assert!(part == gateway::Parsed::Incomplete || part == whole, "{part:?} {whole:?}");
    }
}

/// A request to the model: what is passed on is one JSON object for our model.
pub fn model_request(bytes: &[u8]) {
    if let Some(body) = gateway::model_request(bytes, "the-model") {
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON goes out");
        assert_eq!(value["model"], "the-model");
        let twice = gateway::model_request(&body, "the-model").expect("passes again");
        assert_eq!(twice, body, "nothing is left to take out");
    }
}

/// An answer of the model: the agent gets the same however it is cut, in one form, and without the
/// key.
pub fn model_stream(bytes: &[u8]) {
    const KEY: &str = "sk-0123456789abcdef";
    let whole = gateway::relayed(bytes.chunks(bytes.len().max(1)), KEY);
    let cut = gateway::relayed(bytes.chunks(7), KEY);
    assert_eq!(whole.is_ok(), cut.is_ok(), "{whole:?} {cut:?}");
    let (Ok(whole), Ok(cut)) = (whole, cut) else { return };
    let (whole, cut) = (canonical(&whole), canonical(&cut));
    assert_eq!(whole, cut);
    assert!(!format!("{whole:?}").contains(KEY), "{whole:?}");
}

/// A stream as a strict client hears it.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    text: String,
    thoughts: String,
    /// Name and arguments.
    calls: Vec<(String, String)>,
    reason: String,
    tokens: Option<(u64, u64)>,
}

/// Reads a stream as a strict client does, and asserts that it is one.
fn canonical(stream: &[u8]) -> Heard {
    let stream = std::str::from_utf8(stream).expect("text");
    let mut heard = Heard::default();
    let mut ids = std::collections::BTreeSet::new();
    let events = stream.strip_suffix("data: [DONE]\n\n").expect("an end");
    for (number, event) in events.split_terminator("\n\n").enumerate() {
        let event = event.strip_prefix("data: ").expect("one line of data");
        let event: serde_json::Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(event["object"], "chat.completion.chunk");
        if let Some(usage) = event.get("usage") {
            assert_eq!((&event["choices"], heard.tokens), (&json!([]), None));
            let count = |name: &str| usage[name].as_u64().expect("a number");
            heard.tokens = Some((count("prompt_tokens"), count("completion_tokens")));
            continue;
        }
        let choice = &event["choices"][0];
        assert!(heard.reason.is_empty(), "nothing follows the end");
        choice["finish_reason"].as_str().unwrap_or_default().clone_into(&mut heard.reason);
        let delta = choice["delta"].as_object().expect("a delta");
        let role = delta.get("role").and_then(serde_json::Value::as_str);
        assert_eq!(role, (number == 0).then_some("assistant"), "one role");
        let text = |name: &str| {
            delta.get(name).map_or("", |text| text.as_str().expect("a text")).to_owned()
        };
        heard.text += &text("content");
        heard.thoughts += &text("reasoning_content");
        for call in delta.get("tool_calls").and_then(|calls| calls.as_array()).into_iter().flatten()
        {
            let index = usize::try_from(call["index"].as_u64().expect("an index")).expect("small");
            let arguments = call["function"]["arguments"].as_str();
            match call.get("id") {
                Some(id) => {
                    assert_eq!(index, heard.calls.len(), "no gap");
                    assert!(ids.insert(id.as_str().expect("a text").to_owned()), "ids are unique");
                    let name = call["function"]["name"].as_str().expect("a text");
                    assert!(!name.is_empty());
                    heard.calls.push((name.into(), arguments.expect("a text").into()));
                }
                None => heard.calls[index].1 += arguments.unwrap_or_default(),
            }
        }
    }
    let called = if heard.calls.is_empty() { "stop" } else { "tool_calls" };
    assert!([called, "length", "content_filter"].contains(&heard.reason.as_str()), "{heard:?}");
    heard
}

/// A valid answer in the shape of some server and cut anywhere: the agent gets one form of it, which
/// says the same. The bytes decide.
pub fn model_answer(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let mut meant = Heard::default();
    let (with_index, with_id) = (dice.of(2) == 0, dice.of(2) == 0);
    let shape = dice.of(3);
    let mut deltas = Vec::new();
    let mut message = json!({"role": "assistant", "content": "", "tool_calls": []});
    for _ in 0..dice.of(8) {
        let word = ["one ", "zwei\n", "drei 🦀", "\\", "<think>", "\"}"][dice.of(6)];
        match dice.of(3) {
            0 => {
                meant.text += word;
                let part = json!([{"type": "text", "text": word}]);
                deltas.push(json!({"content": if dice.of(2) == 0 { json!(word) } else { part }}));
            }
            1 => {
                meant.thoughts += word;
                let name = ["reasoning", "reasoning_content"][dice.of(2)];
                let role = ["", "assistant"][dice.of(2)];
                deltas.push(json!({name: word, "role": role}));
            }
            _ => {
                let number = meant.calls.len();
                let name = ["bash", "read"][dice.of(2)];
                let arguments = json!({"word": word});
                let text = arguments.to_string();
                meant.calls.push((name.into(), text.clone()));
                let mut call = json!({"function": {"name": name}});
                if with_index {
                    call["index"] = json!(number);
                }
                let mut rest = call.clone();
                if with_id {
                    call["id"] = json!(format!("id-{number}"));
                }
                if dice.of(2) == 0 {
                    call["function"]["arguments"] =
                        if dice.of(2) == 0 { arguments } else { json!(text) };
                    deltas.push(json!({"tool_calls": [call.clone()]}));
                } else {
                    let half = crate::text::prefix(&text, text.len() / 2);
                    call["function"]["arguments"] = json!(half);
                    rest["function"] = json!({"arguments": text[half.len()..]});
                    deltas.push(json!({"tool_calls": [call.clone(), rest]}));
                    call["function"]["arguments"] = json!(text);
                }
                message["tool_calls"].as_array_mut().expect("a list").push(call);
            }
        }
    }
    message["content"] = json!(meant.text);
    message["reasoning"] = json!(meant.thoughts);
    let length = dice.of(4) == 0;
    let reason = if length { "length" } else { ["stop", "tool_calls", "eos_token"][dice.of(3)] };
    meant.reason = match (length, meant.calls.is_empty()) {
        (true, _) => "length",
        (_, true) => "stop",
        (_, false) => "tool_calls",
    }
    .into();
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 7});
    let counts = dice.of(2) == 0;
    meant.tokens = counts.then_some((5, 7));
    let mut events: Vec<_> =
        deltas.iter().map(|delta| json!({"choices": [{"index": 0, "delta": delta}]})).collect();
    events.push(json!({"choices": [{"delta": {}, "finish_reason": reason}]}));
    let mut whole = json!({"choices": [{"message": message, "finish_reason": reason}]});
    if counts {
        events.push(json!({"choices": [], "usage": usage}));
        whole["usage"] = usage;
    }
    let body = match shape {
        0 => format!("{whole:#}"),
        1 => events.iter().map(|event| format!("{event}\n")).collect::<Vec<_>>().concat(),
        _ => {
            let end = ["", "data: [DONE]\n\n"][dice.of(2)];
            events
                .iter()
                .map(|event| format!(": beat\r\n\r\ndata: {event}\n\n"))
                .collect::<Vec<_>>()
                .concat()
                + end
        }
    };
    let mut rest = body.as_bytes();
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let (chunk, behind) = rest.split_at((dice.of(256) + 1).min(rest.len()));
        chunks.push(chunk);
        rest = behind;
    }
    let heard = gateway::relayed(chunks.into_iter(), "sk-0123456789abcdef").expect("understood");
    assert_eq!(canonical(&heard), meant, "{body}");
}

/// Choices that bytes make.
struct Dice<'a>(&'a [u8]);

impl Dice<'_> {
    /// A number below `sides`; 0 when the bytes are used up.
    fn of(&mut self, sides: usize) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first) % sides
    }
}

/// A project's settings that nobody trusts open nothing.
pub fn project_settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let options = LoadOptions {
        environment: Environment::of([("HOME", "/nowhere")]),
        ..LoadOptions::default()
    };
    let Ok(effective) = load_for(&options, Some(&Project::of(text)), false) else { return };
    let (now, base) = (effective.config, Config::default());
    let mut neutral = now.clone();
    neutral.limits = base.limits.clone();
    neutral.workspace.protected.clear();
    assert_eq!(neutral, base);
    assert!(now.limits.memory <= base.limits.memory && now.limits.disk <= base.limits.disk);
    assert!(now.limits.pids <= base.limits.pids && now.limits.timeout <= base.limits.timeout);
    assert!(now.limits.max_requests <= base.limits.max_requests);
}

/// The settings of a repository that a run made: what is put back is harmless, and stays so.
pub fn git_settings(bytes: &[u8]) {
    let (text, _) = workspace::harmless(bytes);
    let (again, dropped) = workspace::harmless(text.as_bytes());
    assert_eq!((again.as_str(), dropped.as_slice()), (text.as_str(), [].as_slice()));
    // Each setting stands on a line of its own behind a tab; no value holds a line's end.
    let settings = text.lines().filter_map(|line| line.strip_prefix('\t'));
    let keys = settings.filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim());
    for key in keys {
        let key = key.to_ascii_lowercase();
        for bad in ["fsmonitor", "hookspath", "sshcommand", "editor", "pager", "command", "path"] {
            assert!(!key.contains(bad), "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn answers_of_any_shape_say_the_same() {
        let mut state = 1_u64;
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33).to_le_bytes()[0]
                })
                .collect();
            super::model_answer(&bytes);
            super::model_stream(&bytes);
        }
    }
}
