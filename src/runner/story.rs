//! What has happened so far in a run: told to whoever listens, and written down.

use std::time::Instant;

use tokio::sync::mpsc;

use super::{Event, EventKind, Phase};
use crate::agent::{AgentEvent, Conversation, opencode};
use crate::gateway::{Outcome, Traffic};
use crate::history::Record;
use crate::model::Secrets;
use crate::text::{clean, one_line};

/// The run's events, its record, and what they add up to.
#[derive(Debug)]
pub struct Story {
    asked: Instant,
    seq: u64,
    listener: mpsc::UnboundedSender<Event>,
    record: Option<Record>,
    pub conversation: Conversation,
    /// Bytes of agent output that may still be kept.
    room: u64,
    /// Lines of the agent beside its events, for a failure's message.
    last_words: Option<String>,
    /// The agent's own id of the conversation: the first that was told, before any tool ran.
    pub session: Option<String>,
    /// What a person should know besides the result.
    pub remarks: Vec<String>,
    /// What the model server is shown, which it may say and an agent may find.
    secrets: Secrets,
}

/// Most remarks of one run.
const REMARKS: usize = 16;

impl Story {
    pub fn new(
        asked: Instant,
        listener: mpsc::UnboundedSender<Event>,
        record: Option<Record>,
        room: u64,
    ) -> Self {
        Self {
            asked,
            seq: 0,
            listener,
            record,
            conversation: Conversation::default(),
            room,
            last_words: None,
            session: None,
            remarks: Vec::new(),
            secrets: Secrets::default(),
        }
    }

    /// From here on nothing is told or written that holds one of `secrets`.
    pub fn hide(&mut self, secrets: Secrets) {
        self.secrets = secrets;
    }

    pub fn without_secrets(&self, text: &str) -> String {
        self.secrets.redact(text)
    }

    pub fn tell(&mut self, kind: EventKind) {
        self.seq += 1;
        let event = Event { seq: self.seq, at_ms: millis(self.asked.elapsed()), event: kind };
        if let Some(record) = &mut self.record {
            record.event(&event);
        }
        // A face that no longer listens is no reason to stop.
        let _ = self.listener.send(event);
    }

    pub fn phase(&mut self, phase: Phase) {
        self.tell(EventKind::Phase { phase });
    }

    pub fn notice(&mut self, message: &str) {
        self.tell(EventKind::Notice { message: one_line(message, 400) });
    }

    /// A notice that the report repeats: hosts show their model nothing else.
    pub fn remark(&mut self, message: &str) {
        self.notice(message);
        let line = one_line(message, 400);
        if self.remarks.len() < REMARKS && !self.remarks.contains(&line) {
            self.remarks.push(line);
        }
    }

    /// A line that the agent printed on its standard output.
    pub fn agent_line(&mut self, line: &str) {
        let line = &self.without_secrets(line);
        if self.session.is_none() {
            self.session = opencode::session(line);
        }
        let Some(event) = opencode::parse(line) else {
            // Versions differ in what they print besides; an event of a kind we do not use is
            // no one's last words.
            if !line.starts_with('{') {
                self.agent_words(line);
            }
            return;
        };
        // The sums are kept to the end, whatever has to be dropped from the record.
        self.conversation.take(&event);
        if !self.spend(line.len()) {
            return;
        }
        self.tell(match event {
            AgentEvent::StepStarted => return,
            AgentEvent::StepFinished { .. } => {
                let steps = self.conversation.steps();
                EventKind::Step { number: u32::try_from(steps).unwrap_or(u32::MAX) }
            }
            AgentEvent::Text { text } => EventKind::Text { text },
            AgentEvent::Tool { name, title, ok, exit, .. } => {
                EventKind::ToolFinished { name, title, ok, exit }
            }
            AgentEvent::Error { message, .. } => EventKind::Trouble { message },
        });
    }

    /// A line that the agent printed beside its events.
    pub fn agent_words(&mut self, line: &str) {
        let line = clean(&self.without_secrets(line));
        if line.trim().is_empty() || !self.spend(line.len()) {
            return;
        }
        if let Some(record) = &mut self.record {
            record.log(&line);
        }
        self.last_words = Some(one_line(&line, 300));
    }

    /// The agent is started again, in the same conversation.
    pub fn resume(&mut self) {
        self.conversation.resume();
        self.last_words = None;
    }

    pub fn last_words(&self) -> Option<&str> {
        self.last_words.as_deref()
    }

    /// What the gateway saw of the model's side.
    pub fn traffic(&mut self, traffic: &Traffic) {
        match traffic {
            Traffic::ToolCall { name, arguments, .. } => {
                let title = opencode::summary(arguments);
                self.tell(EventKind::ToolStarted { name: one_line(name, 64), title });
            }
            Traffic::Answered { finish_reason, input_tokens, output_tokens, .. } => {
                self.tell(EventKind::ModelAnswer {
                    finish_reason: finish_reason.as_deref().map(|why| one_line(why, 64)),
                    input_tokens: *input_tokens,
                    output_tokens: *output_tokens,
                });
            }
            Traffic::Faulted(fault) => {
                self.tell(EventKind::Trouble { message: fault.message.clone() });
            }
            Traffic::Egress(attempt) => {
                if let Some(record) = &mut self.record {
                    record.egress(attempt);
                }
                let refused = match attempt.outcome {
                    Outcome::Allowed => None,
                    Outcome::Refused { reason } => Some(reason.as_str().to_owned()),
                };
                self.tell(EventKind::Egress {
                    host: attempt.target.clone(),
                    port: attempt.port,
                    refused,
                });
            }
            Traffic::Waiting(reason) => self.notice(reason),
            Traffic::RequestStarted { .. } | Traffic::FirstByte { .. } => {}
        }
    }

    pub fn take_record(&mut self) -> Option<Record> {
        self.record.take()
    }

    /// Whether this much more may be kept. Says once when it may not.
    fn spend(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        if self.room == 0 {
            return false;
        }
        if bytes > self.room {
            self.room = 0;
            self.notice("the agent's output is over `limits.output`; what follows is dropped");
            return false;
        }
        self.room -= bytes;
        true
    }
}

pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
