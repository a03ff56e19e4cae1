//! Putting back what applying the changes of a run has replaced.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Runner;
use super::commits;
use super::outcome::{OutcomeError, hold, wait};
use crate::history::{Entry, State};
use crate::ids::RunId;
use crate::workspace::FolderLock;
use crate::workspace::changeset::{
    self, Agreed, Blobs, Carried, Fate, Manifest, Request, forget_all, read_manifest, reversed,
};

/// What was put back.
#[derive(Clone, Debug, Serialize)]
pub struct Undone {
    pub run_id: RunId,
    pub workspace: String,
    /// What has become of the run's changes: they wait again, unless they were discarded.
    pub state: Option<&'static str>,
    /// Paths that are as they were before.
    pub restored: Vec<String>,
    /// Folders that the run made, and that stay because something else is in them.
    pub kept_folders: Vec<String>,
}

impl Runner {
    /// Puts back all that applying a run's changes has replaced, added or removed, or nothing.
    /// Blocking; `patience` bounds how long it waits for others.
    pub fn undo(&self, entry: &Entry, patience: Option<Duration>) -> Result<Undone, OutcomeError> {
        if entry.state() == State::Running {
            return Err(OutcomeError::Running(entry.id().clone()));
        }
        let deadline = patience.map(|patience| Instant::now() + patience);
        let _record = hold(entry, deadline)?;
        // What was applied may be about to be undone by itself.
        self.recover();
        let before = entry.before();
        let none = || OutcomeError::NotApplied(entry.id().clone());
        let Some((manifest, lost)) = reversed(&before)? else {
            // It can have made commits of what was there.
            let manifest = read_manifest(&entry.changes())?.ok_or_else(none)?;
            self.workspace_of(entry, &manifest)?.require_writable()?;
            return if commits::retreat(entry)? {
                undone(entry, &manifest, &Carried::default())
            } else {
                Err(none())
            };
        };
        if let Some(path) = lost.first() {
            let (run, path) = (entry.id().clone(), path.to_string());
            return Err(OutcomeError::NotKept { run, path });
        }
        let workspace = self.workspace_of(entry, &manifest)?;
        workspace.require_writable()?;
        let lock = wait(entry, deadline, || Ok(FolderLock::try_lock(&workspace)?))?;
        let request = Request {
            run: entry.id(),
            manifest: &manifest,
            blobs: &Blobs::new(&before),
            journals: &self.journals(),
            only: &[],
            protected: &[],
            umask: None,
            keep: None,
            // It was there before, and who undoes wants it back.
            agreed: &Agreed::Everything,
            partial: false,
            hold_checked: false,
            dry_run: false,
            commits: None,
        };
        // The branch first: it can be moved again should the files be in the way.
        let moved_back = commits::retreat(entry)?;
        let carried = changeset::apply(&workspace, &lock, &request);
        if carried.is_err() && moved_back {
            commits::restore(entry)?;
        }
        let carried = carried?;
        undone(entry, &manifest, &carried)
    }
}

/// Notes in the record that nothing is applied any more, and tells it.
fn undone(entry: &Entry, manifest: &Manifest, carried: &Carried) -> Result<Undone, OutcomeError> {
    let mut fate = Fate::read(&entry.applied())?;
    fate.undo();
    fate.write(&entry.applied())?;
    let before = entry.before();
    forget_all(&before).map_err(OutcomeError::io(&before))?;
    Ok(Undone {
        run_id: entry.id().clone(),
        workspace: manifest.workspace.display().to_string(),
        state: fate.word(),
        restored: manifest.shown(&carried.changed),
        kept_folders: carried.kept_folders.iter().map(ToString::to_string).collect(),
    })
}
