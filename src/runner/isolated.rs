//! A run's own view of its workspace, made with its container.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::spawn_blocking;

use super::Error;
use super::job::Job;
use super::overseer::{Overseen, Overseer};
use super::story::Story;
use super::task::Checked;
use crate::config::Isolation;
use crate::engine::Engine;
use crate::history::Entry;
use crate::ids::{Owner, RunId};
use crate::sandbox::{Mount, Overlay, Policy, Sandbox, Spec, User, WORKSPACE};
use crate::workspace::changeset::RelPath;
use crate::workspace::layer::{Layer, Mounted};
use crate::workspace::{Bounds, Watch};

/// An empty layer for a run. `masks` is what is hidden from the agent.
pub fn make(
    state: &Path,
    id: &RunId,
    owner: &Owner,
    task: &Checked,
    masks: &[(std::path::PathBuf, bool)],
) -> Result<Layer, Error> {
    if Entry::of(state, id).is_none() {
        // Its work would be lost in the end.
        return Err(Error::NoRecord);
    }
    let covered = masks.iter().filter_map(|(mask, _)| RelPath::new(mask.clone()).ok()).collect();
    Ok(Layer::make(state, id, owner, &task.workspace, bounds(task), covered)?)
}

fn bounds(task: &Checked) -> Bounds {
    let limits = &task.config.limits;
    Bounds { bytes: limits.disk.bytes(), files: limits.files }
}

/// Where a sandbox is started, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub engine: &'a Engine,
    pub user: User,
}

/// Starts the sandbox with a view of the workspace: an overlay where the engine mounts one, else a
/// copy. `mounts` are all others.
pub async fn start(
    job: &Job,
    site: Site<'_>,
    layer: &mut Option<Layer>,
    mounts: Vec<Mount>,
    spec: &Spec<'_>,
    story: &mut Story,
) -> Result<(Sandbox, Policy), Error> {
    let task = &job.task;
    let isolation = task.config.workspace.isolation;
    let Some(made) = layer.as_mut() else { unreachable!("a run in this mode has a layer") };
    if isolation != Isolation::Copy {
        let why = if made.can_be_overlay() {
            let mounted = Mounted {
                image: spec.image.to_owned(),
                user: site.user.to_string(),
                runtime: task.config.sandbox.runtime.clone(),
            };
            let (upper, work) = made.overlay(&task.workspace, mounted)?;
            task.workspace.recheck()?;
            let overlay = Overlay { volume: format!("sandbox-mcp-{}", job.id), upper, work };
            let view = Policy::overlay_mount(task.workspace.path().to_owned(), overlay);
            let mounts = [vec![view], mounts.clone()].concat();
            let policy = Policy::new(&task.config, site.user, mounts);
            match Sandbox::start(site.engine, &policy, spec).await {
                Ok(sandbox) => return Ok((sandbox, policy)),
                Err(crate::sandbox::Error::Engine(error))
                    if isolation == Isolation::Auto && error.is_about_a_mount() =>
                {
                    crate::text::one_line(&error.to_string(), 300)
                }
                Err(error) => return Err(error.into()),
            }
        } else if isolation == Isolation::Auto {
            "a path with a comma, a colon or a backslash".to_owned()
        } else {
            return Err(Error::NoOverlay);
        };
        story.remark(&format!("there is no overlay over this workspace, so it was copied: {why}"));
    }
    let copied = copy(job, layer).await?;
    if copied.left_out > 0 {
        story.remark(&format!(
            "{} things of the workspace are not in the run's copy: sockets, pipes, devices, what \
             cannot be read and what lies too deep",
            copied.left_out
        ));
    }
    // A mount makes its place where there is none, and sockets were not copied.
    let is_there = |mount: &Mount| match mount.target.strip_prefix(WORKSPACE) {
        Ok(place) => copied.path.join(place).symlink_metadata().is_ok(),
        Err(_) => true,
    };
    let mut all = vec![Policy::workspace_mount(copied.path.clone(), false)];
    all.extend(mounts.into_iter().filter(is_there));
    let policy = Policy::new(&task.config, site.user, all);
    let sandbox = Sandbox::start(site.engine, &policy, spec).await?;
    Ok((sandbox, policy))
}

struct CopyMade {
    path: std::path::PathBuf,
    left_out: u64,
}

/// Copies the workspace; a cancel ends that.
async fn copy(job: &Job, layer: &mut Option<Layer>) -> Result<CopyMade, Error> {
    let Some(mut taken) = layer.take() else { unreachable!("a run in this mode has a layer") };
    let stop = Arc::new(AtomicBool::new(false));
    let (workspace, stopped) = (job.task.workspace.clone(), stop.clone());
    let mut copying = spawn_blocking(move || {
        let copied = taken.copy(&workspace, &stopped);
        (taken, copied)
    });
    // To its end in any case: nothing may be written to the layer any more when it is removed.
    let ended = tokio::select! {
        ended = &mut copying => ended,
        _ = job.canceller.cancelled() => {
            stop.store(true, Ordering::Relaxed);
            copying.await
        }
    };
    let (taken, copied) = ended.map_err(|_| Error::Looking)?;
    *layer = Some(taken);
    let (path, left_out) = copied?;
    Ok(CopyMade { path, left_out })
}

/// Watches the growth of what a run writes.
pub async fn watch(task: &Checked, layer: &Layer) -> Result<Overseer, Error> {
    let (written, bounds) = (layer.written(), bounds(task));
    let watch = spawn_blocking(move || Watch::start_at(&written, bounds));
    let watch = watch.await.map_err(|_| Error::Looking)??;
    Ok(Overseer::new(watch, Overseen::Overgrown, layer.sign(), || None))
}
