//! Stopping a run from outside.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a run was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// The caller said so.
    Asked,
    /// The host that asked for it has ended its session, or gone away.
    Left,
    /// The program ends.
    Shutdown,
}

/// Stops a run. Cheap to clone; the first reason counts.
#[derive(Clone, Debug)]
pub struct Canceller(Arc<watch::Sender<Option<CancelReason>>>);

impl Canceller {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    pub fn cancel(&self, reason: CancelReason) {
        self.0.send_if_modified(|known| known.is_none() && known.replace(reason).is_none());
    }

    /// Waits until the run is cancelled.
    pub(super) async fn cancelled(&self) -> CancelReason {
        let mut changes = self.0.subscribe();
        loop {
            if let Some(reason) = *changes.borrow_and_update() {
                return reason;
            }
            // We hold a sender ourselves, so the channel cannot close.
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
