//! Log notifications: more than progress, for hosts that keep a log.
//!
//! Up to protocol 2025-11-25 the host sets one level for the session; from 2026-07-28 each request
//! says in its metadata whether it wants to be told, and silence means no.

#![expect(deprecated, reason = "logging is deprecated in 2026-07-28 and alive in all hosts")]

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{LoggingLevel, LoggingMessageNotificationParam};
use rmcp::service::{Peer, RequestContext};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::session::{SessionLevel, is_stateless};
use crate::ids::RunId;
use crate::runner::EventKind;
use crate::text;

/// Messages that may wait for a host that reads slowly; what comes on top is dropped.
const WAITING: usize = 256;

const LONGEST_MESSAGE: usize = 1000;

/// How long an answer waits for the log messages before it.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The log of one run, as far as its host wants it.
#[derive(Debug)]
pub(super) struct Logs(Option<Writer>);

#[derive(Debug)]
struct Writer {
    wanted: Wanted,
    queue: mpsc::Sender<(LoggingLevel, String)>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Wanted {
    Session(SessionLevel),
    Request(u8),
}

impl Logs {
    pub(super) fn start(
        context: &RequestContext<RoleServer>,
        id: &RunId,
        session: &SessionLevel,
    ) -> Self {
        let wanted = if is_stateless(context) {
            match context.meta.log_level() {
                Some(level) => Wanted::Request(level as u8),
                None => return Self(None),
            }
        } else {
            Wanted::Session(session.clone())
        };
        let (queue, waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(tell(context.peer.clone(), id.clone(), waiting));
        Self(Some(Writer { wanted, queue, task }))
    }

    /// Logs an event if the host wants its level. Never waits.
    pub(super) fn see(&self, event: &EventKind) {
        let Some(writer) = &self.0 else { return };
        let wanted = match &writer.wanted {
            Wanted::Session(level) => level.get(),
            Wanted::Request(level) => *level,
        };
        if level_of(event) as u8 >= wanted
            && let Some(message) = describe(event)
        {
            let message = text::one_line(&message, LONGEST_MESSAGE);
            let _ = writer.queue.try_send((level_of(event), message));
        }
    }

    /// Says nothing more, not even what is due: the host has withdrawn its request.
    pub(super) fn silence(&mut self) {
        if let Some(writer) = self.0.take() {
            writer.task.abort();
        }
    }

    /// Ends the notifications: when this returns, none will follow.
    pub(super) async fn finish(self) {
        let Some(Writer { queue, mut task, .. }) = self.0 else { return };
        drop(queue);
        if timeout(LAST_WORD, &mut task).await.is_err() {
            task.abort();
        }
    }
}

async fn tell(
    peer: Peer<RoleServer>,
    id: RunId,
    mut waiting: mpsc::Receiver<(LoggingLevel, String)>,
) {
    while let Some((level, message)) = waiting.recv().await {
        let data = json!({ "run_id": id.as_str(), "message": message });
        let notification =
            LoggingMessageNotificationParam::new(level, data).with_logger(env!("CARGO_PKG_NAME"));
        if peer.notify_logging_message(notification).await.is_err() {
            return;
        }
    }
}

fn level_of(event: &EventKind) -> LoggingLevel {
    match event {
        EventKind::Trouble { .. } | EventKind::Egress { refused: Some(_), .. } => {
            LoggingLevel::Warning
        }
        EventKind::Notice { .. } => LoggingLevel::Notice,
        EventKind::Queued { .. } | EventKind::Phase { .. } | EventKind::ToolFinished { .. } => {
            LoggingLevel::Info
        }
        EventKind::Step { .. }
        | EventKind::ToolStarted { .. }
        | EventKind::Text { .. }
        | EventKind::Egress { refused: None, .. }
        | EventKind::ModelAnswer { .. } => LoggingLevel::Debug,
    }
}

fn describe(event: &EventKind) -> Option<String> {
    match event {
        EventKind::ModelAnswer { finish_reason, input_tokens, output_tokens } => Some(format!(
            "the model answered: {input_tokens} tokens in, {output_tokens} out, ended by {}",
            finish_reason.as_deref().unwrap_or("nothing it named"),
        )),
        other => super::progress::describe(other),
    }
}
