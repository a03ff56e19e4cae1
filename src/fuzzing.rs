//! Entrances for fuzzing: each reads hostile bytes as the product does, and asserts what must hold
//! of the outcome. Not an interface.

use crate::agent::{AgentEvent, opencode};
use crate::config::{Config, Environment, LoadOptions, Name, Project, load_for};
use crate::gateway::fuzzing as gateway;
use crate::text;
use crate::workspace::fuzzing as workspace;

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

/// What a strict client makes of a stream.
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
            assert_eq!((&event["choices"], heard.tokens), (&serde_json::json!([]), None));
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
