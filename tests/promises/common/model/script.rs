//! What the model is to say, and when.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Held shut until the test opens it; stays open.
#[derive(Clone, Debug, Default)]
pub struct Gate(CancellationToken);

impl Gate {
    pub fn open(&self) {
        self.0.cancel();
    }

    pub async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// One piece of a streamed answer. Pauses and gates before the first other piece hold back the
/// response's head as well.
#[derive(Clone, Debug)]
pub enum Part {
    Text(String),
    Reasoning(String),
    Call {
        name: String,
        args: Value,
    },
    /// A tool call whose arguments stop in the middle.
    HalfCall {
        name: String,
        args: String,
    },
    /// Bytes as they are, outside of any protocol.
    Raw(String),
    Pause(Duration),
    Gate(Gate),
    /// The connection breaks.
    Cut,
    /// The body ends properly, without finish reason or `[DONE]`.
    End,
    /// Nothing more comes, and the connection stays.
    Stall,
}

/// Token numbers as the server claims them.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    pub input: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// A streamed answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub parts: Vec<Part>,
    /// `stop`, `tool_calls` or `length`.
    pub finish: String,
    pub tokens: Tokens,
}

impl Answer {
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        let parts: Vec<Part> = parts.into_iter().collect();
        let calls = parts.iter().any(|part| matches!(part, Part::Call { .. }));
        Self {
            parts,
            finish: if calls { "tool_calls" } else { "stop" }.into(),
            tokens: Tokens { input: 100, output: 10, reasoning: 0 },
        }
    }

    pub fn finish(mut self, reason: &str) -> Self {
        self.finish = reason.into();
        self
    }

    pub fn tokens(mut self, input: u64, output: u64, reasoning: u64) -> Self {
        self.tokens = Tokens { input, output, reasoning };
        self
    }

    /// Holds the whole answer back until the gate opens.
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.parts.insert(0, Part::Gate(gate.clone()));
        self
    }
}

/// What the server does with one request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer(Answer),
    /// One whole response that is not a stream.
    Plain {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
    /// The request is taken and never answered.
    Silence,
    /// The server closes its port and breaks all its connections.
    Vanish,
}

impl Reply {
    pub fn say(text: &str) -> Self {
        Self::Answer(Answer::new([Part::Text(text.into())]))
    }

    pub fn call(name: &str, args: Value) -> Self {
        Self::Answer(Answer::new([Part::Call { name: name.into(), args }]))
    }

    pub fn bash(command: &str) -> Self {
        Self::call("bash", json!({"command": command, "description": "Runs the scripted command"}))
    }

    pub fn parts(parts: impl IntoIterator<Item = Part>) -> Self {
        Self::Answer(Answer::new(parts))
    }

    /// An error in the words of an OpenAI-compatible server.
    pub fn error(status: u16, message: &str) -> Self {
        let body = json!({"error": {"message": message, "type": "server_error", "code": status}});
        Self::Plain { status, headers: vec![], body: body.to_string() }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Plain { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// The replies to one run's requests, in order. When it is used up the last reply is repeated,
/// so that retries meet the same fault.
#[derive(Clone, Debug, Default)]
pub struct Script(pub(super) Vec<Reply>);

impl Script {
    pub fn new(reply: impl Into<Reply>) -> Self {
        Self(vec![reply.into()])
    }

    pub fn say(text: &str) -> Self {
        Self::new(Reply::say(text))
    }

    pub fn bash(command: &str) -> Self {
        Self::new(Reply::bash(command))
    }

    pub fn call(name: &str, args: Value) -> Self {
        Self::new(Reply::call(name, args))
    }

    pub fn then(mut self, reply: impl Into<Reply>) -> Self {
        self.0.push(reply.into());
        self
    }

    pub fn then_say(self, text: &str) -> Self {
        self.then(Reply::say(text))
    }

    pub fn then_bash(self, command: &str) -> Self {
        self.then(Reply::bash(command))
    }

    pub fn then_call(self, name: &str, args: Value) -> Self {
        self.then(Reply::call(name, args))
    }
}
