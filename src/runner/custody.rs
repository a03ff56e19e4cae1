//! What stands around a workspace that a run may write to: the lock, and the looks before and after.

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

use super::cancel::Canceller;
use super::follow::End;
use super::line::LOOK;
use super::overseer::{Overseen, Overseer};
use super::queue::Writer;
use super::shared::Shared;
use super::story::Story;
use super::task::Checked;
use super::{ChangeSummary, Error, EventKind};
use crate::workspace::{
    Baseline, Before, Bounds, GuardError, Limits, Mode, SweepLimits, Swept, Watch, WriterLock,
    changeset,
};

/// The turn at writing to a workspace: the right to it first, the place in the line after it.
#[derive(Debug)]
pub struct Turn {
    pub lock: WriterLock,
    _writer: Option<Writer>,
}

/// Waits until nobody else writes to the workspace. A run that only reads needs no lock.
pub async fn lock(
    shared: &Shared,
    task: &Checked,
    canceller: &Canceller,
    story: &mut Story,
) -> Result<Option<Turn>, End> {
    // Whatever the run may do, it is not to see a workspace that was left half changed.
    settle(shared, task, story).await;
    if task.mode != Mode::Direct || task.has_view() {
        // What a dead run left is in nobody's way here, but somebody has to take it away.
        if crate::sandbox::has_abandoned(&shared.runtime) {
            shared.host.look_again(shared.config.engine.host.as_deref()).await;
        }
        return Ok(None);
    }
    let mut settling = 3;
    let locks = shared.host.locks();
    let mut writer = shared.queue.write(&task.workspace).await;
    if let Err(error) = &writer {
        // The lock alone keeps writers apart, in no order.
        story.remark(&format!("this run stood in no line for its workspace: {error}"));
    }
    let mut told = None;
    let mut attempts = 3;
    loop {
        // Not for ever: what cannot be cleaned up is told, and is no reason to refuse work.
        let dead = attempts > 0 && crate::sandbox::has_abandoned(&shared.runtime);
        if dead {
            attempts -= 1;
            let engine = shared.config.engine.host.as_deref();
            shared.host.look_again(engine).await;
        }
        let ahead = match &mut writer {
            Ok(writer) => writer.ahead().await.unwrap_or_default(),
            Err(_) => 0,
        };
        let lock = match ahead {
            0 => WriterLock::try_lock(&locks, &task.workspace),
            _ => Ok(None),
        };
        match lock {
            // Its owner may have died while we waited for it.
            Ok(Some(lock)) if attempts > 0 && crate::sandbox::has_abandoned(&shared.runtime) => {
                drop(lock);
                continue;
            }
            Ok(Some(lock)) if settling > 0 && is_unsettled(shared, task) => {
                settling -= 1;
                drop(lock);
                settle(shared, task, story).await;
                continue;
            }
            Ok(Some(lock)) => return Ok(Some(Turn { lock, _writer: writer.ok() })),
            Ok(None) => {}
            Err(error) => return Err(End::Broken(error.into())),
        }
        if told.is_none() {
            story.notice("waiting for another run that writes to this workspace");
        }
        // Who writes at the moment is not counted, as with places.
        let ahead = ahead.saturating_sub(1);
        if told.replace(ahead) != Some(ahead) {
            story.tell(EventKind::Queued { ahead, workspace: true });
        }
        tokio::select! {
            reason = canceller.cancelled() => return Err(End::Cancelled(reason)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn is_unsettled(shared: &Shared, task: &Checked) -> bool {
    changeset::is_unsettled(&shared.journals(), task.workspace.path())
}

/// Undoes or finishes what a dead process left half carried over.
async fn settle(shared: &Shared, task: &Checked, story: &mut Story) {
    if !is_unsettled(shared, task) {
        return;
    }
    let (journals, locks) = (shared.journals(), shared.host.locks());
    match spawn_blocking(move || changeset::recover(&journals, &locks)).await {
        Ok(recovered) => recovered.told.iter().for_each(|told| story.remark(told)),
        Err(error) => tracing::error!("settling a workspace broke down: {error}"),
    }
}

/// The workspace as it was before the agent began.
#[derive(Debug)]
pub struct Custody {
    baseline: Baseline,
    before: Before,
    watch: Watch,
    memory: PathBuf,
    /// What is to stay absent although nothing can be mounted there.
    unmounted: Option<PathBuf>,
}

impl Custody {
    /// Looks at the whole workspace, three times at once.
    /// What is known is written down in `memory`, for the case that we are killed.
    pub async fn take(task: &Checked, memory: PathBuf) -> Result<Self, Error> {
        let limits = &task.config.limits;
        let bounds = Bounds { bytes: limits.disk.bytes(), files: limits.files };
        let extra = task.config.workspace.protected.clone();
        let unmounted = unmounted(task.workspace.path());
        let [first, second, third] = std::array::from_fn(|_| task.workspace.clone());
        let baseline = spawn_blocking(move || Baseline::take(&first, Limits::default()));
        let kept = memory.clone();
        let before = spawn_blocking(move || {
            let before = Before::take(&second, &extra, Limits::default());
            before.remember(&second, &kept).map(|()| before)
        });
        let watch = spawn_blocking(move || Watch::start(&third, bounds));
        let broken = |_| Error::Looking;
        Ok(Self {
            baseline: baseline.await.map_err(broken)?,
            before: before.await.map_err(broken)??,
            watch: watch.await.map_err(broken)??,
            memory,
            unmounted,
        })
    }

    /// Splits off the watch, which is for the time of the work only. `loosened` looks whether every
    /// protected place still is.
    pub fn watch(
        self,
        loosened: impl Fn() -> Option<PathBuf> + Send + 'static,
    ) -> (Remains, Overseer) {
        let remains = Remains { baseline: self.baseline, before: self.before };
        let unmounted = self.unmounted;
        let looks = move || {
            let planted = unmounted.as_ref().filter(|place| place.symlink_metadata().is_ok());
            let planted = planted.map(|_| Overseen::Planted(COMMON.into()));
            planted.or_else(|| loosened().map(Overseen::Loosened))
        };
        (remains, Overseer::new(self.watch, Overseen::Overgrown, self.memory, looks))
    }
}

/// Leads git to another repository's settings. Git does not work where a placeholder stands there,
/// so its making is noticed instead.
const COMMON: &str = ".git/commondir";

fn unmounted(workspace: &Path) -> Option<PathBuf> {
    let place = workspace.join(COMMON);
    let absent = place.parent().is_some_and(Path::is_dir) && place.symlink_metadata().is_err();
    absent.then_some(place)
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
