//! What all calls of one session share.

#![expect(deprecated, reason = "logging is deprecated in 2026-07-28 and alive in all hosts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rmcp::RoleServer;
use rmcp::model::{LoggingLevel, ProtocolVersion};
use rmcp::service::RequestContext;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asked::{About, Asked};
use super::http::visit::Visit;
use super::questions::Questions;
use super::roots::Roots;
use super::transport::Ends;
use crate::runner::{CancelReason, Runner};

/// How many calls may look into projects at once; the others wait.
const LOOKING: usize = 4;

/// One session with one host. Clones share everything.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub runner: Runner,
    /// Cancelled when the host has closed its end.
    pub client_gone: CancellationToken,
    /// Cancelled when the session ends, whoever ends it.
    pub closing: CancellationToken,
    /// Cancelled when the time for clean-up is over: calls still open answer with what they know.
    pub giving_up: CancellationToken,
    /// The calls that are not answered yet.
    pub calls: TaskTracker,
    /// Cancelled when the connection broke that waits for the call; never where a broken one is the
    /// end of everything.
    pub lost: CancellationToken,
    /// What the host wants to hear in log notifications.
    pub level: SessionLevel,
    /// The places of calls that look into projects.
    pub looking: Arc<Semaphore>,
    /// What persons were asked by answers to calls.
    pub questions: Questions<About>,
    /// What persons were asked lately, in whatever way.
    pub asked: Asked,
    /// The state of the question for the host's folders.
    pub roots: Roots,
}

impl Session {
    pub fn new(runner: Runner, ends: &Ends) -> Self {
        Self {
            runner,
            client_gone: ends.client_gone.clone(),
            closing: CancellationToken::new(),
            giving_up: CancellationToken::new(),
            calls: TaskTracker::new(),
            lost: CancellationToken::new(),
            level: SessionLevel::default(),
            looking: Arc::new(Semaphore::new(LOOKING)),
            questions: Questions::default(),
            asked: Asked::default(),
            roots: Roots::default(),
        }
    }

    /// Another session of the same server.
    pub fn another(&self) -> Self {
        Self { level: SessionLevel::default(), ..self.clone() }
    }

    /// Why its runs are cancelled when the session has ended.
    pub fn parting(&self) -> CancelReason {
        if self.client_gone.is_cancelled() { CancelReason::Left } else { CancelReason::Shutdown }
    }

    /// Why the runs of a call are cancelled that nobody waits for any more. A host may do so and
    /// leave, or only leave, which is no word against what was to be kept.
    pub fn withdrawal(&self, kept: bool) -> CancelReason {
        if !kept && self.client_gone.is_cancelled() {
            CancelReason::Left
        } else {
            CancelReason::Asked
        }
    }

    /// As one call sees it: over HTTP each session has an end of its own.
    pub fn at(&self, context: &RequestContext<RoleServer>) -> Self {
        let parts = context.extensions.get::<http::request::Parts>();
        let visit = parts.and_then(|parts| parts.extensions.get::<Arc<Visit>>());
        let Some((visit, held)) = visit.and_then(|visit| Some((visit, visit.session()?))) else {
            return self.clone();
        };
        Self {
            client_gone: held.client_gone.clone(),
            closing: held.closing.clone(),
            lost: visit.lost.clone(),
            ..self.clone()
        }
    }
}

/// The level that the host has set for the session. Before it says anything it hears of trouble.
#[derive(Clone, Debug)]
pub(super) struct SessionLevel(Arc<AtomicU8>);

impl Default for SessionLevel {
    fn default() -> Self {
        Self(Arc::new(AtomicU8::new(LoggingLevel::Warning as u8)))
    }
}

impl SessionLevel {
    pub(super) fn set(&self, level: LoggingLevel) {
        self.0.store(level as u8, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a request speaks protocol 2026-07-28 or later, where nothing is agreed for a session and
/// each request says for itself what it wants.
pub(super) fn is_stateless(context: &RequestContext<RoleServer>) -> bool {
    context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
}
