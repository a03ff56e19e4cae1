//! Carrying a result over into its workspace: all of what is asked for, or nothing.
//!
//! Everything is looked at before anything is touched: each path must be exactly what the run
//! found, or already what it left. Then all that is new is made ready in a private folder of the
//! workspace, so that from there on only names change. What is going to happen is written down in
//! the state folder, then done by renames that keep the old things in the private folder, then
//! marked as done, and only then are the old things removed. A failure on the way undoes it all.
//! So does [`recover`] after a crash before the mark; after it, [`recover`] removes the rest.

mod error;
mod fault;
mod journal;
mod plan;
mod stage;
mod swap;
#[cfg(test)]
mod tests;
mod trust;
#[cfg(test)]
mod trust_tests;

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, RenameFlags};
use rustix::io::Errno;

pub use error::{Agreed, ApplyError, Conflict, NeedsYes};

use self::journal::{Journal, Place, Step};
use self::plan::{Plan, select};
use self::stage::Stage;
use self::swap::{Swap, Undone};
use self::trust::{Trust, is_git};
use super::node::parent_of;
use super::{Blobs, Manifest, RelPath};
use crate::ids::RunId;
use crate::workspace::walk::{open_root, step};
use crate::workspace::{WorkspacePath, WriterLock};

/// What the private folder in a workspace is called, before the run's id.
pub const STAGING: &str = ".sandbox-mcp.apply-";
/// What it is called when there is something in it that nobody else has.
const KEPT: &str = ".sandbox-mcp.kept-";

/// What is to be carried over.
#[derive(Debug)]
pub struct Request<'a> {
    pub run: &'a RunId,
    pub manifest: &'a Manifest,
    pub blobs: &'a Blobs,
    /// The folder of journals, the same for all processes of this user.
    pub journals: &'a Path,
    /// Paths that are asked for; everything when empty.
    pub only: &'a [String],
    /// Configured places that need a yes.
    pub protected: &'a [String],
    /// Which of the changes that need a yes have one.
    pub agreed: &'a Agreed,
    /// Look, and change nothing.
    pub dry_run: bool,
}

/// What was carried over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What was changed, or would be.
    pub changed: Vec<RelPath>,
    /// What was already as the run left it.
    pub already: Vec<RelPath>,
    /// Folders that the run deleted, and that stay because something else is in them.
    pub kept_folders: Vec<RelPath>,
}

/// Carries changes over. Blocking.
pub fn apply(
    workspace: &WorkspacePath,
    lock: &WriterLock,
    request: &Request<'_>,
) -> Result<Carried, ApplyError> {
    if !lock.is_of(workspace) {
        return Err(ApplyError::NotLocked);
    }
    workspace.recheck().map_err(crate::workspace::GuardError::from)?;
    if !request.manifest.complete {
        return Err(ApplyError::Incomplete);
    }
    let root = open_root(workspace.path()).map_err(|errno| ApplyError::Io {
        what: "open",
        path: workspace.path().display().to_string(),
        source: errno.into(),
    })?;
    let root = root.as_fd();
    // What was opened must be what was looked at and locked.
    let opened = rustix::fs::fstat(root).ok().map(|stat| (stat.st_dev, stat.st_ino));
    if opened != Some(workspace.identity()) {
        workspace.recheck().map_err(crate::workspace::GuardError::from)?;
        return Err(ApplyError::NotLocked);
    }
    // Whoever held the lock before may have died within its work.
    for place in Place::all(request.journals) {
        if let Some((journal, done)) = place.read()?
            && journal.workspace == workspace.path()
        {
            settle(&place, &journal, done, root)?;
        }
    }
    let changes = select(request.manifest, request.only)?;
    if let Some(change) = changes.iter().find(|change| is_git(&change.path)) {
        return Err(ApplyError::Git(change.path.to_string()));
    }
    let plan = Plan::make(root, &changes)?;
    if !plan.conflicts.is_empty() {
        return Err(ApplyError::Conflicts(plan.conflicts));
    }
    let todo: Vec<_> = plan.todo.iter().map(|todo| todo.change).collect();
    if *request.agreed != Agreed::Everything && !todo.is_empty() {
        let needs = Trust::of(workspace, root, request.protected, &changes).needs(&todo);
        if !request.agreed.covers(&needs) {
            return Err(ApplyError::Protected(needs));
        }
    }
    let carried = Carried {
        changed: todo.iter().map(|change| change.path.clone()).collect(),
        already: plan.already.iter().map(|path| (*path).clone()).collect(),
        kept_folders: plan.kept.iter().map(|path| (*path).clone()).collect(),
    };
    if !request.dry_run && !plan.todo.is_empty() {
        carry(workspace, root, request, &plan)?;
    }
    Ok(carried)
}

