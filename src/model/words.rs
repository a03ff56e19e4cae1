//! What a model server says when it refuses, and what it means by it.
//!
//! Every server has its own wording and its own shape of an error body. This file is the one place
//! that knows them.

use serde_json::Value;

use super::kind::FaultKind;
use crate::text;

/// Most characters of a server's words that are kept.
const MAX_WORDS: usize = 500;

/// An error body, read as well as it can be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    /// `error.type` and `error.code` as text, in lower case.
    pub kind: String,
    /// `error.code` where it is an HTTP status, also one that is written as a text.
    pub code: Option<u16>,
}

/// Words fit for one line of a report.
pub fn tidy(words: &str) -> String {
    text::one_line(text::prefix(words, 16 * MAX_WORDS), MAX_WORDS)
}

/// Reads the common shape (`error.message`), vLLM's (`detail`), Ollama's (`error` as a text),
/// a bare `message`, and else plain text or the visible part of a page.
pub fn from_body(body: &[u8]) -> Said {
    let Ok(json) = serde_json::from_slice::<Value>(body) else {
        let body = &body[..body.len().min(64 * 1024)];
        return Said {
            text: tidy(&without_tags(&String::from_utf8_lossy(body))),
            ..Said::default()
        };
    };
    let error = json.get("error").unwrap_or(&json);
    let text = match error {
        Value::String(text) => text.clone(),
        _ => ["message", "detail", "error", "msg", "error_description"]
            .iter()
            .find_map(|key| error.get(key).or_else(|| json.get(key)))
            .map_or_else(|| json.to_string(), words_of),
    };
    let field = |key| error.get(key).map(words_of).unwrap_or_default().to_lowercase();
    let code = error.get("code").and_then(|code| match code {
        Value::String(text) => text.trim().parse().ok(),
        code => code.as_u64().and_then(|code| u16::try_from(code).ok()),
    });
    Said { text: tidy(&text), kind: format!("{} {}", field("type"), field("code")), code }
}

/// A text as it is; a list of complaints by their `msg`; anything else as JSON.
fn words_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let parts: Vec<_> = items
                .iter()
                .map(|item| item.get("msg").map_or_else(|| item.to_string(), words_of))
                .collect();
            parts.join("; ")
        }
        Value::Object(map) => map.get("message").map_or_else(|| value.to_string(), words_of),
        other => other.to_string(),
    }
}

/// Proxies answer with pages; their words stand between the tags.
fn without_tags(page: &str) -> String {
    if !page.trim_start().starts_with('<') {
        return page.to_owned();
    }
    let mut out = String::new();
    let mut in_tag = false;
    for c in page.chars() {
        match c {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                out.push(' ');
            }
            c if !in_tag => out.push(c),
            _ => {}
        }
    }
    out
}

/// What a status and the words with it mean.
pub fn classify(status: u16, said: &Said) -> FaultKind {
    let text = said.text.to_lowercase();
    if is_context_overflow(&text, &said.kind) && !matches!(status, 401 | 403 | 429) {
        return FaultKind::ContextOverflow;
    }
    match status {
        401 | 403 => FaultKind::Unauthorized,
        429 => FaultKind::RateLimited,
        _ if is_unknown_key(&text, &said.kind) => FaultKind::Unauthorized,
        503 if is_loading(&text, &said.kind) => FaultKind::Loading,
        _ if is_model_missing(&text, &said.kind) => FaultKind::ModelNotFound,
        _ => FaultKind::HttpStatus,
    }
}

fn has(text: &str, marks: &[&str]) -> bool {
    marks.iter().any(|mark| text.contains(mark))
}

/// vLLM: "This model's maximum context length is 4096 tokens. However, you requested …", "… is
/// longer than the maximum model length of 4096", "`max_tokens=8192` cannot be greater
/// than `max_model_len=4096`". LM Studio: "Trying to keep the first 9000 tokens when context the
/// overflows …", "Reached context length of 4096 tokens". llama.cpp: type
/// `exceed_context_size_error`, "Context size has been exceeded.". Ollama: "the input length
/// exceeds the context length", and "no user query found in messages" where it has dropped the
/// user's words to make room. llama-cpp-python: "Requested tokens (2285) exceed context window".
fn is_context_overflow(text: &str, kind: &str) -> bool {
    const KINDS: [&str; 3] =
        ["context_length_exceeded", "exceed_context_size_error", "contextwindow"];
    const WORDS: [&str; 4] = [
        "prompt is too long",
        "prompt too long",
        "context the overflows",
        "no user query found in messages",
    ];
    const SUBJECTS: [&str; 6] = [
        "context length",
        "context size",
        "context window",
        "maximum model length",
        "max_model_len",
        "max_seq_len",
    ];
    const MARKS: [&str; 8] = [
        "exceed",
        "maximum",
        "overflow",
        "longer than",
        "reached",
        "not enough",
        "too long",
        "greater than",
    ];
    has(kind, &KINDS)
        || has(text, &KINDS)
        || has(text, &WORDS)
        || (has(text, &SUBJECTS) && has(text, &MARKS))
}

