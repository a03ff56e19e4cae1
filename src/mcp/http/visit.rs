//! One request over HTTP, from its head to the end of its answer and of what it started.
//!
//! It travels with the request through rmcp to the call's handler, which learns from it whether
//! anybody still waits. As long as it lives its session is not idle.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::sessions::{Held, Kind};

#[derive(Debug)]
pub(in crate::mcp) struct Visit {
    held: Option<Arc<Held>>,
    kind: Kind,
    counts: AtomicBool,
    /// Cancelled when the connection broke before the answer was out.
    pub lost: CancellationToken,
}

impl Visit {
    pub fn new(held: Option<Arc<Held>>, kind: Kind) -> Self {
        if let Some(held) = &held {
            held.enter(kind);
        }
        Self { held, kind, counts: AtomicBool::new(true), lost: CancellationToken::new() }
    }

    /// What still lives of it no longer keeps the session from being idle.
    pub(super) fn is_over(&self) {
        if let Some(held) = &self.held
            && self.counts.swap(false, Ordering::Relaxed)
        {
            held.leave(self.kind);
        }
    }

    /// Its session; none from protocol 2026-07-28 on.
    pub(in crate::mcp) fn session(&self) -> Option<&Held> {
        self.held.as_deref()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.is_over();
    }
}

/// An answer that notices when nobody takes it to its end.
pub(super) struct Watched {
    inner: BoxBody<Bytes, Infallible>,
    /// The session is in use for as long as the stream is.
    _visit: Arc<Visit>,
    /// The end of the server waits for answers that are on their way, and clients without a
    /// session share how many there are.
    _answer: (Option<TaskTrackerToken>, Option<OwnedSemaphorePermit>),
    lost: Option<DropGuard>,
}

impl Watched {
    pub fn new(
        inner: BoxBody<Bytes, Infallible>,
        visit: Arc<Visit>,
        answer: (Option<TaskTrackerToken>, Option<OwnedSemaphorePermit>),
        lost: DropGuard,
    ) -> Self {
        Self { inner, _visit: visit, _answer: answer, lost: Some(lost) }
    }

    fn is_out(&mut self) {
        if let Some(guard) = self.lost.take() {
            guard.disarm();
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.is_out();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.is_out();
        }
    }
}
