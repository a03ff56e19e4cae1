//! Why no model server can be used.

use std::fmt;

use serde::Serialize;

use super::Fault;

/// One address that was asked, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// The kind of server that usually listens there.
    pub server: String,
    pub url: String,
    pub outcome: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.server, self.url, self.outcome)
    }
}

/// The messages complete "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("use `{url}` as `model.url`: {why}")]
    BadUrl { url: String, why: String },
    #[error(
        "find a model server: `model.source` is `{kind}`, which has no usual port; set `model.url`"
    )]
    NeedsUrl { kind: &'static str },
    #[error(
        "find a model server; asked were:\n{}\n\
         start one (`vllm serve <model> --enable-auto-tool-choice --tool-call-parser <parser>`, \
         `lms server start`, `ollama serve`, `flm serve <model>`, `llama-server --jinja -m <file>`), \
         or name one with `--model-url http://host:port`, \
         or try without any model: `--model-url rehearsal`",
        list(.tried)
    )]
    NoneFound { tried: Vec<Attempt> },
    #[error("use the model server at {url}: {fault}{}", remedy(.fault))]
    Unusable { url: String, fault: Fault },
    #[error("use the model server at {url}: it offers no model; {remedy}")]
    NoModels { url: String, remedy: String },
    #[error("use model `{asked}`: {url} offers {}; set `--model` or `model.model` to one of these", names(.known))]
    UnknownModel { asked: String, url: String, known: Vec<String> },
    #[error("use the key in {variable}: it holds characters that no key has; set it again")]
    BadKey { variable: String },
    #[error(
        "read the certificate authorities in {path}: {why}; `model.ca_bundle` must name a PEM file"
    )]
    Authorities { path: String, why: String },
    #[error("set up an HTTP client: {why}; check this machine's certificate store")]
    Client { why: String },
    #[error("use tools with {model}: {why}; {remedy}")]
    NoTools { model: String, why: String, remedy: String },
    #[error("get an answer from {model}: {fault}{}", remedy(.fault))]
    Faulted { model: String, fault: Fault },
}

fn list(tried: &[Attempt]) -> String {
    let lines: Vec<_> = tried.iter().map(|attempt| format!("  {attempt}")).collect();
    lines.join("\n")
}

fn remedy(fault: &Fault) -> String {
    fault.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"))
}

/// The models of a server, in one line of bearable length.
fn names(known: &[String]) -> String {
    const SHOWN: usize = 20;
    if known.is_empty() {
        return "none".into();
    }
    let shown: Vec<_> = known.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = known.len().saturating_sub(SHOWN);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &tail
}
