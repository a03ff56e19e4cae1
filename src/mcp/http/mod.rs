//! The same server over HTTP: any number of clients, one process, and the order of its end.
//!
//! ```text
//!  listen ─▶ connection (hyper) ─▶ door (host, origin, token) ─▶ answer ─▶ rmcp ─▶ server
//!                                                        sessions, events ◀─┘
//! ```
//!
//! A connection is not a client: it may break and come again. What a call started goes on then
//! (`visit`), and what was said on its stream is there for who comes back (`events`).

mod accept;
mod answer;
mod bodies;
mod door;
mod early;
mod events;
mod listen;
mod metrics;
mod places;
mod refusal;
mod sessions;
mod token;
pub(super) mod visit;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
use bodies::Bodies;
use door::Door;
use events::Events;
use metrics::Metrics;
use places::{Place, Places};
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

/// Bytes that are thrown away of a client's rest when its last answer is out, so that it gets to read
/// that answer; and the time for it, in all and at rest.
const REST: usize = 16 << 20;
const REST_TIME: Duration = Duration::from_secs(10);
const REST_PAUSE: Duration = Duration::from_secs(2);

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
        let sessions = Sessions::new(&settings, session.closing.clone(), Events::default());
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
            bodies: Bodies::new(longest),
            each: (settings.connections / 4).max(3),
            sessionless: Arc::new(Semaphore::new(settings.connections / 2)),
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

    /// Takes connections for as long as it is polled.
    async fn accept(&self, listener: &TcpListener) {
        let places = Places::new(self.runner.config().http.connections);
        loop {
            places.vacancy().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("failed to take a connection: {error}");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let (answers, closing) = (self.answers.clone(), self.ending.closing.clone());
            let place = places.enter();
            self.connections.spawn(async move {
                let _counted = answers.metrics.connected();
                let dismissed = place.dismissed.clone();
                dismissed.run_until_cancelled(connection(stream, answers, place, closing)).await;
            });
        }
    }
}

/// One connection to its end; from the server's end on it takes no more requests.
async fn connection(
    stream: TcpStream,
    answers: Answers,
    place: Arc<Place>,
    closing: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("a connection is slow: {error}");
    }
    // It is taken until the end, and not only for as long as requests are.
    let theirs = place.clone();
    let service =
        service_fn(move |request| Box::pin(answers.clone().answer(request, theirs.clone())));
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|context| connection.poll_without_shutdown(context)) => ended,
        () = closing.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended badly: {error}");
    }
    let stream = connection.into_parts().io.into_inner();
    // Who only has to read on is in nobody's way.
    let place = place.as_a_strangers();
    tokio::select! {
        () = hang_up(stream) => {}
        () = place.dismissed.cancelled() => {}
        () = closing.cancelled() => {}
    }
}

/// Ends a connection so that the other side gets to read its last answer. To close it while
/// something unread is left would reset it, and take the answer away from who sends all before
/// they read.
async fn hang_up(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let rest = async {
        let (mut scrap, mut left) = (vec![0; 16 << 10], REST);
        while left > 0 {
            match timeout(REST_PAUSE, stream.read(&mut scrap)).await {
                Ok(Ok(read @ 1..)) => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    if timeout(REST_TIME, rest).await.is_err() {
        tracing::debug!("a client sends on without reading");
    }
}