fn carry(
    workspace: &WorkspacePath,
    root: BorrowedFd<'_>,
    request: &Request<'_>,
    plan: &Plan<'_>,
) -> Result<(), ApplyError> {
    let place = Place::new(request.journals, request.run);
    let inode = workspace.identity().1;
    let mut journal = Journal::new(workspace.path().to_owned(), inode, Vec::new());
    // Before the staging folder is there, so that it is never there without somebody knowing.
    place.write(&journal)?;
    let name = staging(request.run);
    let made = rustix::fs::mkdirat(root, &name, Mode::RWXU)
        .and_then(|()| step(root, OsStr::new(&name)))
        .map_err(|errno| ApplyError::Io {
            what: "make (move it away if it is not yours)",
            path: name,
            source: errno.into(),
        });
    let staging = match made {
        Ok(staging) => staging,
        Err(error) => {
            place.end()?;
            return Err(error);
        }
    };
    let result = Stage::new(staging.as_fd(), request.blobs, workspace.owner())
        .steps(plan)
        .and_then(|steps| {
            journal.steps = steps;
            rustix::fs::fsync(&staging).map_err(|errno| unsynced(errno.into()))?;
            place.write(&journal)?;
            let swap = Swap { root, staging: staging.as_fd() };
            journal.steps.iter().try_for_each(|step| swap.make(step))?;
            sync(root, &journal.steps)?;
            fault::point().map_err(unsynced)?;
            place.commit()?;
            Ok(())
        });
    match result {
        Ok(()) => {
            fault::crash_point();
            // All is done; what remains is rubbish, which the next one removes.
            if let Err(error) = settle(&place, &journal, true, root) {
                tracing::warn!("what was replaced remains in a workspace: failed to {error}");
            }
            Ok(())
        }
        Err(error) => match settle(&place, &journal, false, root) {
            Ok(_) => Err(error),
            Err(undoing) => Err(ApplyError::NotUndone {
                cause: Box::new(error),
                why: undoing.to_string(),
                staging: workspace.path().join(self::staging(request.run)),
            }),
        },
    }
}

fn staging(run: &RunId) -> String {
    format!("{STAGING}{run}")
}

fn unsynced(source: std::io::Error) -> ApplyError {
    ApplyError::Io { what: "write", path: "the changes".into(), source }
}

/// Makes the names of all that was done last.
fn sync(root: BorrowedFd<'_>, steps: &[Step]) -> Result<(), ApplyError> {
    let mut folders: Vec<_> =
        steps.iter().map(|step| (step.path().as_path().parent(), step)).collect();
    folders.sort_by_key(|(folder, _)| *folder);
    folders.dedup_by_key(|(folder, _)| *folder);
    for (_, step) in folders {
        match parent_of(root, step.path()) {
            Ok(folder) => rustix::fs::fsync(&folder).map_err(|errno| unsynced(errno.into()))?,
            // Removed by a later step, or shut by the run itself.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => {}
            Err(errno) => return Err(unsynced(errno.into())),
        }
    }
    Ok(())
}

/// Undoes what a journal tells, unless it was done to its end, and removes what is left of it.
/// Answers where something is kept that nobody else has.
fn settle(
    place: &Place,
    journal: &Journal,
    done: bool,
    root: BorrowedFd<'_>,
) -> Result<Option<String>, ApplyError> {
    let name = staging(place.run());
    let opened = match step(root, OsStr::new(&name)) {
        Ok(opened) => opened,
        Err(Errno::NOENT) => {
            place.end()?;
            return Ok(None);
        }
        Err(errno) => {
            return Err(ApplyError::Io { what: "open", path: name, source: errno.into() });
        }
    };
    let mut kept = false;
    if !done {
        let swap = Swap { root, staging: opened.as_fd() };
        let mut failed = None;
        // All are tried: each that succeeds is one thing less that is not in its place.
        for step in journal.steps.iter().rev() {
            match swap.undo(step) {
                Ok(undone) => kept |= undone == Undone::Kept,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        sync(root, &journal.steps)?;
        fault::crash_point();
    }
    let left = if kept {
        let left = format!("{KEPT}{}", place.run());
        rustix::fs::renameat_with(root, &name, root, &left, RenameFlags::NOREPLACE)
            .map_err(|errno| ApplyError::Io { what: "keep", path: name, source: errno.into() })?;
        Some(left)
    } else {
        if !done {
            // From here on there is nothing to undo, whatever gets the numbers of what is removed.
            // A name needs no room: what is undone may have failed because the disk is full.
            place.commit()?;
        }
        fault::crash_point();
        clear(root, &name, &opened).map_err(|errno| ApplyError::Io {
            what: "remove",
            path: name,
            source: errno.into(),
        })?;
        None
    };
    place.end()?;
    Ok(left)
}

fn clear(root: BorrowedFd<'_>, name: &str, opened: &OwnedFd) -> Result<(), Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(opened)? {
        names.push(entry?.file_name().to_owned());
    }
    for inner in names {
        let inner = OsStr::from_bytes(inner.to_bytes());
        if inner == "." || inner == ".." {
            continue;
        }
        match rustix::fs::unlinkat(opened, inner, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                rustix::fs::unlinkat(opened, inner, AtFlags::REMOVEDIR)?;
            }
            gone => gone?,
        }
        fault::crash_point();
    }
    rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR)
}

