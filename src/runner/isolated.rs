//! A run's own view of its workspace: made with its container, and collected when that is gone.

use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::spawn_blocking;

use super::execute::Job;
use super::overseer::{Overseen, Overseer};
use super::prepare::Prepared;
use super::story::Story;
use super::task::Checked;
use super::{ChangeSummary, Error, View};
use crate::config::Isolation;
use crate::history::Entry;
use crate::ids::{Owner, RunId};
use crate::sandbox::{Mount, Overlay, Policy, Sandbox, Spec, WORKSPACE};
use crate::workspace::changeset::{
    Blobs, CollectError, Collected, Manifest, RelPath, StoreError, collect, write_manifest,
    write_patch,
};
use crate::workspace::layer::{Layer, abandoned};
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

/// Starts the sandbox with a view of the workspace: an overlay where the engine mounts one, else a
/// copy. `mounts` are all others.
pub async fn start(
    job: &Job,
    prepared: &Prepared,
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
            let (upper, work) = made.overlay(&task.workspace)?;
            task.workspace.recheck()?;
            let overlay = Overlay { volume: format!("sandbox-mcp-{}", job.id), upper, work };
            let view = Policy::overlay_mount(task.workspace.path().to_owned(), overlay);
            let mounts = [vec![view], mounts.clone()].concat();
            let policy = Policy::new(&task.config, prepared.user, mounts);
            match Sandbox::start(&prepared.engine, &policy, spec).await {
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
    let policy = Policy::new(&task.config, prepared.user, all);
    let sandbox = Sandbox::start(&prepared.engine, &policy, spec).await?;
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

/// What is told of a run's layer in its report.
#[derive(Debug, Default)]
pub struct Closed {
    pub view: Option<View>,
    pub changes: ChangeSummary,
    pub remarks: Vec<String>,
}

/// Keeps a run's result in its record, and removes its layer. Where that fails the layer stays, and
/// the next process tries again. `gone`: the container is, for certain.
pub async fn close(state: &Path, id: &RunId, layer: Layer, gone: bool) -> Closed {
    let view = layer.view();
    let unknown = |why: String| Closed {
        view,
        changes: ChangeSummary { truncated: true, ..ChangeSummary::default() },
        remarks: vec![why],
    };
    if !gone {
        return unknown(
            "the container may still run, so what it changed is not collected yet".to_owned(),
        );
    }
    let (state, id) = (state.to_owned(), id.clone());
    match spawn_blocking(move || settle(&state, &id, layer)).await {
        Ok(Ok(kept)) => Closed { view, ..kept },
        Ok(Err(error)) => {
            tracing::error!("failed to {error}");
            unknown(format!(
                "failed to {error}; nothing is lost, and the next process of sandbox-mcp tries again"
            ))
        }
        Err(error) => {
            tracing::error!("what the run changed could not be collected: {error}");
            unknown("what the run changed could not be collected".to_owned())
        }
    }
}

/// Keeps what is in a layer, and removes it.
fn settle(state: &Path, id: &RunId, layer: Layer) -> Result<Closed, CollectError> {
    let mut closed = Closed::default();
    if layer.view().is_some() {
        let Some(entry) = Entry::of(state, id) else {
            closed.remarks.push(
                "the run's record was removed while it went on, and what it changed with it".into(),
            );
            closed.changes.truncated = true;
            remove(layer);
            return Ok(closed);
        };
        let Collected { manifest, summary, commits } = collect(&layer, &entry.blobs())?;
        closed.remarks.extend(keep_result(&entry, &manifest)?);
        closed.changes = summary;
        if commits {
            closed.remarks.push(
                "commits and branches that the run made stay in its own view; its files are kept"
                    .to_owned(),
            );
        }
        if !manifest.complete {
            let why: Vec<_> = manifest.skipped.iter().take(3).map(said).collect();
            closed.remarks.push(format!(
                "not everything that the run changed could be kept, so nothing of it may be \
                 applied: {}",
                if why.is_empty() { "it is too much".to_owned() } else { why.join(", ") }
            ));
        }
    }
    remove(layer);
    Ok(closed)
}

fn remove(layer: Layer) {
    let folder = layer.written();
    if let Err(error) = layer.remove() {
        // Whoever comes next tries again; it is no longer anybody's result.
        tracing::warn!("{} remains: failed to {error}", folder.display());
    }
}

fn said(skipped: &crate::workspace::changeset::Skipped) -> String {
    format!("{} ({})", skipped.path, skipped.why)
}

/// Everything that a record keeps of a result: the contents are there already. Answers what a
/// person should know of the patch.
fn keep_result(entry: &Entry, manifest: &Manifest) -> Result<Option<String>, CollectError> {
    let failed = |error: StoreError| CollectError::from(std::io::Error::other(error));
    write_manifest(&entry.changes(), manifest).map_err(failed)?;
    if !manifest.complete || manifest.changes.is_empty() {
        return Ok(None);
    }
    Ok(write_patch_of(entry, manifest).unwrap_or_else(|error| {
        // It can be made again from the list and the contents.
        tracing::warn!("the patch of run {} was not written: {error}", entry.id());
        None
    }))
}

fn write_patch_of(entry: &Entry, manifest: &Manifest) -> std::io::Result<Option<String>> {
    let (path, blobs) = (entry.patch(), Blobs::new(entry.blobs()));
    let partial = path.with_extension("patch.partial");
    let mut options = std::fs::File::options();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(&partial)?;
    let mut out = BufWriter::new(file);
    let report = write_patch(manifest, &manifest.workspace, &blobs, &mut out)?;
    out.into_inner()?.sync_all()?;
    std::fs::rename(&partial, &path)?;
    let left_out = report.left_out.len();
    Ok((!report.is_complete()).then(|| {
        format!("the patch leaves out {left_out} of the changes and says which; applying has all")
    }))
}

/// Keeps the results of runs whose processes died. `running` are those that still have a container.
/// Answers what a person should know. Blocking.
pub fn settle_abandoned(state: &Path, running: &[String]) -> Vec<String> {
    let mut news = Vec::new();
    for layer in abandoned(state, running) {
        let Some(id) = layer.run() else { continue };
        let workspace = layer.workspace().display().to_string();
        if Entry::of(state, &id).is_none() {
            tracing::warn!("run {id} has no record any more, and its layer goes after it");
            remove(layer);
            continue;
        }
        let began = layer.view().is_some();
        match settle(state, &id, layer) {
            Ok(closed) if began => {
                let count = closed.changes.files.len();
                let more = if closed.changes.truncated { " or more" } else { "" };
                let told = format!(
                    "run {id} was killed while it worked in a view of {workspace}; its {count}{more} \
                     changes are in its record"
                );
                tracing::warn!("{told}");
                news.push(told);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("the layer of run {id} remains: failed to {error}"),
        }
    }
    news
}
