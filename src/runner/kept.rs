//! What a run made in its own view of a workspace, taken from there into its record: when its
//! container is gone, and for runs whose processes died.

use std::fs;
use std::io::BufWriter;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::commits::{self, Packed};
use super::job::Job;
use super::outcome::hold;
use super::{ChangeSummary, View, earlier, survey};
use crate::engine::Engine;
use crate::history::Entry;
use crate::ids::RunId;
use crate::text::{count, one_line};
use crate::workspace::changeset::{
    Blobs, CollectError, Collected, Fate, Known, Live, Manifest, Merged, Steps, StoreError,
    collect, write_manifest, write_patch,
};
use crate::workspace::git;
use crate::workspace::layer::{Layer, abandoned};

/// Longest wait for somebody who applies what the run had changed a moment ago.
const TURN: Duration = Duration::from_secs(60);

/// What is told of a run's layer in its report.
#[derive(Debug, Default)]
pub struct Closed {
    pub view: Option<View>,
    pub changes: ChangeSummary,
    pub remarks: Vec<String>,
}

/// Looks at a view before its container was gone.
#[derive(Debug, Default)]
pub struct Looked {
    /// The last look of an overlay.
    pub merged: Option<Merged>,
    /// None where git inside has not packed what is new.
    pub packed: Option<Packed>,
    /// Moments between the agent and its checks.
    pub steps: Option<Steps>,
    /// True where what an engine has that does not see our files was brought back.
    pub is_brought: bool,
}

