//! One session on standard input and output, and the order of its end.

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::server::Server;
use super::session::Session;
use super::transport::{self, Ends};
use crate::ids::RunId;
use crate::runner::Runner;

/// The parts of the ten seconds within which the process is gone: sandboxes are removed, open calls
/// get their report, and the host takes what was written for it.
const CLEAN_UP: Duration = Duration::from_millis(8500);
const LAST_REPORTS: Duration = Duration::from_millis(500);
const LAST_FRAMES: Duration = Duration::from_millis(800);

/// Why a session ended badly. The end of input and signals are good ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("failed to agree with the host on a protocol: {0}")]
    Handshake(#[source] Box<ServerInitializeError>),
    #[error("the MCP session broke down: {0}")]
    Session(#[source] tokio::task::JoinError),
    #[error(transparent)]
    Listen(#[from] super::http::ListenError),
    #[error(transparent)]
    Token(#[from] super::http::TokenError),
    #[error("the sandboxes of these runs are not confirmed to be gone: {}", list(.0))]
    LeftBehind(Vec<RunId>),
}

fn list(ids: &[RunId]) -> String {
    ids.iter().map(RunId::as_str).collect::<Vec<_>>().join(", ")
}

/// Serves one MCP host on standard input and output, until it closes the input or a signal comes,
/// and returns when every sandbox is gone, at most ten seconds later.
///
/// The caller must then leave by [`std::process::exit`]: a read of standard input may still block
/// a thread that the runtime would wait for.
pub async fn serve_stdio(runner: Runner) -> Result<(), Error> {
    let stop = CancellationToken::new();
    // Before anything else: a signal that comes during the greeting must not kill us either.
    let signals = Signals::listen().map_err(Error::Signals)?;
    let watcher = tokio::spawn(signals.watch(stop.clone()));
    if io::stdin().is_terminal() {
        tracing::warn!(
            "this is an MCP server that waits for a host on standard input; \
             to run a task by hand: sandbox-mcp run \"task\""
        );
    }
    let (reader, writer) = rmcp::transport::io::stdio_pipes();
    let result = session(runner, reader, writer, stop).await;
    watcher.abort();
    result
}

/// One session over any pair of pipes; `stop` ends it from outside.
async fn session<R, W>(
    runner: Runner,
    reader: R,
    writer: W,
    stop: CancellationToken,
) -> Result<(), Error>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let ends = Ends::default();
    let server = Server::new(runner.clone(), &ends);
    let ending = Ending::of(&server.session);
    let longest = longest_line(runner.config().limits.task.bytes());
    let lines = transport::connect(reader, writer, longest, &ends);
    let mut service = tokio::spawn(async move {
        match rmcp::serve_server(server, lines).await {
            Ok(running) => running.waiting().await.map(drop).map_err(Error::Session),
            // A host that leaves during the greeting has done nothing wrong.
            Err(
                ServerInitializeError::ConnectionClosed(_)
                | ServerInitializeError::TransportError { .. },
            ) => Ok(()),
            Err(error) => Err(Error::Handshake(Box::new(error))),
        }
    });

    let finished = tokio::select! {
        () = ends.client_gone.cancelled() => {
            if !ending.session.calls.is_empty() {
                tracing::warn!("the host left during {} calls; cancelling them", ending.session.calls.len());
            }
            None
        }
        () = stop.cancelled() => None,
        result = &mut service => Some(result),
    };

    let left = ending.run(&runner).await;
    ends.release.cancel();
    let finished = match finished {
        Some(result) => Some(result),
        None => timeout(LAST_FRAMES, &mut service).await.ok(),
    };
    service.abort();

    if !left.is_empty() {
        return Err(Error::LeftBehind(left));
    }
    let Some(result) = finished else {
        tracing::warn!("the host did not take the last answers");
        return Ok(());
    };
    result.map_err(Error::Session)?
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

    /// Returns the runs that are not confirmed to be gone.
    pub async fn run(&self, runner: &Runner) -> Vec<RunId> {
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
        left
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

#[cfg(test)]
mod tests;
