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
    /// `error.code` where it is an HTTP status.
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
    let code = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
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
        _ if is_model_missing(&text, &said.kind) => FaultKind::ModelNotFound,
        _ => FaultKind::HttpStatus,
    }
}

/// vLLM: "This model's maximum context length is 4096 tokens. However, you requested …", "… is
/// longer than the maximum model length of 4096". LM Studio: "Trying to keep the first 9000 tokens
/// when context the overflows …", "Reached context length of 4096 tokens". llama.cpp: type
/// `exceed_context_size_error`, "Context size has been exceeded.". Ollama: "the input length
/// exceeds the context length". llama-cpp-python: "Requested tokens (2285) exceed context window".
fn is_context_overflow(text: &str, kind: &str) -> bool {
    const MARKS: [&str; 7] =
        ["exceed", "maximum", "overflow", "longer than", "reached", "not enough", "too long"];
    if ["context_length_exceeded", "exceed_context_size_error", "contextwindow"]
        .iter()
        .any(|mark| kind.contains(mark) || text.contains(mark))
    {
        return true;
    }
    let about_context =
        ["context length", "context size", "context window", "maximum model length"]
            .iter()
            .any(|subject| text.contains(subject))
            || text.contains("context the overflows");
    (about_context && MARKS.iter().any(|mark| text.contains(mark)))
        || text.contains("prompt is too long")
        || text.contains("prompt too long")
}

/// vLLM: "The model `x` does not exist." Ollama: "model \"x\" not found, try pulling it first".
/// LM Studio: "No models loaded. Please load a model …", "Failed to load model".
fn is_model_missing(text: &str, kind: &str) -> bool {
    kind.contains("model_not_found")
        || text.contains("no models loaded")
        || text.contains("failed to load model")
        || (text.contains("model")
            && ["does not exist", "not found", "is not loaded", "unknown model"]
                .iter()
                .any(|mark| text.contains(mark)))
}

/// A remedy that follows from the words rather than from the kind.
pub fn hint(status: u16, text: &str) -> Option<&'static str> {
    let lower = text.to_lowercase();
    if lower.contains("tool-call-parser") || lower.contains("tool choice requires") {
        return Some(
            "restart vLLM with `--enable-auto-tool-choice --tool-call-parser <parser>` (the parser \
             of the model's family, such as hermes, llama3_json, mistral or qwen3_coder)",
        );
    }
    if lower.contains("does not support tools") {
        return Some("use a model that can call tools, such as a recent Qwen, Llama or Mistral");
    }
    if lower.contains("loading model") || (status == 503 && lower.contains("load")) {
        return Some("the server is still loading its model; try again when it is ready");
    }
    if lower.contains("no models loaded") {
        return Some("load a model in LM Studio (`lms load <model> --context-length 32768`)");
    }
    match status {
        404 => Some("check `model.url`: the server does not know this path"),
        300..=399 => Some("redirects are not followed; set `model.url` to where they lead"),
        500 => Some("look at the server's log"),
        502 | 504 => Some("a proxy answered for the model server; check that the server runs"),
        _ => None,
    }
    .filter(|_| !is_model_missing(&lower, "") && !is_context_overflow(&lower, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, body: &str) -> FaultKind {
        classify(status, &from_body(body.as_bytes()))
    }

    #[test]
    fn every_servers_overflow_is_recognised() {
        for body in [
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 9000 tokens","code":400}"#,
            r#"{"error":{"message":"The decoder prompt (length 9000) is longer than the maximum model length of 4096.","type":"BadRequestError","code":400}}"#,
            r#"{"error":"Trying to keep the first 15857 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens, which is not enough."}"#,
            r#"{"error":{"code":400,"message":"request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it","type":"exceed_context_size_error","n_prompt_tokens":4390,"n_ctx":4096}}"#,
            r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#,
            r#"{"error":{"message":"the input length exceeds the context length"}}"#,
            r#"{"detail":"Requested tokens (2285) exceed context window of 2048"}"#,
            r#"{"error":{"message":"too many","code":"context_length_exceeded"}}"#,
        ] {
            assert_eq!(kind(400, body), FaultKind::ContextOverflow, "{body}");
        }
    }

    #[test]
    fn other_refusals_are_told_apart() {
        let missing = r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","code":404}}"#;
        assert_eq!(kind(404, missing), FaultKind::ModelNotFound);
        let pull = r#"{"error":{"message":"model \"x\" not found, try pulling it first"}}"#;
        assert_eq!(kind(404, pull), FaultKind::ModelNotFound);
        assert_eq!(kind(404, "404 page not found"), FaultKind::HttpStatus);
        assert_eq!(kind(401, r#"{"detail":"Unauthorized"}"#), FaultKind::Unauthorized);
        assert_eq!(kind(429, "context window exceeded its quota"), FaultKind::RateLimited);
        assert_eq!(kind(500, "maximum recursion depth"), FaultKind::HttpStatus);
        assert_eq!(kind(400, "temperature exceeds the maximum"), FaultKind::HttpStatus);
    }

    #[test]
    fn the_servers_own_words_are_found_and_made_safe() {
        let said = |body: &str| from_body(body.as_bytes()).text;
        assert_eq!(said(r#"{"error":{"message":"out of\nmemory"}}"#), "out of memory");
        assert_eq!(said(r#"{"error":"plain"}"#), "plain");
        assert_eq!(
            said(r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#),
            "field required"
        );
        assert_eq!(said("<html><title>502 Bad Gateway</title></html>"), "502 Bad Gateway");
        assert_eq!(said("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(said(&"x".repeat(5000)).chars().count(), 500);
        assert_eq!(said(""), "");
    }

    #[test]
    fn vllm_without_its_parser_is_told_how_to_start() {
        let said = r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#;
        assert!(hint(400, said).expect("known wording").contains("--enable-auto-tool-choice"));
    }
}
