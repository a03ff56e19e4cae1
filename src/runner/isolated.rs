//! A run's own view of its workspace, made with its container.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::Error;
use super::earlier::Earlier;
use super::job::Job;
use super::kept_there;
use super::overseer::{Overseen, Overseer};
use super::story::Story;
use super::task::Checked;
use crate::config::Isolation;
use crate::engine::{self, Engine};
use crate::history::Entry;
use crate::ids::{Owner, RunId};
use crate::sandbox::{self, Mount, Overlay, Policy, Receipt, Sandbox, Sending, Spec, User};
use crate::text::{count, one_line};
use crate::workspace::changeset::RelPath;
use crate::workspace::layer::{Layer, LayerError, Setup};
use crate::workspace::{Bounds, Watch, WorkspacePath};

/// The time between two words on how much was copied.
const PROGRESS: Duration = Duration::from_secs(5);

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
    /// The path of the workspace inside.
    pub inside: &'a Path,
    pub is_rootless: bool,
    /// Changes that the view begins with.
    pub earlier: Option<&'a Arc<Earlier>>,
}

async fn is_quick(layer: &mut Option<Layer>, workspace: &WorkspacePath) -> Result<bool, Error> {
    let Some(taken) = layer.take() else { unreachable!("a run in this mode has a layer") };
    let workspace = workspace.clone();
    let looking = spawn_blocking(move || (taken.is_quick(&workspace), taken));
    let (is_quick, taken) = looking.await.map_err(|_| Error::Looking)?;
    *layer = Some(taken);
    Ok(is_quick)
}

/// A sandbox over a view, which has said what it is.
#[derive(Debug)]
pub struct Started {
    pub sandbox: Sandbox,
    pub receipt: Receipt,
}

/// Starts the sandbox with a view of the workspace: a copy where that is quick, an overlay where the
/// engine mounts one, else a copy. `mounts` are all others.
pub async fn start(
    job: &Job,
    site: Site<'_>,
    layer: &mut Option<Layer>,
    mounts: Vec<Mount>,
    spec: &Spec<'_>,
    story: &mut Story,
) -> Result<Started, Error> {
    let task = &job.task;
    if let Some(layer) = layer {
        layer.set_up(Setup {
            image: spec.image.to_owned(),
            inside: site.inside.to_owned(),
            user: site.user.to_string(),
            shared: site.user.shared(),
            runtime: task.config.sandbox.runtime.clone(),
            accepted: task.config.sandbox.accept.clone(),
            copies: None,
        });
    }
    // A copy is a snapshot, so a small folder is copied. A rootless engine mounts overlays in
    // which no folder can be renamed.
    let is_copied = match task.config.workspace.isolation {
        _ if job.shared.host.is_apart() => true,
        Isolation::Auto => site.is_rootless || is_quick(layer, &task.workspace).await?,
        Isolation::Copy => true,
        Isolation::Overlay => false,
    };
    if !is_copied {
        match overlay(job, site, layer, &mounts, spec).await? {
            Ok(started) => return Ok(started),
            Err(_) if job.shared.host.is_apart() => {}
            Err(why) => story.remark(&format!(
                "there is no overlay over this workspace, so it was copied: {why}"
            )),
        }
    }
    let copied = copy(job, layer).await?;
    if let Some(earlier) = site.earlier {
        earlier.seed(layer, &task.workspace).await?;
    }
    if copied.left_out > 0 {
        story.remark(&format!(
            "not in the run's copy of the workspace: {} (sockets, pipes, devices, what cannot be \
             read and what lies too deep)",
            count(copied.left_out, "thing")
        ));
    }
    // A mount makes its place where there is none, and sockets were not copied.
    let lies_in = |mount: &Mount, other: &Mount| {
        mount.target != other.target && mount.target.starts_with(&other.target)
    };
    let is_there = |mount: &&Mount| match mount.target.strip_prefix(site.inside) {
        Ok(place) => {
            copied.path.join(place).symlink_metadata().is_ok()
                || mounts.iter().any(|other| lies_in(mount, other))
        }
        Err(_) => true,
    };
    let mut all = vec![Policy::workspace_mount(copied.path.clone(), site.inside.to_owned(), false)];
    all.extend(mounts.iter().filter(is_there).cloned());
    let policy = Policy::new(&task.config, site.user, site.inside.to_owned(), all);
    let mut started = begin(job, site.engine, &policy, spec, story).await?;
    if let (Some(copies), Some(layer)) = (started.sandbox.leave_copies().await, layer)
        && let Err(error) = layer.note_copies(copies)
    {
        started.sandbox.remove().await?;
        return Err(error.into());
    }
    Ok(started)
}

