//! Whether a model can do what an agent needs: call a tool, and go on from its result.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::{Answer, Ending, Endpoint, Error, Fault, Piece, Reader, ToolCall, Upstream};
use crate::config::Source;

/// A server that loads its model on the first request may take this long.
const PATIENCE: Duration = Duration::from_secs(120);
const TOOL: &str = "lookup_password";
/// What the tool answers; a model that read it says it back.
const ANSWER: &str = "cormorant";

/// A round trip that worked.
#[derive(Clone, Debug)]
pub struct RoundTrip {
    /// Until the tool call was complete, and until the closing words were.
    pub call_ms: u64,
    pub total_ms: u64,
    /// The closing words. Untrusted.
    pub answer: String,
    /// Whether the closing words hold what the tool said; a model that passes over it will not
    /// work well.
    pub used_result: bool,
    /// Whether the server counts tokens.
    pub counts_tokens: bool,
}

/// Sends a small request with one tool, as an agent would, and follows it to its end.
pub async fn tool_round_trip(endpoint: &Endpoint) -> Result<RoundTrip, Error> {
    let started = Instant::now();
    let upstream = Upstream::new(endpoint)?;
    let mut messages = vec![
        json!({"role": "system", "content": "You are a test of tool calling. Use the tool; do not guess."}),
        json!({"role": "user", "content": format!(
            "Call the tool {TOOL} with the name \"harbour\". Then tell me in one short sentence the \
             password that it returned."
        )}),
    ];
    let (first, calls) = ask(&upstream, endpoint, &messages).await?;
    let call = check_call(endpoint, first.answer(), calls)?;
    let call_ms = elapsed_ms(started);

    let function = json!({"name": call.name, "arguments": call.arguments});
    let call_json = json!({"id": call.id, "type": "function", "function": function});
    messages.push(
        json!({"role": "assistant", "content": first.answer().text(), "tool_calls": [call_json]}),
    );
    messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": ANSWER}));
    let (second, _) = ask(&upstream, endpoint, &messages).await?;
    let answer = crate::text::one_line(second.answer().text(), 300);
    if answer.is_empty() {
        return Err(no_tools(
            endpoint,
            "it called the tool, but said nothing after the tool's result",
            "check the server's chat template for tool results",
        ));
    }
    Ok(RoundTrip {
        call_ms,
        total_ms: elapsed_ms(started),
        used_result: answer.to_lowercase().contains(ANSWER),
        counts_tokens: second.answer().usage().input > 0,
        answer,
    })
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// One streamed request, because that is what agents send and where tool parsers differ.
async fn ask(
    upstream: &Upstream,
    endpoint: &Endpoint,
    messages: &[Value],
) -> Result<(Reader, Vec<ToolCall>), Error> {
    let parameters = json!({
        "type": "object",
        "properties": {"name": {"type": "string", "description": "Whose password"}},
        "required": ["name"],
    });
    let function =
        json!({"name": TOOL, "description": "Looks up a password", "parameters": parameters});
    let request = json!({
        "model": endpoint.model,
        "messages": messages,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "auto",
        "stream": true,
        "stream_options": {"include_usage": true},
        // Enough for a model that thinks before it acts.
        "max_tokens": endpoint.output.min(2048),
    });
    let exchange = exchange(upstream, request.to_string());
    let outcome = match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::first_byte_timeout(PATIENCE)),
    };
    outcome.map_err(|mut fault| {
        if let Some(key) = &endpoint.api_key {
            fault.message = key.redact(&fault.message);
        }
        Error::Faulted { model: endpoint.model.clone(), fault }
    })
}

async fn exchange(upstream: &Upstream, request: String) -> Result<(Reader, Vec<ToolCall>), Fault> {
    let mut response = upstream.post("/chat/completions", request.into()).await?;
    if !response.is_success() {
        return Err(response.into_fault().await);
    }
    let mut reader = Reader::new(None);
    let mut pieces = Vec::new();
    while !reader.answer().is_done() {
        match response.body.next().await {
            Some(chunk) => reader.push(&chunk?, &mut pieces)?,
            None => break,
        }
    }
    reader.finish(&mut pieces)?;
    let calls = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Called(call) => Some(call),
        _ => None,
    });
    Ok((reader, calls.collect()))
}

fn check_call(
    endpoint: &Endpoint,
    answer: &Answer,
    calls: Vec<ToolCall>,
) -> Result<ToolCall, Error> {
    let Some(call) = calls.into_iter().next() else {
        return Err(not_called(endpoint, answer));
    };
    if call.name != TOOL {
        let why = format!(
            "it called `{}`, which it was not offered",
            crate::text::one_line(&call.name, 60)
        );
        return Err(no_tools(endpoint, &why, "use a model that was trained for tools"));
    }
    if !serde_json::from_str::<Value>(&call.arguments).is_ok_and(|arguments| arguments.is_object())
    {
        let why = format!(
            "the arguments of its tool call are not a JSON object: {}",
            crate::text::one_line(&call.arguments, 120)
        );
        return Err(no_tools(endpoint, &why, parser_remedy(endpoint.source)));
    }
    Ok(call)
}

/// No call came back. If the words look like one, the server did not recognise its model's format.
fn not_called(endpoint: &Endpoint, answer: &Answer) -> Error {
    let text = crate::text::one_line(answer.text(), 120);
    let looks_like_a_call = text.contains(TOOL)
        && ["<tool_call", "<function", "[TOOL_CALLS]", "\"name\"", "<|python_tag|>", "tool_code"]
            .iter()
            .any(|mark| text.contains(mark));
    if looks_like_a_call {
        let why =
            format!("it wrote its tool call as text, which the server did not recognise: {text}");
        return no_tools(endpoint, &why, parser_remedy(endpoint.source));
    }
    if answer.ending() == Some(Ending::Length) {
        let remedy = "raise `model.output`, or use a model that thinks less";
        return no_tools(
            endpoint,
            "its output limit was reached before it called the tool",
            remedy,
        );
    }
    let why = if text.is_empty() {
        "it called no tool and said nothing".to_owned()
    } else {
        format!("it called no tool, and said: {text}")
    };
    no_tools(endpoint, &why, parser_remedy(endpoint.source))
}

/// Returns how to make a server of this kind recognise its model's tool calls.
pub fn parser_remedy(source: Source) -> &'static str {
    match source {
        Source::Vllm => {
            "start vLLM with `--enable-auto-tool-choice --tool-call-parser <parser>`, the parser of \
             the model's family (hermes, llama3_json, mistral, qwen3_coder, …)"
        }
        Source::LlamaCpp => "start llama-server with `--jinja`, and use a model trained for tools",
        Source::LmStudio => "use a model with the tool badge in LM Studio",
        Source::Ollama => "use a model from Ollama's list of those with tools, such as qwen3",
        _ => "switch on tool calling in the server, and use a model trained for tools",
    }
}

fn no_tools(endpoint: &Endpoint, why: &str, remedy: &str) -> Error {
    Error::NoTools { model: endpoint.model.clone(), why: why.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests;
