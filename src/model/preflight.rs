//! Whether a model can do what an agent needs: call a tool, and go on from its result.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};

use super::patience::Wait;
use super::{
    Answer, Ending, Endpoint, Error, Fault, FaultKind, Patience, Piece, Reader, Secrets, ToolCall,
    Upstream, written_call,
};
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
    /// The closing words came as thoughts, which the server took them for.
    pub as_thoughts: bool,
    /// Whether the server counts tokens.
    pub counts_tokens: bool,
    /// How fast the first request was read; `None` where nobody counts.
    pub reading: Option<Reading>,
}

/// How long a server took to read a prompt: until the first word of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub tokens: u64,
    pub took: Duration,
}

impl Reading {
    /// How long a prompt of `tokens` takes at this speed.
    pub fn of(&self, tokens: u32) -> Duration {
        self.took / u32::try_from(self.tokens.max(1)).unwrap_or(u32::MAX) * tokens
    }
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
    let first = ask(&upstream, endpoint, &messages).await?;
    let call = check_call(endpoint, &first)?;
    let call_ms = elapsed_ms(started);

    let function = json!({"name": call.name, "arguments": call.arguments});
    let call_json = json!({"id": call.id, "type": "function", "function": function});
    messages.push(
        json!({"role": "assistant", "content": first.answer().text(), "tool_calls": [call_json]}),
    );
    messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": ANSWER}));
    let second = ask(&upstream, endpoint, &messages).await?;
    let said = crate::text::one_line(second.answer().text(), 300);
    let thought = crate::text::one_line(second.answer().thoughts(), 300);
    // A server that takes all words of a model for thoughts hands on nothing else.
    let as_thoughts = said.is_empty() && second.calls.is_empty();
    let answer = if as_thoughts { thought } else { said };
    if answer.is_empty() {
        let why = match swallowed(second.answer()) {
            Some(counted) => format!("it called the tool, and after the tool's result {counted}"),
            None => "it called the tool, but said nothing after the tool's result".to_owned(),
        };
        let remedy = "check the server's chat template for tool results, and its parsers for tools \
                      and reasoning";
        return Err(no_tools(endpoint, &why, remedy));
    }
    Ok(RoundTrip {
        call_ms,
        total_ms: elapsed_ms(started),
        used_result: answer.to_lowercase().contains(ANSWER),
        as_thoughts,
        counts_tokens: second.answer().usage().input > 0,
        reading: first.reading(),
        answer,
    })
}

/// Measures how fast the server reads, with a prompt that it cannot have seen. The first request
/// to a model that was not in memory says little about that.
pub async fn reading(endpoint: &Endpoint) -> Result<Option<Reading>, Error> {
    let upstream = Upstream::new(endpoint)?;
    let words = (0..150).map(|number| (number * 7919 % 10_007).to_string());
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    let text = format!("{since} {}: say done.", words.collect::<Vec<_>>().join(" "));
    let request = json!({
        "model": endpoint.model,
        "messages": [{"role": "user", "content": text}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_tokens": 8,
    });
    send(&upstream, endpoint, request.to_string()).await.map(|reply| reply.reading())
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What came back, and how.
struct Reply {
    reader: Reader,
    calls: Vec<ToolCall>,
    began: Instant,
    first_word: Option<Instant>,
}

impl Reply {
    fn answer(&self) -> &Answer {
        self.reader.answer()
    }

    fn reading(&self) -> Option<Reading> {
        let tokens = self.answer().usage().input;
        let took = self.first_word?.saturating_duration_since(self.began);
        (tokens > 0).then_some(Reading { tokens, took })
    }
}

/// One streamed request, because that is what agents send and where tool parsers differ.
async fn ask(upstream: &Upstream, endpoint: &Endpoint, messages: &[Value]) -> Result<Reply, Error> {
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
    send(upstream, endpoint, request.to_string()).await
}

/// Sends a request, again and again while the server loads its model.
async fn send(upstream: &Upstream, endpoint: &Endpoint, request: String) -> Result<Reply, Error> {
    let mut wait = Wait::new(Patience::silent(PATIENCE));
    let exchanges = async {
        loop {
            match exchange(upstream, request.clone()).await {
                Err(fault) if fault.kind == FaultKind::Loading => {
                    if !wait.again(&endpoint.base_url, &fault).await {
                        return Err(fault);
                    }
                }
                outcome => return outcome,
            }
        }
    };
    let outcome = match tokio::time::timeout(PATIENCE, exchanges).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::first_byte_timeout(PATIENCE)),
    };
    outcome.map_err(|fault| Error::Faulted {
        model: endpoint.model.clone(),
        fault: endpoint.explain(fault),
    })
}

