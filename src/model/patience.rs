//! Waiting for a server that is there, and whose model is not in memory yet.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fault, FaultKind};

/// Between two questions to a server that loads.
const PAUSE: Duration = Duration::from_secs(2);

/// How long a search may wait for a server that loads its model, and who hears of it.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    pub limit: Duration,
    pub tell: &'a (dyn Fn(&str) + Send + Sync),
}

impl Patience<'static> {
    /// At most `limit`, without a word.
    pub fn silent(limit: Duration) -> Self {
        Self { limit, tell: &|_| () }
    }
}

impl fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// One wait, which begins with the first question.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    patience: Patience<'a>,
    began: Instant,
    /// The server has shown that it is there and loads.
    loads: bool,
}

impl<'a> Wait<'a> {
    pub fn new(patience: Patience<'a>) -> Self {
        Self { patience, began: Instant::now(), loads: false }
    }

    /// How long the next question may take: as long as it usually may, and for a server that has
    /// the question already and wakes over it, as long as is left.
    pub fn bound(&self, usual: Duration) -> Duration {
        if self.loads { usual.max(self.left()) } else { usual }
    }

    /// Pauses and says yes where it is worth asking `server` again. A server that refuses is not
    /// waited for, unless it was there before: some restart to load their model.
    pub async fn again(&mut self, server: &str, fault: &Fault) -> bool {
        let awake = matches!(fault.kind, FaultKind::Loading | FaultKind::FirstByteTimeout);
        let left = self.left();
        if left.is_zero() || !(awake || (self.loads && fault.is_unreachable())) {
            return false;
        }
        if !std::mem::replace(&mut self.loads, true) {
            let Fault { message, .. } = fault;
            (self.patience.tell)(&format!(
                "the model server at {server} is not ready yet ({message}); waiting for it up to \
                 {} s",
                left.as_secs()
            ));
        }
        tokio::time::sleep(PAUSE.min(left)).await;
        true
    }

    fn left(&self) -> Duration {
        self.patience.limit.saturating_sub(self.began.elapsed())
    }
}
