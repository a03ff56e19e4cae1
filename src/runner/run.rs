//! The handles that faces hold.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::cancel::{CancelReason, Canceller};
use super::host::Host;
use super::queue::Queue;
use super::shared::Shared;
use super::{Event, Report, Task, TaskError, execute, task};
use crate::config::{self, Config, LoadOptions, Trust};
use crate::ids::RunId;
use crate::workspace::WorkspacePath;

/// Starts runs and waits for their ends. Cheap to clone; clones share one queue.
#[derive(Clone, Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    live: Arc<Mutex<Vec<(RunId, Canceller)>>>,
    tracker: TaskTracker,
}

/// Why there is no runner.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("the current folder cannot be read: {0}")]
    Folder(std::io::Error),
}

/// One execution of a task. Dropping it cancels the run; the clean-up goes on, and
/// [`Runner::shutdown`] waits for it.
#[derive(Debug)]
pub struct Run {
    id: RunId,
    events: mpsc::UnboundedReceiver<Event>,
    report: oneshot::Receiver<Report>,
    canceller: Canceller,
}

impl Runner {
    /// `options` are what `config` was loaded with; with the file of a run's project, they give
    /// that run its settings.
    pub fn new(config: Config, options: LoadOptions) -> Result<Self, StartError> {
        let places = config.limits.concurrency.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        });
        let (state, runtime) = (config::state_dir()?, config::runtime_dir()?);
        Ok(Self {
            shared: Arc::new(Shared {
                trust: Trust::new(&state),
                host: Host::new(&runtime, &state),
                runtime,
                state,
                options,
                folder: std::env::current_dir().map_err(StartError::Folder)?,
                queue: Queue::new(places),
                config: Arc::new(config),
            }),
            live: Arc::default(),
            tracker: TaskTracker::new(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The folder that a caller may look into: the same ones that tasks may work in.
    pub fn workspace(
        &self,
        requested: Option<&Path>,
    ) -> Result<WorkspacePath, crate::workspace::Error> {
        WorkspacePath::check(requested, &self.shared.folder, &self.shared.config.workspace.roots)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Where the records are.
    pub fn state(&self) -> &Path {
        &self.shared.state
    }

    /// Whether a run in `workspace` is this program's to tell about: one that it could have been
    /// asked for. What was done in other folders is nobody's here.
    pub fn may_tell_of(&self, workspace: &Path) -> bool {
        let roots = &self.shared.config.workspace.roots;
        let roots = std::iter::once(&self.shared.folder).chain(roots);
        let mut roots = roots.filter_map(|root| root.canonicalize().ok());
        roots.any(|root| root.parent().is_some() && workspace.starts_with(&root))
    }

    /// Meets the engine in the background, which removes what dead owners left on it. Without an
    /// engine nothing happens: the first run will say so.
    pub fn look_around(&self) {
        let runner = self.clone();
        // What it finds, it tells in the log; a run in that workspace would do the same.
        drop(tokio::task::spawn_blocking(move || runner.recover()));
        let shared = self.shared.clone();
        // Not tracked: nobody has to wait for it at the end, and half done is better than not.
        tokio::spawn(async move {
            let configured = shared.config.engine.host.as_deref();
            if let Err(error) = shared.host.meet(configured).await {
                tracing::debug!("no engine yet: {error}");
            }
        });
    }

    /// Checks the task and starts it; never waits for the engine or the model server.
    pub fn start(&self, task: Task) -> Result<Run, TaskError> {
        let asked = Instant::now();
        let task = task::check(task, &self.shared)?;
        let id = RunId::new();
        let canceller = Canceller::new();
        let (events, received) = mpsc::unbounded_channel();
        let (done, report) = oneshot::channel();
        let job = execute::Job {
            shared: self.shared.clone(),
            id: id.clone(),
            task,
            asked,
            events,
            canceller: canceller.clone(),
        };
        self.lock().push((id.clone(), canceller.clone()));
        let runner = self.clone();
        self.tracker.spawn(async move {
            let report = execute::guarded(job).await;
            runner.lock().retain(|(live, _)| *live != report.run_id);
            // Nobody may be listening any more; the record on disk has the report.
            drop(done.send(report));
        });
        Ok(Run { id, events: received, report, canceller })
    }

    /// Cancels all runs and waits for their clean-up. Returns those that were not clean in time.
    pub async fn shutdown(&self, within: Duration) -> Vec<RunId> {
        self.tracker.close();
        for (_, canceller) in self.lock().iter() {
            canceller.cancel(CancelReason::Shutdown);
        }
        let _ = tokio::time::timeout(within, self.tracker.wait()).await;
        self.lock().iter().map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(RunId, Canceller)>> {
        // A panic while the list was held cannot have left it half changed.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The next event; none when the run is over.
    pub async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Waits for the end.
    pub async fn report(mut self) -> Report {
        match (&mut self.report).await {
            Ok(report) => report,
            // Only when the program's runtime ends under us.
            Err(_) => Report::of_breakdown(self.id.clone(), "the program ended"),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.canceller.cancel(CancelReason::Asked);
    }
}