/// `LiteLLM` without a database takes every key that it does not know for one to be looked up.
fn is_unknown_key(text: &str, kind: &str) -> bool {
    has(kind, &["no_db_connection", "invalid_api_key", "authentication_error"])
        || has(text, &["no connected db", "invalid api key", "incorrect api key"])
}

/// llama.cpp: type `unavailable_error`, "Loading model". Others start, warm up or wake.
fn is_loading(text: &str, kind: &str) -> bool {
    kind.contains("unavailable_error")
        || has(text, &["loading", "starting", "warming", "initializ", "not ready", "waking"])
}

/// vLLM: "The model `x` does not exist." Ollama: "model \"x\" not found, try pulling it first".
/// LM Studio: "No models loaded. Please load a model …", "Failed to load model". `LiteLLM`: "There
/// are no healthy deployments for this model". transformers: "Server is pinned to 'x'; …".
fn is_model_missing(text: &str, kind: &str) -> bool {
    kind.contains("model_not_found")
        || has(text, &["no models loaded", "failed to load model", "server is pinned to"])
        || (text.contains("model")
            && has(
                text,
                &[
                    "does not exist",
                    "not found",
                    "is not loaded",
                    "unknown model",
                    "no healthy deployments",
                ],
            ))
}

/// Remedies that follow from the words rather than from the kind, each for any of its words.
const REMEDIES: &[(&[&str], &str)] = &[
    (
        &["tool-call-parser", "tool choice requires"],
        "restart vLLM with `--enable-auto-tool-choice --tool-call-parser <parser>` (the parser \
         of the model's family, such as hermes, llama3_json, mistral or qwen3_coder)",
    ),
    (
        &["requires --jinja"],
        "restart llama-server with `--jinja` (the default of newer ones: without `--no-jinja`)",
    ),
    (
        &["does not support tools"],
        "use a model that can call tools, such as a recent Qwen, Llama or Mistral",
    ),
    (
        &["does not support chat"],
        "set `model.model` to one that can chat and call tools; this one only embeds text",
    ),
    (
        &["grammar"],
        "the model's tool call does not fit the grammar that the server made of the tools: use the \
         chat template that belongs to the model (`--chat-template-file`), a newer llama.cpp, or \
         another model trained for tools",
    ),
    (
        &["enginecore", "enginedeaderror", "engine is dead", "engine died"],
        "vLLM's engine has ended, and only a restart of vLLM brings it back; its log has the \
         cause, often too little memory (`--gpu-memory-utilization`, `--max-model-len`)",
    ),
    (
        &["no user query found in messages"],
        "the context is so short that the server dropped the task: restart Ollama with \
         OLLAMA_CONTEXT_LENGTH=32768, or load the model with a longer context",
    ),
    (
        &["max_model_len", "max_tokens is too large", "max_tokens' or"],
        "set `model.context` to the context that the server really has, or lower `model.output`",
    ),
    (
        &["context size has been exceeded"],
        "load the model with a longer context (32768 tokens or more for each run); llama-server \
         shares one among its slots, so run one task at a time (`limits.concurrency`) or start it \
         with `--no-kv-unified`",
    ),
    (
        &["no models loaded"],
        "load a model in LM Studio (`lms load <model> --context-length 32768`)",
    ),
    (
        &["is not loaded"],
        "load this model on the server first, or let the server load models by itself \
         (llama-server without `--no-models-autoload`)",
    ),
    (
        &["server is pinned to", "no healthy deployments"],
        "set `model.model` to a name that the server has",
    ),
    (
        &["connection error", "apiconnectionerror", "connecterror"],
        "the proxy answers, but the model server behind it does not; start that one, and check its \
         address in the proxy's settings",
    ),
    (
        &["unexpected endpoint"],
        "check `model.url`: the server does not know this path; its API is usually at `/v1`",
    ),
    (
        &["requires more system memory", "out of memory"],
        "the server has too little memory: use a smaller model, a shorter context, or end what \
         else uses the memory",
    ),
];

/// A remedy that follows from the words, for a fault of this kind.
pub fn hint(status: u16, kind: FaultKind, text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    let told = || REMEDIES.iter().find(|(marks, _)| has(&lower, marks)).map(|(_, remedy)| *remedy);
    match (kind, status) {
        // Words about a key or a wait have no better remedy than their kind.
        (FaultKind::Unauthorized | FaultKind::RateLimited | FaultKind::Loading, _) => None,
        (FaultKind::ContextOverflow | FaultKind::ModelNotFound, _) => told(),
        _ => told().or(match status {
            404 => Some("check `model.url`: the server does not know this path"),
            300..=399 => Some("redirects are not followed; set `model.url` to where they lead"),
            500 => Some("look at the server's log"),
            502 | 504 => Some("a proxy answered for the model server; check that the server runs"),
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests;
