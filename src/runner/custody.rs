//! What stands around a workspace that a run may write to: the lock, the looks before and after,
//! and the watch over its growth.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::cancel::Canceller;
use super::follow::End;
use super::shared::Shared;
use super::story::Story;
use super::task::Checked;
use super::{ChangeSummary, Error, host};
use crate::workspace::{
    Baseline, Before, Bounds, Exceeded, GuardError, Limits, Mode, SweepLimits, Swept, Watch,
    WriterLock,
};

/// How often somebody else's lock is asked for. It is the kernel's, which tells nobody.
const ASK: Duration = Duration::from_millis(200);
/// How often the workspace's growth is asked for; the watch itself decides what to look at.
const LOOK: Duration = Duration::from_millis(500);

/// Where the locks of all runs of this user are.
pub fn locks(runtime: &Path) -> PathBuf {
    runtime.join("locks")
}

/// Waits until nobody else writes to the workspace. A run that only reads needs no lock.
pub async fn lock(
    shared: &Shared,
    task: &Checked,
    canceller: &Canceller,
    story: &mut Story,
) -> Result<Option<WriterLock>, End> {
    if task.mode != Mode::Direct {
        return Ok(None);
    }
    host::look_again(&shared.host, shared.config.engine.host.as_deref(), &shared.runtime).await;
    let locks = locks(&shared.runtime);
    let mut told = false;
    loop {
        match WriterLock::try_lock(&locks, &task.workspace) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            Err(error) => return Err(End::Broken(error.into())),
        }
        if !std::mem::replace(&mut told, true) {
            story.notice("waiting for another run that writes to this workspace");
        }
        tokio::select! {
            reason = canceller.cancelled() => return Err(End::Cancelled(reason)),
            () = tokio::time::sleep(ASK) => {}
        }
    }
}

/// The workspace as it was before the agent began.
#[derive(Debug)]
pub struct Custody {
    baseline: Baseline,
    before: Before,
    watch: Watch,
}

impl Custody {
    /// Looks at the whole workspace, three times at once.
    pub async fn take(task: &Checked) -> Result<Self, Error> {
        let limits = &task.config.limits;
        let bounds = Bounds { bytes: limits.disk.bytes(), files: limits.files };
        let extra = task.config.workspace.protected.clone();
        let [first, second, third] = std::array::from_fn(|_| task.workspace.clone());
        let baseline = spawn_blocking(move || Baseline::take(&first, Limits::default()));
        let before = spawn_blocking(move || Before::take(&second, &extra, Limits::default()));
        let watch = spawn_blocking(move || Watch::start(&third, bounds));
        let broken = |_| Error::Looking;
        Ok(Self {
            baseline: baseline.await.map_err(broken)?,
            before: before.await.map_err(broken)?,
            watch: watch.await.map_err(broken)??,
        })
    }

    /// Splits off the watch, which is for the time of the work only. `loosened` looks whether a
    /// protected place still is.
    pub fn watch(
        self,
        loosened: impl Fn() -> Option<PathBuf> + Send + 'static,
    ) -> (Remains, Overseer) {
        let (stop, stopped) = std::sync::mpsc::channel();
        let (tell, seen) = oneshot::channel();
        let mut watch = self.watch;
        spawn_blocking(move || {
            // Ends with who asked for it.
            while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                let seen = loosened().map(Overseen::Loosened);
                if let Some(seen) = seen.or_else(|| watch.look().map(Overseen::Overgrown)) {
                    // Nobody listens when the work has just ended.
                    let _ = tell.send(seen);
                    return;
                }
            }
        });
        let remains = Remains { baseline: self.baseline, before: self.before };
        (remains, Overseer { seen, _stop: stop })
    }
}

/// Why a run cannot go on in its workspace.
#[derive(Debug)]
pub enum Overseen {
    /// The workspace has grown more than it may.
    Overgrown(Exceeded),
    /// A protected place, relative to the workspace, was replaced on the host.
    Loosened(PathBuf),
}

/// Tells when the run cannot go on in its workspace. Dropping it ends the watch.
#[derive(Debug)]
pub struct Overseer {
    seen: oneshot::Receiver<Overseen>,
    _stop: std::sync::mpsc::Sender<()>,
}

impl Overseer {
    pub async fn seen(&mut self) -> Overseen {
        match (&mut self.seen).await {
            Ok(seen) => seen,
            // The watch broke down, which it has said; it must not end the run.
            Err(_) => std::future::pending().await,
        }
    }
}

/// What is needed after the work.
#[derive(Debug)]
pub struct Remains {
    baseline: Baseline,
    before: Before,
}

impl Remains {
    /// Takes out of the workspace what a tool on the host would trust, and tells what changed.
    /// The container must be gone.
    pub async fn close(self, swept: PathBuf) -> (ChangeSummary, Swept) {
        let Self { baseline, before } = self;
        let closing = spawn_blocking(move || {
            let swept = before.sweep(&swept, SweepLimits::default());
            (baseline.changes(), swept)
        });
        closing.await.unwrap_or_else(|error| {
            tracing::error!("the workspace could not be looked at: {error}");
            let unknown = ChangeSummary { truncated: true, ..ChangeSummary::default() };
            (unknown, Swept::default())
        })
    }
}

impl From<GuardError> for Error {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Workspace(error) => error.into(),
            other => Self::Guard(other),
        }
    }
}