/// The same with an overlay; or why there is none, where a copy may take its place.
async fn overlay(
    job: &Job,
    site: Site<'_>,
    layer: &mut Option<Layer>,
    mounts: &[Mount],
    spec: &Spec<'_>,
) -> Result<Result<Started, String>, Error> {
    let task = &job.task;
    let Some(made) = layer.as_mut() else { unreachable!("a run in this mode has a layer") };
    let or_copy = task.config.workspace.isolation == Isolation::Auto;
    if !made.can_be_overlay() {
        return if or_copy {
            Ok(Err("a path with a comma, a colon or a backslash".to_owned()))
        } else {
            Err(Error::NoOverlay)
        };
    }
    let (upper, work) = made.overlay(&task.workspace)?;
    if let Some(earlier) = site.earlier {
        earlier.seed(layer, &task.workspace).await?;
    }
    task.workspace.recheck()?;
    let overlay = Overlay { volume: format!("sandbox-mcp-{}", job.id), upper, work };
    let (below, inside) = (task.workspace.path().to_owned(), site.inside.to_owned());
    let view = Policy::overlay_mount(below, inside.clone(), overlay);
    let policy = Policy::new(&task.config, site.user, inside, [&[view], mounts].concat());
    match try_to_begin(site.engine, &policy, spec).await {
        Ok(started) => Ok(Ok(started)),
        Err(sandbox::Error::Engine(error)) if is_unseen(&error, &policy) => {
            job.shared.host.note_apart();
            Ok(Err("the engine does not see it".to_owned()))
        }
        Err(sandbox::Error::Engine(error)) if or_copy && error.is_about_a_mount() => {
            Ok(Err(one_line(&error.to_string(), 300)))
        }
        // A kernel that mounts something else than it was told.
        Err(sandbox::Error::Mismatch(wrong)) if or_copy => {
            Ok(Err(one_line(&wrong.join("; "), 300)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Starts a sandbox and hears what it says of itself. An engine that does not find what is to be
/// mounted gets copies, from then on at once.
pub async fn begin(
    job: &Job,
    engine: &Engine,
    policy: &Policy,
    spec: &Spec<'_>,
    story: &mut Story,
) -> Result<Started, Error> {
    let host = &job.shared.host;
    if !host.is_apart() {
        match try_to_begin(engine, policy, spec).await {
            Err(sandbox::Error::Engine(error)) if is_unseen(&error, policy) => host.note_apart(),
            other => return Ok(other?),
        }
    }
    story.notice("the engine does not see these files: copying to it what the run needs");
    let (workspace, state) = (job.task.workspace.path(), &job.shared.state);
    let sending = Arc::new(Sending::of(workspace, policy.user, state)?);
    // Two runs of one folder are not to change at once what is kept of it there.
    let _turn = tokio::select! {
        turn = kept_there::take(state, &sending.kept) => turn?,
        _ = job.canceller.cancelled() => return Err(LayerError::Stopped.into()),
    };
    let mut starting = Box::pin(Sandbox::start_with_copies(engine, policy, spec, sending.clone()));
    let mut told = tokio::time::interval_at(Instant::now() + PROGRESS, PROGRESS);
    let (sandbox, policy) = loop {
        tokio::select! {
            started = &mut starting => break started?,
            _ = told.tick() => {
                let copied = sending.bytes.load(Ordering::Relaxed) / 1_000_000;
                story.notice(&format!("copied {copied} MB so far"));
            }
            // To its end in any case, which comes at once: what was made must be removed.
            _ = job.canceller.cancelled(), if !sending.is_over.load(Ordering::Relaxed) => {
                sending.is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    Ok(check(sandbox, &policy).await?)
}

/// Returns true where the engine does not find what is there for us.
fn is_unseen(error: &engine::Error, policy: &Policy) -> bool {
    let mut sources = policy.mounts.iter().map(|mount| &mount.source);
    sources.any(|source| error.is_missing_path(source) && source.exists())
}

async fn try_to_begin(
    engine: &Engine,
    policy: &Policy,
    spec: &Spec<'_>,
) -> Result<Started, sandbox::Error> {
    check(Sandbox::start(engine, policy, spec).await?, policy).await
}

/// Removes a sandbox that is not what was meant.
async fn check(mut sandbox: Sandbox, policy: &Policy) -> Result<Started, sandbox::Error> {
    match sandbox.receipt(policy).await {
        Ok(receipt) => Ok(Started { sandbox, receipt }),
        Err(error) => {
            sandbox.remove().await?;
            Err(error)
        }
    }
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

/// Watches the growth of copies on the engine's machine, if the run works on some.
pub async fn watch_copies(task: &Checked, sandbox: &Sandbox) -> Result<Option<Overseer>, Error> {
    let Some(usage) = sandbox.usage() else { return Ok(None) };
    let Some(start) = usage.look().await? else { return Ok(None) };
    Ok(Some(Overseer::of_copies(usage, start, bounds(task))))
}

/// Watches the growth of what a run writes.
pub async fn watch(task: &Checked, layer: &Layer) -> Result<Overseer, Error> {
    let (written, bounds) = (layer.written(), bounds(task));
    let watch = spawn_blocking(move || Watch::start(&written, bounds));
    let watch = watch.await.map_err(|_| Error::Looking)??;
    Ok(Overseer::new(watch, Overseen::Overgrown, layer.sign()))
}
