//! The sessions of the protocols up to 2025-11-25: how many, how long, and which go first.
//!
//! rmcp's own manager keeps them; its clock for idle ones is off, because it ends sessions in the
//! middle of a silent call. What is idle is known here, from the requests that live.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use rmcp::model::{ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig,
};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionManager};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::events::Events;
use crate::config::Http;
use crate::mcp::incoming::Open;

type Id = Arc<str>;

/// How long a session may take to hear of its end; one whose client does not read may never.
const LAST_WORD: Duration = Duration::from_secs(2);

/// On how many streams one session may listen; the newest count.
const LISTENING: usize = 4;

/// Why there is no such session.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("all {0} sessions are in use")]
    Full(usize),
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
}

/// What keeps a session from being idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mcp) enum Kind {
    /// A request of the client, and what came of it.
    Call,
    /// A stream on which the client listens.
    Listens,
}

/// What we know of one session.
#[derive(Debug)]
pub(in crate::mcp) struct Held {
    /// Cancelled when the session ends, whoever ends it.
    pub closing: CancellationToken,
    /// Cancelled when its client has ended it, or has been forgotten.
    pub client_gone: CancellationToken,
    use_: Mutex<Use>,
    /// The requests that its client waits for.
    open: Open,
}

#[derive(Debug)]
struct Use {
    calls: usize,
    listens: usize,
    last: Instant,
}

impl Held {
    fn new(closing: CancellationToken) -> Self {
        let use_ = Mutex::new(Use { calls: 0, listens: 0, last: Instant::now() });
        Self { closing, client_gone: CancellationToken::new(), use_, open: Open::default() }
    }

    /// Counts the requests that live, and the calls that came of them.
    pub(super) fn calls(&self) -> usize {
        lock(&self.use_).calls
    }

    pub(super) fn enter(&self, kind: Kind) {
        let mut use_ = lock(&self.use_);
        use_.last = Instant::now();
        match kind {
            Kind::Call => use_.calls += 1,
            Kind::Listens => use_.listens += 1,
        }
    }

    pub(super) fn leave(&self, kind: Kind) {
        let mut use_ = lock(&self.use_);
        use_.last = Instant::now();
        match kind {
            Kind::Call => use_.calls -= 1,
            Kind::Listens => use_.listens -= 1,
        }
    }

    /// Whether somebody listens and since when nothing happened; none while a call goes on.
    fn idle(&self) -> Option<(bool, Instant)> {
        let use_ = lock(&self.use_);
        (use_.calls == 0).then_some((use_.listens > 0, use_.last))
    }
}

/// All sessions of this server.
#[derive(Debug)]
pub(super) struct Sessions {
    local: LocalSessionManager,
    events: Events,
    held: Mutex<HashMap<Id, Arc<Held>>>,
    /// The streams on which clients listen, the oldest first, and how many there may be.
    listening: Mutex<Vec<(String, CancellationToken)>>,
    most_listening: usize,
    /// One newcomer at a time, so that the bound is one.
    door: tokio::sync::Mutex<()>,
    /// Cancelled when the server ends.
    closing: CancellationToken,
    most: usize,
    idle: Duration,
    pub begun: AtomicU64,
    pub forgotten: AtomicU64,
}

