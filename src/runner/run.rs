//! The handles that faces hold.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::cancel::{CancelReason, Canceller};
use super::host::Host;
use super::job::Job;
use super::past::Asked;
use super::queue::Queue;
use super::shared::Shared;
use super::{Event, Report, Task, TaskError, execute, owner, task};
use crate::config::{self, Config, LoadOptions, Trust};
use crate::history::Record;
use crate::ids::RunId;
use crate::workspace::{self, WorkspacePath};

/// Starts runs and waits for their ends. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Runner {
    shared: Arc<Shared>,
    live: Arc<Mutex<Vec<(RunId, Canceller)>>>,
    tracker: TaskTracker,
    detached: bool,
    /// Who hears of every run's end.
    ended: Option<mpsc::UnboundedSender<Report>>,
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
    begun: Option<oneshot::Receiver<Begun>>,
    keep: mpsc::Sender<oneshot::Sender<()>>,
    kept: bool,
}

/// Whether there is a record of the run; or why there is no run after all.
pub(super) type Begun = Result<bool, String>;

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
                queue: Queue::new(&state, places),
                runtime,
                state,
                options,
                started_in: std::env::current_dir().map_err(StartError::Folder)?,
                told: RwLock::default(),
                config: Arc::new(config),
            }),
            live: Arc::default(),
            tracker: TaskTracker::new(),
            detached: false,
            ended: None,
        })
    }

    /// Gives each run a process of its own, which outlives this one as long as it takes to clean
    /// up, and longer where the run is kept.
    #[must_use]
    pub fn detached(self) -> Self {
        Self { detached: true, ..self }
    }

    /// Tells the report of every run that ends from now on, whoever waits for it.
    #[must_use]
    pub fn telling(self, ended: mpsc::UnboundedSender<Report>) -> Self {
        Self { ended: Some(ended), ..self }
    }

    /// How many runs have a place and how many wait for one, of all processes of this machine.
    pub fn crowd(&self) -> std::io::Result<(usize, usize)> {
        self.shared.queue.crowd()
    }

    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The folder that a caller may look into: the same ones that tasks may work in.
    pub fn workspace(
        &self,
        requested: Option<&Path>,
    ) -> Result<WorkspacePath, crate::workspace::Error> {
        WorkspacePath::check(requested, &self.shared.folder(), &self.shared.roots())
    }

    /// Returns true if the program was started in a folder that can be a workspace.
    pub fn has_project(&self) -> bool {
        workspace::is_project(&self.shared.started_in)
    }

    /// Takes the folders that the host works in for its own, where the program was started in no
    /// project: the first is the one that is meant where none is named.
    pub fn adopt(&self, folders: impl IntoIterator<Item = PathBuf>) {
        if self.has_project() {
            return;
        }
        let folders = folders.into_iter().chain(config::project_of_host());
        let usable = folders.filter(|folder| folder.is_absolute() && folder.is_dir()).collect();
        *self.shared.told.write().unwrap_or_else(PoisonError::into_inner) = usable;
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Whether there is a check for the result of this task, as far as it can be told before the
    /// project's own settings are read.
    pub fn has_verify(&self, task: &Task) -> bool {
        let verify = task.verify.as_ref().or(self.shared.config.agent.verify.as_ref());
        verify.is_some_and(|command| !command.trim().is_empty())
    }

    /// Where the records are.
    pub fn state(&self) -> &Path {
        &self.shared.state
    }

    /// Whether a run in `workspace` is this program's to tell about: one that it could have been
    /// asked for. What was done in other folders is nobody's here.
    pub fn may_tell_of(&self, workspace: &Path) -> bool {
        self.roots().iter().any(|root| workspace.starts_with(root))
    }

    /// The folders that a task may work in, and in what is below them; they are as they really are.
    pub fn roots(&self) -> Vec<PathBuf> {
        let roots = std::iter::once(self.shared.folder()).chain(self.shared.roots());
        let real = roots.filter_map(|root| root.canonicalize().ok());
        real.filter(|root| root.parent().is_some()).collect()
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

    /// Takes over what another process of ours knows of the engine.
    pub(super) fn hear(&self, facts: crate::engine::Facts) {
        self.shared.host.hear(facts);
    }

    /// Settles what runs left whose processes died: containers, and things in workspaces.
    pub async fn settle(&self) {
        self.shared.host.look_again(self.shared.config.engine.host.as_deref()).await;
    }

    /// Whether something of the run is still there that [`Self::settle`] is to remove.
    pub fn is_unsettled(&self, id: &RunId) -> bool {
        self.shared.runtime.join(id.as_str()).exists()
    }

    /// Checks the task and starts it; never waits for the engine or the model server.
    pub fn start(&self, task: Task) -> Result<Run, TaskError> {
        if self.detached { self.start_detached(task) } else { self.start_as(RunId::new(), task) }
    }

    /// In this process.
    pub(super) fn start_as(&self, id: RunId, task: Task) -> Result<Run, TaskError> {
        let asked = Instant::now();
        let task = task::check(task, &self.shared)?;
        let record = Record::create(&self.shared.state, &id)
            .inspect_err(|error| tracing::warn!("this run leaves no record: {error}"))
            .ok();
        let record = record.map(|mut record| {
            record.task(&Asked::of(&task));
            record
        });
        let (run, ends) = Run::new(id.clone());
        let _ = ends.begun.send(Ok(record.is_some()));
        let job = Job {
            shared: self.shared.clone(),
            id,
            task,
            asked,
            events: ends.events,
            canceller: ends.canceller,
            record,
        };
        self.track(&run, execute::guarded(job), ends.done);
        Ok(run)
    }

    /// In a process of its own, which checks the task again: it is that one's word that counts.
    fn start_detached(&self, task: Task) -> Result<Run, TaskError> {
        task::check(task.clone(), &self.shared)?;
        let id = RunId::new();
        let (run, ends) = Run::new(id.clone());
        let RunEnds { events, canceller, begun, keep, done } = ends;
        let ends = owner::Ends { events, begun, keep, canceller };
        let followed = owner::start(&self.shared, id, task, ends).map_err(TaskError::Owner)?;
        let shared = self.shared.clone();
        let settled = async move {
            let report = followed.await;
            if report.is_of_death() {
                // Nobody is nearer.
                shared.host.look_again(shared.config.engine.host.as_deref()).await;
            }
            report
        };
        self.track(&run, settled, done);
        Ok(run)
    }

    fn track(
        &self,
        run: &Run,
        work: impl Future<Output = Report> + Send + 'static,
        done: oneshot::Sender<Report>,
    ) {
        self.lock().push((run.id.clone(), run.canceller.clone()));
        let (runner, id) = (self.clone(), run.id.clone());
        self.tracker.spawn(async move {
            let report = work.await;
            runner.lock().retain(|(live, _)| *live != id);
            if let Some(ended) = &runner.ended {
                drop(ended.send(report.clone()));
            }
            // Nobody may be listening any more; the record on disk has the report.
            drop(done.send(report));
        });
    }

    /// Cancels all runs and waits for their clean-up. Returns those that were not clean in time.
    pub async fn shutdown(&self, within: Duration) -> Vec<RunId> {
        self.end(CancelReason::Shutdown, within).await
    }

    /// As [`Self::shutdown`], for whatever reason.
    pub async fn end(&self, reason: CancelReason, within: Duration) -> Vec<RunId> {
        self.tracker.close();
        for (_, canceller) in self.lock().iter() {
            canceller.cancel(reason);
        }
        let _ = tokio::time::timeout(within, self.tracker.wait()).await;
        self.lock().iter().map(|(id, _)| id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(RunId, Canceller)>> {
        // A panic while the list was held cannot have left it half changed.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What whoever carries out a run has of it.
struct RunEnds {
    events: mpsc::UnboundedSender<Event>,
    canceller: Canceller,
    begun: oneshot::Sender<Begun>,
    keep: mpsc::Receiver<oneshot::Sender<()>>,
    done: oneshot::Sender<Report>,
}

impl Run {
    fn new(id: RunId) -> (Self, RunEnds) {
        let canceller = Canceller::new();
        let (events, received) = mpsc::unbounded_channel();
        let (done, report) = oneshot::channel();
        let (started, begun) = oneshot::channel();
        let (keep, wanted) = mpsc::channel(1);
        let run = Self {
            id,
            events: received,
            report,
            canceller: canceller.clone(),
            begun: Some(begun),
            keep,
            kept: false,
        };
        (run, RunEnds { events, canceller, begun: started, keep: wanted, done })
    }

    /// Waits until the run is on record, or says why there is none. False where it leaves no
    /// record. Asked once.
    pub async fn begun(&mut self) -> Result<bool, TaskError> {
        let Some(begun) = self.begun.take() else { return Ok(true) };
        let told = begun.await.unwrap_or_else(|_| Err("its process ended at once".into()));
        told.map_err(TaskError::Refused)
    }

    /// Lets the run outlive this handle and, where it has a process of its own, this program.
    /// When this returns, killing us no longer ends it.
    pub async fn keep(&mut self) {
        self.kept = true;
        let (done, told) = oneshot::channel();
        // A run that is over needs no keeping, and one in this process has nobody to be told.
        if self.keep.send(done).await.is_ok() {
            let _ = told.await;
        }
    }

    pub fn is_kept(&self) -> bool {
        self.kept
    }

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
        if !self.kept {
            self.canceller.cancel(CancelReason::Asked);
        }
    }
}
