//! What passed through a gateway: told as it happens, and summed up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::egress::{Attempt, EgressRecord};
use crate::config::Source;
use crate::model::{
    Answer, Endpoint, Fault, FaultKind, LimitsOrigin, ToolCall, Usage, preflight, redact,
};

/// Tool calls in a row that cannot be carried out, after which no good one is expected.
const MOST_UNUSABLE: u32 = 8;

/// One thing that happened between the sandbox and what is outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Traffic {
    RequestStarted {
        /// 1, 2, 3 … within the run.
        number: u64,
    },
    FirstByte {
        number: u64,
        after_ms: u64,
    },
    /// The model asks for a tool, which the agent runs next.
    ToolCall {
        number: u64,
        name: String,
        /// The parsed arguments, or their text where they are not JSON.
        arguments: Value,
    },
    Answered {
        number: u64,
        finish_reason: Option<String>,
        input_tokens: u64,
        output_tokens: u64,
        reasoning_tokens: u64,
    },
    Faulted(Fault),
    /// The model takes its time, for a reason that a person wants to know.
    Waiting(&'static str),
    /// The sandbox tried to reach something other than its model.
    Egress(Attempt),
}

/// Everything that passed, summed up. Tokens are the server's own counts; zero where it has none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Record {
    /// Requests that the agent made of the model.
    pub requests: u64,
    /// Answers that came to their end.
    pub answers: u64,
    /// Times that a busy server was asked again.
    pub retries: u64,
    /// Requests that were not the agent's to make, such as other paths.
    pub refused: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
    /// In the order in which answers ended.
    pub finish_reasons: Vec<Option<String>>,
    /// The words of the answer that ended last. Untrusted.
    #[serde(skip)]
    pub last_answer: String,
    /// What the model thought before it. Untrusted.
    #[serde(skip)]
    pub last_thoughts: String,
    /// The tool that the last answer calls in words, where the server saw no call.
    #[serde(skip)]
    pub written_call: Option<String>,
    /// How to make this server recognise its model's calls.
    #[serde(skip)]
    pub parser_remedy: &'static str,
    /// Tokens of the last answer of which neither text nor call came.
    #[serde(skip)]
    pub swallowed: Option<u64>,
    /// Tokens of the last answer of which few words and no call came.
    #[serde(skip)]
    pub few_words: Option<u64>,
    /// Tokens of the longest conversation that was answered.
    #[serde(skip)]
    pub longest: u64,
    /// Tool calls in a row, up to the last one, that no agent can carry out.
    #[serde(skip)]
    pub unusable_calls: u32,
    pub faults: u64,
    pub last_fault: Option<Fault>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// What was reached, or wanted, besides the model.
    pub egress: EgressRecord,
}

/// Where all connections of one gateway write.
#[derive(Debug)]
pub struct Ledger {
    record: Mutex<Record>,
    traffic: UnboundedSender<Traffic>,
}

impl Ledger {
    /// The channel is unbounded, but what flows in is not: `max_requests` bounds the requests,
    /// each has a bounded number of tool calls, and only so many attempts are told.
    pub fn new() -> (Self, UnboundedReceiver<Traffic>) {
        let (traffic, receiver) = unbounded_channel();
        (Self { record: Mutex::default(), traffic }, receiver)
    }

    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Opens a request and returns its number, unless `most` have been made.
    pub fn start(&self, most: u64) -> Result<u64, Fault> {
        let mut record = self.lock();
        if record.requests >= most {
            let message = format!("the run has made its {most} model requests");
            let fault = Fault::new(FaultKind::BudgetExhausted, &message);
            // Told once; an agent that goes on asking adds nothing.
            let first = record.last_fault.as_ref().is_none_or(|last| last.kind != fault.kind);
            if first {
                Self::note(&mut record, &fault);
                let _ = self.traffic.send(Traffic::Faulted(fault.clone()));
            }
            return Err(fault);
        }
        record.requests += 1;
        let number = record.requests;
        let _ = self.traffic.send(Traffic::RequestStarted { number });
        Ok(number)
    }

    pub fn refuse(&self) {
        self.lock().refused += 1;
    }

    pub fn retry(&self) {
        self.lock().retries += 1;
    }

    pub fn waiting(&self, reason: &'static str) {
        let _ = self.traffic.send(Traffic::Waiting(reason));
    }

    pub fn sent(&self, bytes: usize) {
        self.lock().bytes_sent += bytes as u64;
    }

    pub fn received(&self, bytes: usize) {
        self.lock().bytes_received += bytes as u64;
    }

    pub fn first_byte(&self, number: u64, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let _ = self.traffic.send(Traffic::FirstByte { number, after_ms });
    }

