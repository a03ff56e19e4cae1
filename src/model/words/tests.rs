//! Each server's own words, and what is made of them.

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
    assert_eq!(said(r#"{"detail":[{"loc":["body"],"msg":"field required"}]}"#), "field required");
    assert_eq!(said("<html><title>502 Bad Gateway</title></html>"), "502 Bad Gateway");
    assert_eq!(said("\u{1b}[31mred\u{1b}[0m"), "red");
    assert_eq!(said(&"x".repeat(5000)).chars().count(), 500);
    assert_eq!(said(""), "");
}

#[test]
fn vllm_without_its_parser_is_told_how_to_start() {
    let said =
        r#""auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"#;
    let told = hint(400, FaultKind::HttpStatus, said).expect("known wording");
    assert!(told.contains("--enable-auto-tool-choice"));
}

/// What servers say, the kind that it is and a word of the remedy. Status 0 stands for an error in an
/// answer that began as a success.
const SAID: &[(u16, &str, FaultKind, &str)] = &[
    (
        503,
        r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
        FaultKind::Loading,
        "loading",
    ),
    (503, "no server is available to handle this request", FaultKind::HttpStatus, ""),
    (
        500,
        r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#,
        FaultKind::HttpStatus,
        "--jinja",
    ),
    (
        400,
        r#"{"error":{"message":"max_tokens=8192 cannot be greater than max_model_len=4096. Please request fewer output tokens. (parameter=max_tokens, value=8192)","type":"BadRequestError","code":400}}"#,
        FaultKind::ContextOverflow,
        "`model.output`",
    ),
    (
        500,
        r#"{"error":{"message":"no user query found in messages","type":"api_error","code":null}}"#,
        FaultKind::ContextOverflow,
        "OLLAMA_CONTEXT_LENGTH",
    ),
    (
        500,
        r#"{"error":{"code":500,"message":"Context size has been exceeded.","type":"server_error"}}"#,
        FaultKind::ContextOverflow,
        "slots",
    ),
    (
        400,
        r#"{"error":{"message":"No connected db.","type":"no_db_connection","param":null,"code":"400"}}"#,
        FaultKind::Unauthorized,
        "api_key_env",
    ),
    (
        500,
        r#"{"error":{"message":"litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.","type":null,"code":"500"}}"#,
        FaultKind::HttpStatus,
        "behind",
    ),
    (
        0,
        r#"{"error":{"message":"litellm.APIConnectionError: APIConnectionError: OpenAIException - Connection error.","type":null,"code":"500"}}"#,
        FaultKind::StreamError,
        "behind",
    ),
    (
        400,
        r#"{"error":{"message":"litellm.BadRequestError: You passed in model=nope. There are no healthy deployments for this model","code":"400"}}"#,
        FaultKind::ModelNotFound,
        "`model.model`",
    ),
    (
        400,
        r#"{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}"#,
        FaultKind::ModelNotFound,
        "load this model",
    ),
    (
        0,
        r#"{"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}"#,
        FaultKind::StreamError,
        "restart",
    ),
    (
        0,
        r#"{"error": "Unexpected endpoint or method. (GET /v1/models)"}"#,
        FaultKind::StreamError,
        "`model.url`",
    ),
    (
        0,
        r#"{"error":{"code":500,"message":"got exception: Unexpected empty grammar stack after accepting piece: x (3089)","type":"server_error"}}"#,
        FaultKind::StreamError,
        "template",
    ),
    (
        400,
        r#"{"error":{"message":"\"bge-m3\" does not support chat"}}"#,
        FaultKind::HttpStatus,
        "can chat",
    ),
    (
        0,
        r#"{"error":{"message":"Invalid API Key","type":"authentication_error","code":"401"}}"#,
        FaultKind::Unauthorized,
        "api_key_env",
    ),
];

#[test]
fn each_servers_words_have_their_kind_and_a_remedy_that_helps() {
    for &(status, body, kind, remedy) in SAID {
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
