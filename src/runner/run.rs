//! The handle that faces hold.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::queue::Queue;
use super::{Event, Report, Task, TaskError};
use crate::config::Config;
use crate::ids::RunId;

/// Starts runs and waits for their ends. Cheap to clone; clones share one queue.
#[derive(Clone, Debug)]
pub struct Runner {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub config: Config,
    pub queue: Queue,
    pub tracker: TaskTracker,
    pub shutdown: CancellationToken,
}

/// Why a run was stopped from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// The caller said so.
    Asked,
    /// The program ends.
    Shutdown,
}

/// One execution of a task. Dropping it cancels the run; its clean-up goes on and is awaited by
/// [`Runner::shutdown`].
#[derive(Debug)]
pub struct Run {
    id: RunId,
    events: mpsc::UnboundedReceiver<Event>,
    report: oneshot::Receiver<Report>,
    cancel: CancellationToken,
}