/// Keeps a run's result in its record, and removes its layer. Where that fails the layer stays, and
/// the next process tries again.
pub async fn close(
    job: &Job,
    layer: Layer,
    Looked { merged, packed, steps, is_brought }: Looked,
    engine: Option<&Engine>,
) -> Closed {
    let (state, id) = (&job.shared.state, &job.id);
    let view = layer.view();
    let unknown = |why: String| Closed {
        view,
        changes: ChangeSummary { truncated: true, ..ChangeSummary::default() },
        remarks: vec![why],
    };
    let Some(engine) = engine else {
        return unknown(
            "the container may still run, so what it changed is not collected yet".to_owned(),
        );
    };
    let copies = layer.copies().cloned();
    let is_seen = packed.is_some()
        && (merged.is_some() || layer.mounted().is_none())
        && (is_brought || copies.is_none());
    let (merged, packed) = match (is_seen, packed) {
        (true, packed) => (merged, packed.unwrap_or_default()),
        (false, known) => match survey::look_again(engine, &layer).await {
            Ok((merged, packed)) => (merged, known.unwrap_or(packed)),
            Err(error) => {
                tracing::error!("the view of run {id} was not looked at: {error}");
                return unknown(format!(
                    "failed to see what the run changed ({error}); nothing is lost, and the next process of sandbox-mcp tries again"
                ));
            }
        },
    };
    let (state, id) = (state.to_owned(), id.clone());
    match spawn_blocking(move || {
        settle(&state, &id, layer, (merged.as_ref(), steps.as_ref()), &packed)
    })
    .await
    {
        Ok(Ok(mut kept)) => {
            if let Some(copies) = copies
                && let Err(error) = copies.remove(engine).await
            {
                kept.remarks.push(format!("files of the run remain on the engine: {error}"));
            }
            Closed { view, ..kept }
        }
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
fn settle(
    state: &Path,
    id: &RunId,
    layer: Layer,
    (merged, steps): (Option<&Merged>, Option<&Steps>),
    packed: &Packed,
) -> Result<Closed, CollectError> {
    let mut closed = Closed::default();
    git::clear(&layer)?;
    if layer.view().is_some() {
        let Some(entry) = Entry::of(state, id) else {
            closed.remarks.push(
                "the run's record was removed while it went on, and what it changed with it".into(),
            );
            closed.changes.truncated = true;
            remove(layer);
            return Ok(closed);
        };
        // Somebody may be applying what was there a moment ago.
        let held = hold(&entry, Some(Instant::now() + TURN));
        if let Err(error) = &held {
            tracing::warn!("{error}");
        }
        if let Err(error) = fs::remove_dir_all(entry.look())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("a look at run {id} remains: {error}");
        }
        let live = Live::read(&entry.live()).unwrap_or_else(|error| {
            tracing::error!("what was applied of run {id} is not known: failed to {error}");
            Live::default()
        });
        let mut collected =
            collect(&layer, Known { merged, steps, live, is_over: true }, &entry.blobs())?;
        commits::rebuild_all(&entry, &layer, packed, &mut collected)?;
        let Collected { manifest, summary, repositories, remarks, .. } = collected;
        closed.remarks.extend(remarks);
        closed.remarks.extend(keep_result(&entry, &manifest)?);
        closed.changes = summary;
        if let Some(git) = repositories.first() {
            closed.remarks.push(format!(
                "commits in `{}` do not come back; its files do",
                one_line(&git.display().to_string(), 160)
            ));
        }
        earlier::note(state, &manifest, id);
        let (commits, remarks) = commits::take(&entry, &layer, packed)?;
        closed.remarks.extend(remarks);
        if commits.is_some() && closed.changes.applied.is_none() {
            closed.changes.applied = Some(false);
        }
        let is_pending = commits.as_ref().is_some_and(|commits| !commits.moved);
        closed.changes.commits = commits;
        let settled = settle_live(&entry, &manifest, is_pending);
        closed.remarks.extend(settled.map_err(std::io::Error::other)?);
        drop(held);
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

/// Notes what was applied while the run went on and is so still. Answers what a person should know.
fn settle_live(
    entry: &Entry,
    manifest: &Manifest,
    is_pending: bool,
) -> Result<Option<String>, StoreError> {
    let live = Live::read(&entry.live())?;
    if live.is_empty() {
        return Ok(None);
    }
    let mut fate = Fate::read(&entry.applied())?;
    fate.settle(manifest, &live);
    fate.whole &= !is_pending;
    fate.write(&entry.applied())?;
    let applied: usize = fate.applied.iter().map(|one| one.paths.len()).sum();
    Ok((applied > 0).then(|| format!("{} applied while the run went on", count(applied, "change"))))
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
    let (path, blobs) = (entry.patch(), Blobs::new(entry.blobs()).with_before(entry.before()));
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
/// Answers what a person should know.
pub async fn settle_abandoned(engine: &Engine, state: &Path, running: &[String]) -> Vec<String> {
    let mut news = Vec::new();
    for layer in abandoned(state, running) {
        let Some(id) = layer.run() else { continue };
        let workspace = layer.workspace().display().to_string();
        if Entry::of(state, &id).is_none() {
            tracing::warn!("run {id} has no record any more, and its layer goes after it");
            remove(layer);
            continue;
        }
        let (merged, packed) = match survey::look_again(engine, &layer).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!("the layer of run {id} remains: {error}");
                continue;
            }
        };
        let began = layer.view().is_some();
        let copies = layer.copies().cloned();
        let (state, run) = (state.to_owned(), id.clone());
        let settling = move || settle(&state, &run, layer, (merged.as_ref(), None), &packed);
        let settled = spawn_blocking(settling).await;
        if let (Ok(Ok(_)), Some(copies)) = (&settled, copies)
            && let Err(error) = copies.remove(engine).await
        {
            tracing::warn!("files of run {id} remain on the engine: {error}");
        }
        match settled {
            Ok(Ok(closed)) if began => {
                let changes = count(closed.changes.files.len(), "change");
                let more = if closed.changes.truncated { " or more" } else { "" };
                let told = format!(
                    "run {id} was killed while it worked in a view of {workspace}; it left \
                     {changes}{more}, which `sandbox-mcp apply {id}` takes"
                );
                tracing::warn!("{told}");
                news.push(told);
                news.extend(closed.remarks);
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("the layer of run {id} remains: failed to {error}"),
            Err(error) => tracing::error!("the layer of run {id} remains: {error}"),
        }
    }
    news
}
