//! What is done about applications whose processes died.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::carry::{Kept, follow, settle};
use super::folders::{Folders, Identity};
use super::journal::{Journal, Place};
use super::{ApplyError, KEPT, staging};
use crate::files::try_lock;
use crate::workspace::walk::{open_root, step};

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
pub fn recover(journals: &Path) -> Recovered {
    let mut recovered = Recovered::default();
    for place in Place::all(journals) {
        let run = place.run().clone();
        match recover_one(&place) {
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

fn recover_one(place: &Place) -> Result<Outcome, (Option<PathBuf>, ApplyError)> {
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
    let (Ok(root), Some(_)) = (root, stat.filter(|stat| stat.st_ino == journal.inode)) else {
        // Nobody will ever find it there again, so it is told once.
        place.end().map_err(|error| at(error.into()))?;
        return Ok(Outcome::Told(format!(
            "applying the changes of run {run} was interrupted, and its workspace {} is gone or \
             another one now; what was replaced is in the folder {} of the old one",
            workspace.display(),
            staging(run)
        )));
    };
    let busy = || Ok(Outcome::Busy(workspace.clone()));
    let locked = try_lock(&root, FlockOperation::NonBlockingLockExclusive);
    let source =
        |source| ApplyError::Io { what: "lock", path: workspace.display().to_string(), source };
    if !locked.map_err(|error| at(source(error)))? {
        return busy();
    }
    // Whoever held the lock may have ended well meanwhile.
    let Some((journal, done)) = place.read().map_err(|error| at(error.into()))? else {
        return Ok(Outcome::Nothing);
    };
    let kept = settle_found(place, &journal, done, root.as_fd()).map_err(at)?;
    if done {
        return Ok(Outcome::Nothing);
    }
    let ended = match kept {
        Found::Whole => "it was undone".to_owned(),
        Found::Kept(Kept { name, why }) => {
            format!("it was undone, but {why}: what that concerns is in its folder {name}")
        }
        Found::Lost => format!(
            "its folder {} is gone, so what had been replaced could not be put back",
            staging(run)
        ),
    };
    Ok(Outcome::Told(format!(
        "applying the changes of run {run} to {} was interrupted; {ended}",
        workspace.display()
    )))
}

/// How an interrupted application was settled.
pub(super) enum Found {
    Whole,
    Kept(Kept),
    /// Somebody removed the staging folder, and the old things with it.
    Lost,
}

/// Settles what a journal of a dead process tells.
pub(super) fn settle_found(
    place: &Place,
    journal: &Journal,
    done: bool,
    root: BorrowedFd<'_>,
) -> Result<Found, ApplyError> {
    let name = staging(place.run());
    let opened = match step(root, OsStr::new(&name)) {
        Ok(opened) => Some(opened),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
        Err(errno) => {
            return Err(ApplyError::Io { what: "open", path: name, source: errno.into() });
        }
    };
    let ours =
        opened.filter(|opened| journal.staging.is_none_or(|is| Identity::of(opened) == Ok(is)));
    let Some(opened) = ours else {
        let name = format!("{KEPT}{}", place.run());
        let kept = step(root, OsStr::new(&name)).and_then(Identity::of).ok();
        if done {
            follow(journal);
        }
        place.end()?;
        return Ok(if done || journal.steps.is_empty() {
            Found::Whole
        } else if kept.is_some() && kept == journal.staging {
            // An undoing was killed when it had come so far.
            Found::Kept(Kept { name, why: "not all is as it was before".to_owned() })
        } else {
            Found::Lost
        });
    };
    let mut folders = Folders::recalled(root, &journal.folders);
    let kept = settle(place, journal, done, root, opened.as_fd(), &mut folders)?;
    Ok(kept.map_or(Found::Whole, Found::Kept))
}