    /// Tells of a call. Fails when the model has made nothing but unusable ones for long: an agent
    /// would go on for ever.
    pub fn tool_call(
        &self,
        number: u64,
        call: &ToolCall,
        offered: bool,
        endpoint: &Endpoint,
    ) -> Result<(), Fault> {
        let object = call.object();
        let usable = offered && (call.clipped || object.is_some());
        let arguments = match object {
            Some(mut arguments) => {
                redact(&mut arguments, &endpoint.secrets());
                arguments
            }
            None => Value::String(call.arguments.clone()),
        };
        let _ = self.traffic.send(Traffic::ToolCall { number, name: call.name.clone(), arguments });
        let mut record = self.lock();
        record.unusable_calls = if usable { 0 } else { record.unusable_calls + 1 };
        if record.unusable_calls < MOST_UNUSABLE {
            return Ok(());
        }
        let name = crate::text::one_line(&call.name, 60);
        let why = if offered {
            let arguments = crate::text::one_line(&call.arguments, 120);
            format!("the arguments for `{name}` are not a JSON object: {arguments}")
        } else {
            format!("there is no tool `{name}`")
        };
        let message = format!(
            "none of the model's last {MOST_UNUSABLE} tool calls can be carried out; {why}"
        );
        let mut fault = Fault::new(FaultKind::UnusableCalls, &message);
        fault.hint = Some(preflight::parser_remedy(endpoint.source).to_owned());
        Err(fault)
    }

    /// Enters an answer that came to its end. `written_call` is the tool that it calls in words.
    pub fn answered(
        &self,
        number: u64,
        answer: &Answer,
        written_call: Option<String>,
        endpoint: &Endpoint,
    ) {
        let usage = answer.usage();
        let finish_reason = answer.ending().map(|ending| ending.as_str().to_owned());
        let mut record = self.lock();
        record.answers += 1;
        answer.text().clone_into(&mut record.last_answer);
        answer.thoughts().clone_into(&mut record.last_thoughts);
        record.written_call = written_call;
        record.parser_remedy = preflight::parser_remedy(endpoint.source);
        record.swallowed = answer.swallowed();
        record.few_words = answer.few_words();
        record.longest = record.longest.max(usage.input.saturating_add(usage.output));
        Self::count(&mut record, usage);
        record.finish_reasons.push(finish_reason.clone());
        let _ = self.traffic.send(Traffic::Answered {
            number,
            finish_reason,
            input_tokens: usage.input,
            output_tokens: usage.output,
            reasoning_tokens: usage.reasoning,
        });
    }

    /// Says so where a server's context is full with a conversation that is far from it: runs at the
    /// same time share it. A prompt that is too long by itself is refused with 400.
    pub fn explain_overflow(&self, endpoint: &Endpoint, fault: &mut Fault) {
        let longest = self.lock().longest;
        let shared = endpoint.source == Source::LlamaCpp && fault.status != Some(400);
        let told = endpoint.limits == LimitsOrigin::Server;
        if shared && told && longest < endpoint.context / 10 * 7 {
            fault.hint = Some(
                "llama-server shares one context among its slots, so runs at the same time end \
                 each other: lower `limits.concurrency`, or restart it with `--no-kv-unified` or \
                 a longer `-c`"
                    .into(),
            );
        }
    }

    /// Tokens of an answer that did not come to its end were computed all the same.
    pub fn partial(&self, usage: Usage) {
        Self::count(&mut self.lock(), usage);
    }

    pub fn fault(&self, fault: &Fault) {
        Self::note(&mut self.lock(), fault);
        let _ = self.traffic.send(Traffic::Faulted(fault.clone()));
    }

    pub fn attempt(&self, attempt: Attempt) {
        tracing::debug!(?attempt, "egress");
        if self.lock().egress.count(&attempt) {
            let _ = self.traffic.send(Traffic::Egress(attempt));
        }
    }

    /// Counts bytes of the sandbox's own traffic, and returns how many there have been.
    pub fn egress_moved(&self, sent: u64, received: u64) -> u64 {
        let egress = &mut self.lock().egress;
        egress.bytes_sent += sent;
        egress.bytes_received += received;
        egress.bytes_sent + egress.bytes_received
    }

    fn note(record: &mut Record, fault: &Fault) {
        record.faults += 1;
        record.last_fault = Some(fault.clone());
    }

    fn count(record: &mut Record, usage: Usage) {
        // A server may claim any number.
        record.input_tokens = record.input_tokens.saturating_add(usage.input);
        record.output_tokens = record.output_tokens.saturating_add(usage.output);
        record.reasoning_tokens = record.reasoning_tokens.saturating_add(usage.reasoning);
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while it is held, and numbers stay numbers if something did.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
