//! Changes that earlier runs of a session left waiting: the next one starts from them, and its result
//! has both.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::Error;
use super::commits;
use super::outcome::{OutcomeError, changes_of, hold, wait};
use super::shared::Shared;
use super::story::Story;
use super::task::Checked;
use crate::agent::opencode::SETTINGS;
use crate::history::Entry;
use crate::ids::RunId;
use crate::session::Held;
use crate::text::count;
use crate::workspace::changeset::{
    self, Agreed, Alteration, Blobs, Fate, Live, Manifest, Request, read_manifest,
};
use crate::workspace::git::Brought;
use crate::workspace::layer::Layer;
use crate::workspace::{FolderLock, WorkspacePath};

/// Longest wait for another program that applies changes to the workspace.
const TURN: Duration = Duration::from_secs(10);

/// Changes of an earlier run that the workspace does not have and could get.
#[derive(Debug)]
pub struct Earlier {
    run: RunId,
    changes: Vec<Alteration>,
    blobs: Blobs,
    /// The number of those that cannot be had any more, and of those that an agent must not have.
    lost: usize,
    hidden: usize,
    /// Commits that wait for these changes; none where the view lacks some of them.
    commits: Vec<Brought>,
}

/// Returns what the last run of the session left waiting, if a run goes on with one.
pub async fn find(
    shared: &Arc<Shared>,
    task: &Checked,
    held: Option<&Held>,
    story: &mut Story,
) -> Result<Option<Earlier>, Error> {
    let Some(held) = held else { return Ok(None) };
    let runs: Vec<RunId> = held.earlier().cloned().collect();
    let (shared, workspace) = (shared.clone(), task.workspace.clone());
    let finding = move || {
        for run in runs {
            let Some(entry) = Entry::of(&shared.state, &run) else { continue };
            let manifest = match changes_of(&entry) {
                Ok(manifest) => manifest,
                // It had those of the runs before it in its own result.
                Err(OutcomeError::Discarded(_)) => return Ok(None),
                Err(OutcomeError::Unchanged(_)) if began_with_others(&entry)? => return Ok(None),
                Err(
                    OutcomeError::Unchanged(_)
                    | OutcomeError::ReadOnly(_)
                    | OutcomeError::NoList(_)
                    | OutcomeError::Running(_),
                ) => continue,
                Err(error) => return Err(error),
            };
            if manifest.workspace != workspace.path() {
                return Ok(None);
            }
            let manifest = Live::read(&entry.live())?.met(manifest);
            let fate = Fate::read(&entry.applied())?;
            let done: HashSet<_> = fate.applied.iter().flat_map(|one| &one.paths).collect();
            let deadline = Some(Instant::now() + TURN);
            let lock = wait(&entry, deadline, || Ok(FolderLock::try_lock(&workspace)?))?;
            let blobs = Blobs::new(entry.blobs());
            let request = Request {
                run: &run,
                manifest: &manifest,
                blobs: &blobs,
                journals: &shared.journals(),
                only: &[],
                protected: &[],
                umask: None,
                keep: None,
                // It is judged when it is applied.
                agreed: &Agreed::Everything,
                partial: true,
                hold_checked: false,
                dry_run: true,
                commits: None,
            };
            let could = changeset::apply(&workspace, &lock, &request)?;
            let done: HashSet<_> = done.into_iter().chain(&could.already).collect();
            let could: HashSet<_> = could.changed.iter().collect();
            let waiting = manifest.changes.iter().filter(|change| !done.contains(&change.path));
            // Like the workspace's own they could run code at the agent's start.
            let is_hidden = |change: &&Alteration| {
                SETTINGS.iter().any(|place| change.path.as_path().starts_with(place))
            };
            let (hidden, others): (Vec<_>, Vec<_>) = waiting.partition(is_hidden);
            let (changes, lost): (Vec<_>, Vec<_>) =
                others.into_iter().cloned().partition(|change| could.contains(&change.path));
            let (lost, hidden) = (lost.len(), hidden.len());
            let mut commits = commits::read(&entry)?;
            commits.retain(|one| lost + hidden == 0 && one.is_pending());
            return Ok(Some(Earlier { run, changes, blobs, lost, hidden, commits }));
        }
        Ok(None)
    };
    let found: Result<_, OutcomeError> =
        spawn_blocking(finding).await.map_err(|_| Error::Looking)?;
    let found = found.map_err(|error| Error::Earlier(error.to_string()))?;
    let waits = |found: &Earlier| {
        !found.changes.is_empty() || !found.commits.is_empty() || found.lost + found.hidden > 0
    };
    let Some(earlier) = found.filter(waits) else { return Ok(None) };
    let Earlier { run, changes, lost, hidden, commits, .. } = &earlier;
    if !task.has_view() {
        story.remark(&format!(
            "changes of run {run} wait, and this run reads the folder without them; \
             `sandbox-mcp apply {run}` takes them"
        ));
        return Ok(None);
    }
    if *lost > 0 {
        story.remark(&format!(
            "{lost} of the changes that run {run} left waiting are not in this run's view, because \
             the workspace has changed there; `sandbox-mcp diff {run}` has them"
        ));
    }
    if *hidden > 0 {
        story.remark(&format!(
            "{hidden} of the changes that run {run} left waiting are hidden from the agent: they could \
             run code at its start; `sandbox-mcp diff {run}` has them"
        ));
    }
    if changes.is_empty() && commits.is_empty() {
        return Ok(None);
    }
    story.remark(&format!(
        "this run began with {} that run {run} left waiting, and its result has all of it too",
        count(changes.len(), "change")
    ));
    Ok(Some(earlier))
}

/// Returns true for a run whose view began with the changes of another one.
fn began_with_others(entry: &Entry) -> Result<bool, OutcomeError> {
    let manifest = read_manifest(&entry.changes())?;
    Ok(manifest.is_some_and(|manifest| manifest.earlier.is_some()))
}

impl Earlier {
    /// Commits that the copies of the git directories begin with.
    pub fn commits(&self) -> &[Brought] {
        &self.commits
    }

    /// Makes the changes in the view of a run that is about to begin.
    pub async fn seed(
        self: &Arc<Self>,
        layer: &mut Option<Layer>,
        workspace: &WorkspacePath,
    ) -> Result<(), Error> {
        let Some(mut taken) = layer.take() else { unreachable!("a run with a view has a layer") };
        let (earlier, workspace) = (self.clone(), workspace.clone());
        let seeding = spawn_blocking(move || {
            let Earlier { run, changes, blobs, .. } = &*earlier;
            let seeded = taken.seed(&workspace, (run, changes), blobs);
            (taken, seeded)
        });
        let (taken, seeded) = seeding.await.map_err(|_| Error::Looking)?;
        *layer = Some(taken);
        seeded.map_err(|error| Error::Earlier(error.to_string()))
    }
}

/// Notes in the record of the earlier run that `by` has its changes in its own result. Blocking.
pub fn note(state: &Path, manifest: &Manifest, by: &RunId) {
    let earlier = manifest.earlier.as_ref().and_then(|run| Entry::of(state, run));
    let Some(entry) = earlier else { return };
    let noted = hold(&entry, Some(Instant::now() + TURN)).and_then(|_held| {
        let mut fate = Fate::read(&entry.applied())?;
        fate.continued_by = Some(by.clone());
        Ok(fate.write(&entry.applied())?)
    });
    if let Err(error) = noted {
        tracing::warn!("run {} is not noted as continued: {error}", entry.id());
    }
}
