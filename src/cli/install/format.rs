//! What a settings file is written in, and why its text is left alone.

use serde_json::Value;

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Nothing but JSON is understood by its client.
    Json,
    /// JSON with comments and trailing commas.
    Jsonc,
    Toml,
}

/// Why a text is left alone. Completes "failed to …".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("read it: line {line}: {reason}")]
    Syntax { line: usize, reason: String },
    #[error("read it: it is not UTF-8 text")]
    NotText,
    #[error("find a place in it: `{at}` is {found}, and not a table of names")]
    NotATable { at: String, found: &'static str },
    #[error("find a place in it: `{at}` is there twice")]
    Twice { at: String },
    #[error("edit it without a change to something else in it")]
    SideEffect,
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "yes or no",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