/// What became of applications that were interrupted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// What a person should know.
    pub told: Vec<String>,
    /// Workspaces in which something remains to be done: somebody else writes there, or it failed.
    pub pending: Vec<PathBuf>,
}

/// Whether an application in this workspace, above it or below it goes on or was interrupted.
/// Nothing but a look into one folder, which is empty nearly always.
pub fn is_unsettled(journals: &Path, workspace: &Path) -> bool {
    Place::all(journals).iter().any(|place| match place.read() {
        Ok(Some((journal, _))) => {
            journal.workspace.starts_with(workspace) || workspace.starts_with(&journal.workspace)
        }
        _ => false,
    })
}

/// Undoes or finishes what dead processes left. Those that live hold the lock of their workspace,
/// and are left alone. Blocking.
pub fn recover(journals: &Path, locks: &Path) -> Recovered {
    let mut recovered = Recovered::default();
    for place in Place::all(journals) {
        let run = place.run().clone();
        match recover_one(&place, locks) {
            Ok(Outcome::Nothing) => {}
            Ok(Outcome::Busy(workspace)) => recovered.pending.push(workspace),
            Ok(Outcome::Told(told)) => {
                tracing::warn!("{told}");
                recovered.told.push(told);
            }
            Err((workspace, error)) => {
                let told = format!(
                    "applying the changes of run {run} was interrupted, and what it left could \
                     not be settled: failed to {error}"
                );
                tracing::warn!("{told}");
                recovered.told.push(told);
                recovered.pending.extend(workspace);
            }
        }
    }
    recovered
}

enum Outcome {
    Nothing,
    Busy(PathBuf),
    Told(String),
}

fn recover_one(place: &Place, locks: &Path) -> Result<Outcome, (Option<PathBuf>, ApplyError)> {
    let Some((journal, _)) = place.read().map_err(|error| (None, error.into()))? else {
        return Ok(Outcome::Nothing);
    };
    let workspace = journal.workspace;
    let at = |error: ApplyError| (Some(workspace.clone()), error);
    let run = place.run();
    let root = open_root(&workspace);
    if let Err(Errno::NOENT) = root {
        // Its disk may come back. Nothing there can be wrong before that.
        tracing::debug!("the workspace {} of run {run} is not there", workspace.display());
        return Ok(Outcome::Nothing);
    }
    let stat = root.as_ref().ok().and_then(|root| rustix::fs::fstat(root).ok());
    let (Ok(root), Some(stat)) = (root, stat.filter(|stat| stat.st_ino == journal.inode)) else {
        // Nobody will ever find it there again, so it is told once.
        place.end().map_err(|error| at(error.into()))?;
        return Ok(Outcome::Told(format!(
            "applying the changes of run {run} was interrupted, and its workspace {} is gone or \
             another one now; what was replaced is in the folder {} of the old one",
            workspace.display(),
            staging(run)
        )));
    };
    let lock = WriterLock::try_folder(locks, &workspace, (stat.st_dev, stat.st_ino));
    let Some(_lock) = lock.map_err(|error| at(error.into()))? else {
        return Ok(Outcome::Busy(workspace));
    };
    // Whoever held the lock may have ended well meanwhile.
    let Some((journal, done)) = place.read().map_err(|error| at(error.into()))? else {
        return Ok(Outcome::Nothing);
    };
    let kept = settle(place, &journal, done, root.as_fd()).map_err(at)?;
    if done {
        return Ok(Outcome::Nothing);
    }
    let kept = kept
        .map(|name| format!("; files that were edited meanwhile are in its folder {name}"))
        .unwrap_or_default();
    Ok(Outcome::Told(format!(
        "applying the changes of run {run} to {} was interrupted; it was undone{kept}",
        workspace.display()
    )))
}