async fn exchange(upstream: &Upstream, request: String) -> Result<Reply, Fault> {
    let began = Instant::now();
    let mut response = upstream.post("/chat/completions", request.into()).await?;
    if !response.is_success() {
        return Err(response.into_fault().await);
    }
    let mut reader = Reader::new(&Secrets::default());
    let mut pieces = Vec::new();
    let mut first_word = None;
    while !reader.answer().is_done() {
        let Some(chunk) = response.body.next().await else { break };
        reader.push(&chunk?, &mut pieces)?;
        if first_word.is_none() && reader.answer().says_anything() {
            first_word = Some(Instant::now());
        }
    }
    reader.finish(&mut pieces)?;
    let calls = pieces.into_iter().filter_map(|piece| match piece {
        Piece::Called(call) => Some(call),
        _ => None,
    });
    Ok(Reply { calls: calls.collect(), reader, began, first_word })
}

fn check_call(endpoint: &Endpoint, reply: &Reply) -> Result<ToolCall, Error> {
    let Some(call) = reply.calls.first() else {
        return Err(not_called(endpoint, reply));
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
    Ok(call.clone())
}

/// What the server counted and did not hand on, if that was more than the words that came: a parser
/// for tools or thoughts of another model's family takes what it does not understand.
fn swallowed(answer: &Answer) -> Option<String> {
    let usage = answer.usage();
    let came = answer.text().trim();
    // A token is seldom a single letter, and a call has more than a dozen.
    let explained = usage.reasoning + came.len() as u64 / 2 + 12;
    let lost = if came.is_empty() { usage.output > 0 } else { usage.output > explained };
    lost.then(|| {
        let thoughts = match usage.reasoning {
            0 => String::new(),
            some => format!(" ({some} of them reasoning)"),
        };
        let came = match came {
            "" => "neither words nor a tool call".to_owned(),
            some => {
                format!("no tool call and only the words: {}", crate::text::one_line(some, 120))
            }
        };
        format!("the model answered {} tokens{thoughts}, of which came {came}", usage.output)
    })
}

/// No call came back. If the words look like one, the server did not recognise its model's format.
fn not_called(endpoint: &Endpoint, reply: &Reply) -> Error {
    let answer = reply.answer();
    let text = crate::text::one_line(answer.text(), 120);
    if written_call(answer.text(), &[TOOL.to_owned()]).is_some() {
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
    if let Some(counted) = swallowed(answer) {
        return no_tools(endpoint, &counted, family_remedy(endpoint.source));
    }
    let thoughts = crate::text::one_line(reply.answer().thoughts(), 120);
    let why = match (text.is_empty(), thoughts.is_empty()) {
        (true, true) => "it called no tool and said nothing".to_owned(),
        (true, false) => {
            format!("it called no tool, and all it said came as reasoning: {thoughts}")
        }
        (false, _) => format!("it called no tool, and said: {text}"),
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

/// For a server whose parsers take what they should hand on.
fn family_remedy(source: Source) -> &'static str {
    match source {
        Source::Vllm => {
            "restart vLLM with the parsers of the model's own family: `--tool-call-parser` (hermes, \
             llama3_json, mistral, qwen3_coder, …), and `--reasoning-parser` only for a model that \
             thinks"
        }
        Source::LlamaCpp => {
            "use the chat template that belongs to the model (`--chat-template-file`), a newer \
             llama.cpp, or `--reasoning-format none`"
        }
        _ => {
            "set the server's parsers for tools and for reasoning to those of the model's own \
             family, or use a model that the server knows"
        }
    }
}

fn no_tools(endpoint: &Endpoint, why: &str, remedy: &str) -> Error {
    Error::NoTools { model: endpoint.model.clone(), why: why.into(), remedy: remedy.into() }
}

#[cfg(test)]
mod tests;
