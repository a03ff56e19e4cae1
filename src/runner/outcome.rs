//! What becomes of a run's changes after it: looking at them, carrying them over, letting them go.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use serde::Serialize;

mod changes;
mod error;

pub use changes::{changes_now, changes_of, patch_of};
pub use error::OutcomeError;

use super::Runner;
use super::commits;
use super::live;
use super::shared::Shared;
use crate::config::{Config, Sandbox, load_at};
use crate::files::try_lock;
use crate::history::{Entry, State};
use crate::ids::RunId;
use crate::workspace::changeset::{
    self, Agreed, Blobs, Carried, Conflict, Fate, Keep, Live, Manifest, NeedsYes, Obeyed, RelPath,
    Request,
};
use crate::workspace::{Commits, FolderLock, WorkspacePath};

/// How often somebody else's lock is asked for.
const ASK: Duration = Duration::from_millis(100);

/// What is to be carried over, and how.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// Paths; everything when empty.
    pub only: Vec<String>,
    /// Paths that get the run's version, whatever is there by now.
    pub take: Vec<String>,
    /// What tools on the host trust may be changed only as far as this goes.
    pub agreed: Agreed,
    /// Leave out what cannot be carried over, instead of doing nothing.
    pub partial: bool,
    /// Leave waiting what the caller's check changed after the agent.
    pub hold_checked: bool,
    /// Look, and change nothing.
    pub dry_run: bool,
    /// How long to wait for others that write to the workspace; for ever when absent.
    pub wait: Option<Duration>,
}

/// What was carried over.
#[derive(Clone, Debug, Serialize)]
pub struct Applied {
    pub run_id: RunId,
    pub workspace: String,
    /// `applied` or `partly_applied`; of a dry run nothing.
    pub state: Option<&'static str>,
    pub dry_run: bool,
    /// Each with what happened to it.
    pub changed: Vec<(&'static str, String)>,
    /// How many paths were as the run left them.
    pub already: usize,
    /// Folders that the run deleted, and that stay because something else is in them.
    pub kept_folders: Vec<String>,
    /// Files with further names (hard links), which keep the old content.
    pub linked: Vec<String>,
    /// Files that a container or somebody else has mounted by themselves, where the old content stays.
    pub mounted: Vec<String>,
    /// What agents and shells on the host will follow from now on, and why.
    pub obeyed: Vec<Obeyed>,
    /// Files whose old content is too much to be kept: then this cannot be undone.
    pub not_undoable: Vec<String>,
    /// Paths that were left out, because of what follows.
    pub pending: Vec<String>,
    /// Those of them that tools on the host trust.
    pub protected: Vec<NeedsYes>,
    /// Those of them that are not as the run found them, or that failed.
    pub conflicts: Vec<Conflict>,
    /// Commits of the run, and whether the branch has them.
    pub commits: Option<Commits>,
    /// Remarks for a person, such as why a branch stays.
    pub remarks: Vec<String>,
}

/// What was let go.
#[derive(Clone, Debug, Serialize)]
pub struct Discarded {
    pub run_id: RunId,
    /// False when there was nothing any more.
    pub discarded: bool,
    /// What became of the changes in the end.
    pub state: Option<&'static str>,
    /// Other runs of the session that have some of these changes still.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// The changes of a run to carry over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Changes<'a> {
    pub manifest: &'a Manifest,
    pub blobs: &'a Blobs,
    /// False while the run goes on and may change more.
    pub is_final: bool,
}

impl Runner {
    /// Where it is written what is being carried over.
    pub(super) fn journals(&self) -> std::path::PathBuf {
        self.shared().journals()
    }

    /// Undoes or finishes what processes that died left half carried over. Blocking.
    pub fn recover(&self) -> changeset::Recovered {
        changeset::recover(&self.journals())
    }

    /// Carries the changes of a run over into its workspace: all that is asked for, or nothing.
    /// Blocking; `told` hears what it waits for.
    pub fn apply(
        &self,
        entry: &Entry,
        options: &ApplyOptions,
        mut told: impl FnMut(&str),
    ) -> Result<Applied, OutcomeError> {
        if entry.state() == State::Running {
            return live::apply(self, entry, options, &mut told);
        }
        let manifest = changes_of(entry)?;
        let (workspace, config) = self.target(entry, &manifest)?;
        let shared = self.shared();
        carry_over(shared, entry, (&manifest, &workspace), &config, options, &mut told)
    }

