//! The same server over HTTP: any number of clients, one process, and the order of its end.
//!
//! ```text
//!  listen ─▶ connection (hyper) ─▶ door (host, origin, token) ─▶ answer ─▶ rmcp ─▶ server
//!                                                        sessions, events ◀─┘
//! ```
//!
//! A connection is not a client: it may break and come again. What a call started goes on then
//! (`visit`), and what was said on its stream is there for who comes back (`events`).

mod answer;
mod door;
mod early;
mod events;
mod listen;
mod metrics;
mod refusal;
mod sessions;
mod token;
pub(super) mod visit;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::ending::{Ending, LeftBehind, Signals, longest_line};
use super::server::Server;
use super::session::Session;
use crate::runner::Runner;
use answer::Answers;
use door::Door;
use events::Events;
use metrics::Metrics;
use sessions::Sessions;

pub use listen::{Listen, ListenError};
pub use token::{Error as TokenError, TokenFile};

/// Why a server over HTTP did not start, or ended badly. Signals are good ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to listen for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    LeftBehind(#[from] LeftBehind),
}

/// How long the head of a request may take, and how long a connection may wait for the next one.
const HEAD: Duration = Duration::from_secs(15);

/// How many headers a request may have, and how many bytes they may have together.
const HEADERS: usize = 64;
const HEAD_BYTES: usize = 64 << 10;

/// The parts of what is left when all calls are answered: clients take the answers, then they take
/// the end of their other streams.
const LAST_ANSWERS: Duration = Duration::from_millis(500);
const LAST_FRAMES: Duration = Duration::from_millis(300);

/// Between two attempts to accept, when the process has no more files to open.
const BREATH: Duration = Duration::from_millis(100);

/// Serves MCP over HTTP until a signal comes, and returns when every sandbox is gone that was to
/// go, at most ten seconds later. `ready` is told the address when connections are taken.
pub async fn serve_http(
    runner: Runner,
    listen: Listen,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let signals = Signals::listen().map_err(Error::Signals)?;
    let token = TokenFile::in_state(runner.state());
    token.obtain()?;
    let listener = listen.bind(&runner.config().http).await?;
    let address = listener.local_addr().map_err(ListenError::Address)?;
    let _watcher = AbortOnDropHandle::new(tokio::spawn(signals.watch(stop.clone())));
    ready(address);

    let (reports, ended) = mpsc::unbounded_channel();
    let runner = runner.telling(reports);
    runner.look_around();
    House::new(runner, token, address).serve(listener, ended, stop).await
}

/// Everything that the connections share.
struct House {
    runner: Runner,
    answers: Answers,
    ending: Ending,
    /// Cancelled when the streams are to end.
    streams: CancellationToken,
    connections: TaskTracker,
}

impl House {
    fn new(runner: Runner, token: TokenFile, address: SocketAddr) -> Self {
        let settings = runner.config().http.clone();
        let session = Session::new(runner.clone(), &super::transport::Ends::default());
        let ending = Ending::of(&session);
        let ping = Duration::from_secs(settings.ping);
        let idle = Duration::from_secs(settings.session_idle);
        let sessions =
            Sessions::new(settings.sessions, idle, session.closing.clone(), Events::default());
        let sessions = Arc::new(sessions);
        let streams = CancellationToken::new();
        let longest = longest_line(runner.config().limits.task.bytes());
        // Names and pages are checked at our door, for everything that is here.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_sse_keep_alive(Some(ping))
            .with_max_request_body_bytes(longest)
            .with_cancellation_token(streams.clone());
        // Made for each session, and from 2026-07-28 on for each request.
        let first = Server::in_session(session);
        let factory = move || Ok(first.another());
        let answers = Answers {
            door: Arc::new(Door::new(address, &settings, token)),
            mcp: StreamableHttpService::new(factory, sessions.clone(), config),
            sessions,
            metrics: Arc::new(Metrics::new(runner.clone())),
            ping,
            longest,
            closing: ending.closing.clone(),
            open: TaskTracker::new(),
        };
        Self { runner, answers, ending, streams, connections: TaskTracker::new() }
    }

    async fn serve(
        self,
        listener: TcpListener,
        ended: mpsc::UnboundedReceiver<crate::runner::Report>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let (metrics, sessions) = (self.answers.metrics.clone(), self.answers.sessions.clone());
        let _count =
            AbortOnDropHandle::new(tokio::spawn(async move { metrics.count(ended).await }));
        let _forget =
            AbortOnDropHandle::new(tokio::spawn(async move { sessions.forget_idle().await }));

        stop.run_until_cancelled(self.accept(&listener)).await;

        drop(listener);
        let left = self.ending.run(&self.runner).await;
        self.answers.open.close();
        if timeout(LAST_ANSWERS, self.answers.open.wait()).await.is_err() {
            tracing::warn!("{} answers were not taken", self.answers.open.len());
        }
        self.streams.cancel();
        self.connections.close();
        if timeout(LAST_FRAMES, self.connections.wait()).await.is_err() {
            tracing::debug!("{} connections did not end in time", self.connections.len());
        }
        Ok(left?)
    }

    /// Takes connections for as long as it is polled, so many at a time.
    async fn accept(&self, listener: &TcpListener) {
        let places = Arc::new(Semaphore::new(self.runner.config().http.connections));
        // Never closed.
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = loop {
                match listener.accept().await {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        tracing::warn!("failed to take a connection: {error}");
                        tokio::time::sleep(BREATH).await;
                    }
                }
            };
            let (answers, closing) = (self.answers.clone(), self.ending.closing.clone());
            self.connections.spawn(async move {
                let _place = place;
                let _counted = answers.metrics.connected();
                connection(stream, answers, closing).await;
            });
        }
    }
}

/// One connection to its end; from the server's end on it takes no more requests.
async fn connection(stream: TcpStream, answers: Answers, closing: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection is slow: {error}");
    }
    let service = service_fn(move |request| answers.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended badly: {error}");
    }
}
