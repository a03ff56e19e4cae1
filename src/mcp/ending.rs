//! What asks a server to leave, and the order of its end.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::session::Session;
use crate::ids::RunId;
use crate::runner::Runner;

/// The parts of the ten seconds within which the process is gone: sandboxes are removed, open calls
/// get their report, and the host takes what was written for it.
const CLEAN_UP: Duration = Duration::from_millis(8500);
const LAST_REPORTS: Duration = Duration::from_millis(500);

/// Runs whose sandboxes are not confirmed to be gone.
#[derive(Debug, thiserror::Error)]
#[error("the sandboxes of these runs are not confirmed to be gone: {}", list(.0))]
pub struct LeftBehind(Vec<RunId>);

fn list(ids: &[RunId]) -> String {
    ids.iter().map(RunId::as_str).collect::<Vec<_>>().join(", ")
}

/// The end of calls, in its order: no new ones, runs go, open calls are answered.
pub(super) struct Ending {
    pub closing: CancellationToken,
    session: Session,
}

impl Ending {
    /// Of this session, and of all that share its calls.
    pub fn of(session: &Session) -> Self {
        Self { closing: session.closing.clone(), session: session.clone() }
    }

    pub async fn run(&self, runner: &Runner) -> Result<(), LeftBehind> {
        let Session { giving_up, calls, .. } = &self.session;
        let reason = self.session.parting();
        self.closing.cancel();
        calls.close();
        // Calls are awaited too: one may have started its run after the runner looked.
        let _ = tokio::join!(runner.end(reason, CLEAN_UP), timeout(CLEAN_UP, calls.wait()));
        let left = runner.end(reason, Duration::ZERO).await;
        giving_up.cancel();
        if timeout(LAST_REPORTS, calls.wait()).await.is_err() {
            tracing::warn!("{} calls did not end in time", calls.len());
        }
        if left.is_empty() { Ok(()) } else { Err(LeftBehind(left)) }
    }
}

/// The longest line: a task of the longest kind in its longest JSON form (`\u0000` for one byte),
/// and some room for the rest of the message.
pub(super) fn longest_line(task: u64) -> usize {
    let line = task.saturating_mul(6).saturating_add(1 << 20);
    usize::try_from(line).unwrap_or(usize::MAX)
}

/// The signals that ask us to leave. SIGHUP comes when the host's terminal closes.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    pub async fn watch(mut self, stop: CancellationToken) {
        loop {
            let name = tokio::select! {
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.hangup.recv() => "SIGHUP",
            };
            if stop.is_cancelled() {
                tracing::warn!("{name} again; still removing sandboxes, ten seconds at most");
            } else {
                tracing::info!("{name}: ending");
                stop.cancel();
            }
        }
    }
}