    /// Returns the workspace that a run's changes go to, and the settings in force there.
    pub(super) fn target(
        &self,
        entry: &Entry,
        manifest: &Manifest,
    ) -> Result<(WorkspacePath, Arc<Config>), OutcomeError> {
        let workspace = self.workspace_of(entry, manifest)?;
        workspace.require_writable()?;
        let shared = self.shared();
        let project = load_at(&shared.options, workspace.path(), &shared.trust)?;
        let config = project.map_or_else(|| shared.config.clone(), |found| Arc::new(found.config));
        Ok((workspace, config))
    }

    /// Lets the changes of a run go. Twice is once. Blocking.
    pub fn discard(&self, entry: &Entry) -> Result<Discarded, OutcomeError> {
        let manifest = match changes_of(entry) {
            Ok(manifest) => Some(manifest),
            // A process can have died between saying so and doing it.
            Err(OutcomeError::Discarded(_)) => None,
            Err(error) => return Err(error),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let _record = hold(entry, Some(deadline))?;
        let mut fate = Fate::read(&entry.applied())?;
        fate.discard();
        fate.write(&entry.applied())?;
        commits::forget(entry)?;
        for path in [entry.changes(), entry.patch()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(OutcomeError::io(&path)(error));
                }
                _ => {}
            }
        }
        for contents in [entry.blobs(), entry.look()] {
            match fs::remove_dir_all(&contents) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(OutcomeError::io(&contents)(error));
                }
                _ => {}
            }
        }
        let still = |run: &RunId| {
            format!("`sandbox-mcp discard {run}` lets go of those that run {run} has as well")
        };
        let earlier = manifest.as_ref().and_then(|manifest| manifest.earlier.as_ref());
        Ok(Discarded {
            run_id: entry.id().clone(),
            discarded: manifest.is_some(),
            state: fate.word(),
            remarks: fate.continued_by.as_ref().into_iter().chain(earlier).map(still).collect(),
        })
    }

    /// The workspace of a run, if it is still the folder that it was and this program's to touch.
    pub fn workspace_of(
        &self,
        entry: &Entry,
        manifest: &Manifest,
    ) -> Result<WorkspacePath, OutcomeError> {
        let workspace = self.workspace(Some(&manifest.workspace))?;
        if workspace.path() != manifest.workspace {
            return Err(OutcomeError::Moved {
                run: entry.id().clone(),
                path: crate::text::one_line(&manifest.workspace.to_string_lossy(), 300),
            });
        }
        Ok(workspace)
    }
}

/// Carries changes over, while no other process decides on them or writes to the workspace.
pub(super) fn carry_over(
    shared: &Shared,
    entry: &Entry,
    (manifest, workspace): (&Manifest, &WorkspacePath),
    config: &Config,
    options: &ApplyOptions,
    told: &mut dyn FnMut(&str),
) -> Result<Applied, OutcomeError> {
    let deadline = options.wait.map(|wait| Instant::now() + wait);
    let _record = hold(entry, deadline)?;
    let changes = Changes { manifest, blobs: &Blobs::new(entry.blobs()), is_final: true };
    carry_held(shared, entry, (changes, workspace), config, options, told)
}

