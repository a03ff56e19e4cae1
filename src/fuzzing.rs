//! Entrances for fuzzing: each reads hostile bytes as the product does, and asserts what must hold
//! of the outcome. Not an interface.

use crate::agent::{AgentEvent, opencode};
use crate::config::{Config, Environment, LoadOptions, Name, Project, load_for};
use crate::gateway::fuzzing as gateway;
use crate::model::{Reader, Redactor, Secret};
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

/// An answer of the model: the same however it is cut, and without the key.
pub fn model_stream(bytes: &[u8]) {
    const KEY: &str = "sk-0123456789abcdef";
    let read = |size: usize| {
        let mut reader = Reader::default();
        let mut redactor = Redactor::new(Secret::new(KEY));
        let (mut calls, mut out) = (Vec::new(), Vec::new());
        let mut good = true;
        for piece in bytes.chunks(size.max(1)) {
            good = good && reader.push(piece, &mut calls).is_ok();
            out.extend(redactor.pass(bytes::Bytes::copy_from_slice(piece)));
        }
        out.extend(redactor.rest());
        good = good && reader.finish(&mut calls).is_ok();
        (good.then(|| reader.answer().text().to_owned()), calls.len(), out)
    };
    let (whole, calls, out) = read(bytes.len());
    assert!(!out.windows(KEY.len()).any(|window| window == KEY.as_bytes()));
    let (cut, cut_calls, cut_out) = read(7);
    assert_eq!(out, cut_out);
    if whole.is_some() && cut.is_some() {
        assert_eq!((whole, calls), (cut, cut_calls));
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
