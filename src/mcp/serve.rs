//! One session on standard input and output.

use std::io;
use std::io::IsTerminal;
use std::time::Duration;

use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::ending::{Ending, LeftBehind, Signals, longest_line};
use super::server::Server;
use super::transport::{self, Ends};
use crate::runner::Runner;

/// How long the host may take for what was written for it.
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
    LeftBehind(#[from] LeftBehind),
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
    // What the environment says of the project holds until the host says more.
    runner.adopt([]);
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
    let (ending, calls) = (Ending::of(&server.session), server.session.calls.clone());
    let longest = longest_line(runner.config().limits.task.bytes());
    let lines = transport::connect(reader, writer, longest, &ends);
    let mut service = tokio::spawn(async move {
        match Box::pin(rmcp::serve_server(server, lines)).await {
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
            if !calls.is_empty() {
                tracing::warn!("the host left during {} calls; cancelling them", calls.len());
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

    left?;
    let Some(result) = finished else {
        tracing::warn!("the host did not take the last answers");
        return Ok(());
    };
    result.map_err(Error::Session)?
}

#[cfg(test)]
mod tests;