/// The same where the record is held already.
pub(super) fn carry_held(
    shared: &Shared,
    entry: &Entry,
    (changes, workspace): (Changes<'_>, &WorkspacePath),
    config: &Config,
    options: &ApplyOptions,
    told: &mut dyn FnMut(&str),
) -> Result<Applied, OutcomeError> {
    let deadline = options.wait.map(|wait| Instant::now() + wait);
    // Another process may have discarded it meanwhile.
    if Fate::read(&entry.applied())?.discarded_at.is_some() {
        return Err(OutcomeError::Discarded(entry.id().clone()));
    }
    let journals = shared.journals();
    for before in changeset::recover(&journals).told {
        told(&before);
    }
    let mut said = false;
    let lock = wait(entry, deadline, || {
        let lock = FolderLock::try_lock(workspace)?;
        if lock.is_none() && !std::mem::replace(&mut said, true) {
            told("waiting for another program that has a lock on this folder");
        }
        Ok(lock)
    })?;
    let Changes { manifest, blobs, is_final } = changes;
    if !is_final && entry.state() != State::Running {
        let why = "it has ended meanwhile; apply again".to_owned();
        return Err(OutcomeError::NotSeen { run: entry.id().clone(), why });
    }
    let met = Live::read(&entry.live())?.met(manifest.clone());
    let mut met = changeset::taken(workspace, met, &options.take)?;
    let mut merged = Vec::new();
    if is_final {
        (met, merged) = changeset::merged(workspace, met, blobs)?;
    } else if !options.dry_run {
        Live::add(&entry.live(), &met)?;
    }
    let agreed = options.agreed == Agreed::Everything;
    let protected = &config.workspace.protected;
    let mut remarks = Vec::new();
    let moves = is_final && !options.dry_run;
    if moves {
        remarks = commits::intend(entry, workspace, protected, agreed)?;
    }
    let request = Request {
        run: entry.id(),
        manifest: &met,
        blobs,
        journals: &journals,
        only: &options.only,
        protected,
        umask: unset_umask(config),
        keep: Some(Keep { folder: &entry.before(), bytes: config.history.max_bytes.bytes() / 2 }),
        agreed: &options.agreed,
        partial: options.partial,
        hold_checked: options.hold_checked,
        dry_run: options.dry_run,
        commits: moves.then(|| entry.commits()),
    };
    let carried = changeset::apply(workspace, &lock, &request);
    if carried.is_err() && moves {
        commits::advance(entry, false)?;
    }
    let carried = carried?;
    let mut applied = noted(entry, (&met, &merged), (workspace, is_final), options, carried);
    let is_whole = applied.pending.is_empty() && options.only.is_empty();
    if is_final {
        let is_whole = is_whole || applied.state == Some("applied");
        let (told, more) = commits::advance(entry, is_whole)?;
        applied.commits = told;
        applied.remarks = if is_whole { [remarks, more].concat() } else { Vec::new() };
    }
    Ok(applied)
}

/// Keeps others from the changes of a run, over all processes.
pub(super) fn hold(entry: &Entry, deadline: Option<Instant>) -> Result<File, OutcomeError> {
    let folder = File::open(entry.folder()).map_err(OutcomeError::io(entry.folder()))?;
    wait(entry, deadline, || {
        let locked = try_lock(&folder, FlockOperation::NonBlockingLockExclusive);
        locked.map(|locked| locked.then_some(())).map_err(OutcomeError::io(entry.folder()))
    })?;
    Ok(folder)
}

pub(super) fn wait<T>(
    entry: &Entry,
    deadline: Option<Instant>,
    mut ask: impl FnMut() -> Result<Option<T>, OutcomeError>,
) -> Result<T, OutcomeError> {
    loop {
        if let Some(got) = ask()? {
            return Ok(got);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(OutcomeError::Busy(entry.id().clone()));
        }
        std::thread::sleep(ASK);
    }
}

/// The mask that runs have where the settings name no other.
fn unset_umask(config: &Config) -> Option<u32> {
    let usual = Sandbox::default().umask;
    (config.sandbox.umask == usual).then(|| u32::from_str_radix(&usual, 8).ok()).flatten()
}

/// Notes in the record what was carried over, and tells it.
fn noted(
    entry: &Entry,
    (manifest, merged): (&Manifest, &[RelPath]),
    (workspace, is_final): (&WorkspacePath, bool),
    options: &ApplyOptions,
    carried: Carried,
) -> Applied {
    let words = manifest.changes.iter().map(|change| (change.path.to_string(), change.word()));
    let made = manifest.repositories.iter().map(|made| (made.shown(), "added"));
    let merged = merged.iter().map(|path| (path.to_string(), "merged"));
    let words: HashMap<_, _> = words.chain(made).chain(merged).collect();
    let changed = manifest.shown(&carried.changed).into_iter();
    let changed = changed.map(|path| (words.get(&path).copied().unwrap_or(""), path));
    let mut applied = Applied {
        run_id: entry.id().clone(),
        workspace: workspace.path().display().to_string(),
        state: None,
        dry_run: options.dry_run,
        changed: changed.collect(),
        already: carried.already.len(),
        kept_folders: carried.kept_folders.iter().map(ToString::to_string).collect(),
        linked: carried.linked.iter().map(ToString::to_string).collect(),
        mounted: carried.mounted.iter().map(ToString::to_string).collect(),
        obeyed: carried.obeyed,
        not_undoable: carried.beyond.iter().map(ToString::to_string).collect(),
        pending: manifest.shown(&carried.pending),
        protected: carried.protected,
        conflicts: carried.conflicts,
        commits: None,
        remarks: Vec::new(),
    };
    if options.dry_run {
        return applied;
    }
    let paths = [carried.changed, carried.already, carried.kept_folders].concat();
    let mut fate = Fate::read(&entry.applied()).unwrap_or_default();
    fate.apply(manifest, paths);
    fate.whole &= is_final;
    applied.state = fate.word();
    if let Err(error) = fate.write(&entry.applied()) {
        // The work is done; only the record does not know, and the next time tells it.
        tracing::warn!("failed to {error}");
    }
    applied
}
