//! Entrances for fuzzing: each reads hostile bytes as the product does, and asserts what must hold
//! of the outcome. Not an interface.

use crate::agent::{AgentEvent, opencode};
use crate::text;

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

/// Nothing that steers a terminal or turns text around.
fn harmless(text: &str) {
    let bad = text.chars().find(|c| {
        (c.is_control() && !['\n', '\t'].contains(c))
            || ('\u{202a}'..='\u{202e}').contains(c)
            || ('\u{2066}'..='\u{2069}').contains(c)
    });
    assert_eq!(bad, None, "{text:?}");
}
