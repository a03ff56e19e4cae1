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
/// longer than the maximum model length of 4096", "max_tokens=8192 cannot be greater than
/// max_model_len=4096". LM Studio: "Trying to keep the first 9000 tokens when context the
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
        let told = hint(400, FaultKind::HttpStatus, said).expect("known wording");
        assert!(told.contains("--enable-auto-tool-choice"));
    }

    #[test]
    fn each_servers_words_have_their_kind_and_a_remedy_that_helps() {
        use FaultKind::{
            ContextOverflow, HttpStatus, Loading, ModelNotFound, StreamError, Unauthorized,
        };
        // Status 0 stands for an error in an answer that began as a success.
        for (status, body, kind, remedy) in [
            (
                503,
                r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
                Loading,
                "loading",
            ),
            (503, "no server is available to handle this request", HttpStatus, ""),
            (
                500,
                r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#,
                HttpStatus,
                "--jinja",
            ),
            (
                400,
                r#"{"error":{"message":"max_tokens=8192 cannot be greater than max_model_len=4096. Please request fewer output tokens. (parameter=max_tokens, value=8192)","type":"BadRequestError","code":400}}"#,
                ContextOverflow,
                "`model.output`",
            ),
            (
                500,
                r#"{"error":{"message":"no user query found in messages","type":"api_error","code":null}}"#,
                ContextOverflow,
                "OLLAMA_CONTEXT_LENGTH",
            ),
            (
                500,
                r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#,
                ContextOverflow,
                "slots",
            ),
            (
                400,
                r#"{"error":{"message":"No connected db.","type":"no_db_connection","param":null,"code":"400"}}"#,
                Unauthorized,
                "api_key_env",
            ),
            (
                500,
                r#"{"error":{"message":"litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.","type":null,"code":"500"}}"#,
                HttpStatus,
                "behind",
            ),
            (
                0,
                r#"{"error":{"message":"litellm.APIConnectionError: APIConnectionError: OpenAIException - Connection error.","type":null,"code":"500"}}"#,
                StreamError,
                "behind",
            ),
            (
                400,
                r#"{"error":{"message":"litellm.BadRequestError: You passed in model=nope. There are no healthy deployments for this model","code":"400"}}"#,
                ModelNotFound,
                "`model.model`",
            ),
            (
                400,
                r#"{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}"#,
                ModelNotFound,
                "load this model",
            ),
            (
                0,
                r#"{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}"#,
                StreamError,
                "restart",
            ),
            (
                0,
                r#"{"error": "Unexpected endpoint or method. (GET /v1/models)"}"#,
                StreamError,
                "`model.url`",
            ),
            (
                0,
                r#"{"error":{"code":500,"message":"got exception: Unexpected empty grammar stack after accepting piece: x (3089)","type":"server_error"}}"#,
                StreamError,
                "template",
            ),
            (
                400,
                r#"{"error":{"message":"\"bge-m3\" does not support chat"}}"#,
                HttpStatus,
                "can chat",
            ),
            (
                0,
                r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":"401"}}"#,
                Unauthorized,
                "api_key_env",
            ),
        ] {
            let fault = match status {
                0 => super::super::Fault::from_error_object(body.as_bytes()),
                _ => super::super::Fault::from_status(status, body.as_bytes()),
            };
            assert_eq!(fault.kind, kind, "{body}");
            let hint = fault.hint.unwrap_or_default();
            assert!(hint.contains(remedy), "{body}: {hint}");
            assert!(!hint.contains("crashed"), "{body}: {hint}");
        }
    }
}