impl Sessions {
    pub fn new(settings: &Http, closing: CancellationToken, events: Events) -> Self {
        let mut local = LocalSessionManager::default().with_event_store(Arc::new(events.clone()));
        local.session_config = SessionConfig::default();
        local.session_config.keep_alive = None;
        Self {
            local,
            events,
            held: Mutex::default(),
            listening: Mutex::default(),
            most_listening: (settings.connections / 2).max(1),
            door: tokio::sync::Mutex::default(),
            closing,
            most: settings.sessions,
            idle: Duration::from_secs(settings.session_idle),
            begun: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }

    pub fn find(&self, id: &str) -> Option<Arc<Held>> {
        lock(&self.held).get(id).cloned()
    }

    /// Notes one more stream on which a client listens. It is cancelled when newer ones need its
    /// place: clients whose connection died make new ones before anybody notices, and whoever
    /// listens on may do so again.
    pub fn listens(&self, id: &str) -> CancellationToken {
        let mut listening = lock(&self.listening);
        listening.retain(|(_, stream)| !stream.is_cancelled());
        let is_own = |(session, _): &(String, _)| session == id;
        let own = listening.iter().filter(|one| is_own(one)).count();
        let oldest = if own >= LISTENING {
            listening.iter().position(is_own)
        } else {
            (listening.len() >= self.most_listening).then_some(0)
        };
        if let Some(oldest) = oldest {
            listening.remove(oldest).1.cancel();
        }
        let newest = CancellationToken::new();
        listening.push((id.to_owned(), newest.clone()));
        newest
    }

    pub fn count(&self) -> usize {
        lock(&self.held).len()
    }

    /// Whether a newcomer would be turned away.
    pub fn is_full(&self) -> bool {
        let held = lock(&self.held);
        held.len() >= self.most && held.values().all(|held| held.idle().is_none())
    }

    /// Forgets idle sessions for as long as it is polled.
    pub async fn forget_idle(&self) {
        let pace = (self.idle / 4).clamp(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            tokio::time::sleep(pace).await;
            let old: Vec<Id> = lock(&self.held)
                .iter()
                .filter(|(_, held)| {
                    held.idle()
                        .is_some_and(|(listens, last)| !listens && last.elapsed() >= self.idle)
                })
                .map(|(id, _)| id.clone())
                .collect();
            for id in old {
                self.forget(&id).await;
            }
        }
    }

    async fn forget(&self, id: &Id) {
        tracing::debug!("forgot an idle session");
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.close_session(id).await {
            tracing::debug!("a session did not end well: {error}");
        }
    }

    /// The idle session that goes first: one that nobody listens to, and the oldest of them.
    fn oldest_idle(&self) -> Option<Id> {
        let held = lock(&self.held);
        let idle = held.iter().filter_map(|(id, held)| Some((held.idle()?, id)));
        idle.min_by_key(|(idle, _)| *idle).map(|(_, id)| id.clone())
    }
}

impl SessionManager for Sessions {
    type Error = Error;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(Id, Self::Transport), Error> {
        let _turn = self.door.lock().await;
        while self.count() >= self.most {
            let id = self.oldest_idle().ok_or(Error::Full(self.most))?;
            self.forget(&id).await;
        }
        let (id, transport) = self.local.create_session().await?;
        let held = Arc::new(Held::new(self.closing.child_token()));
        lock(&self.held).insert(id.clone(), held);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &Id,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Error> {
        Ok(self.local.initialize_session(id, message).await?)
    }

    async fn has_session(&self, id: &Id) -> Result<bool, Error> {
        Ok(self.local.has_session(id).await?)
    }

    /// Also what comes of a client's DELETE.
    async fn close_session(&self, id: &Id) -> Result<(), Error> {
        let held = lock(&self.held).remove(id);
        if let Some(held) = held {
            held.client_gone.cancel();
            held.closing.cancel();
        }
        self.events.forget_session(id);
        match timeout(LAST_WORD, self.local.close_session(id)).await {
            Ok(closed) => Ok(closed?),
            Err(_) => Ok(()),
        }
    }

    async fn create_stream(
        &self,
        id: &Id,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        let held = self.find(id);
        if let (Some(held), JsonRpcMessage::Request(request)) = (&held, &message) {
            held.open.enter(&request.id);
        }
        let stream = self.local.create_stream(id, message).await?;
        Ok(stream.inspect(move |event| {
            if let (Some(held), Some(message)) = (&held, event.message.as_deref()) {
                held.open.answered(message);
            }
        }))
    }

    async fn accept_message(
        &self,
        id: &Id,
        mut message: ClientJsonRpcMessage,
    ) -> Result<(), Error> {
        if let Some(held) = self.find(id)
            && let JsonRpcMessage::Notification(notification) = &mut message
            && let ClientNotification::CancelledNotification(cancelled) =
                &mut notification.notification
        {
            held.open.cancelled(&mut cancelled.params);
        }
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &Id,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        Ok(self.local.create_standalone_stream(id).await?)
    }

    async fn resume(
        &self,
        id: &Id,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Error> {
        Ok(self.local.resume(id, last_event_id).await?)
    }

    // There is no `event_store` here, though the sessions have one: with it, rmcp would no longer
    // cancel a call of protocol 2026-07-28 when its stream is closed.
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
