//! Carrying out a plan, and settling what became of it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, Mode, RenameFlags};
use rustix::io::Errno;

use super::folders::{Folders, Identity};
use super::journal::{Journal, Place};
use super::plan::Plan;
use super::stage::Stage;
use super::swap::{Swap, Undone, busy, mark};
use super::{ApplyError, KEPT, Request, fault, staging, undo};
use crate::workspace::WorkspacePath;
use crate::workspace::git;
use crate::workspace::walk::step;

/// What stays in a workspace after an undoing, because nobody else has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Of the folder that it is in.
    pub name: String,
    /// Why that is, in words.
    pub why: String,
}

/// More new contents than are written to the disk one by one.
const MANY: usize = 100;

pub(super) fn carry(
    workspace: &WorkspacePath,
    root: BorrowedFd<'_>,
    (request, commits): (&Request<'_>, Option<PathBuf>),
    plan: &Plan<'_>,
    folders: &mut Folders<'_>,
) -> Result<(), ApplyError> {
    let place = Place::new(request.journals, request.run);
    let mut journal = Journal::new(workspace.path().to_owned(), workspace.identity().1);
    let opened = begin(&place, &journal, root)?;
    let opened = opened.as_fd();
    let made = &*request.manifest.repositories;
    let beyond = request.keep.map(|keep| undo::beyond(plan, keep)).unwrap_or_default();
    let done = prepare(workspace, request, plan, folders, opened)
        .and_then(|prepared| {
            journal = prepared;
            journal.commits = commits;
            if let Some(keep) = request.keep {
                undo::copy_across(plan, keep, &beyond, folders)?;
                journal.undo = Some(undo::next(keep.folder));
            }
            place.write(&journal)?;
            change(&journal, folders, opened)?;
            match &journal.undo {
                Some(list) => undo::note(workspace.path(), (plan, made), list, beyond, folders),
                None => Ok(()),
            }
        })
        .and_then(|()| Ok(place.commit()?));
    if done.is_ok() {
        fault::crash_point();
    }
    let settled = settle(&place, &journal, done.is_ok(), root, opened, folders);
    match (done, settled) {
        (Ok(()), Ok(_)) => Ok(()),
        // All is done; what remains is rubbish, which the next one removes.
        (Ok(()), Err(error)) => {
            tracing::warn!("what was replaced remains in a workspace: failed to {error}");
            Ok(())
        }
        (Err(error), Ok(None)) => Err(error),
        (Err(error), Ok(Some(Kept { name, why }))) => {
            let staging = workspace.path().join(name);
            Err(ApplyError::NotUndone { cause: Box::new(error), why, staging })
        }
        (Err(error), Err(undoing)) => Err(ApplyError::NotUndone {
            cause: Box::new(error),
            why: undoing.to_string(),
            staging: workspace.path().join(staging(request.run)),
        }),
    }
}

/// Makes the staging folder, and says before that it is ours.
fn begin(place: &Place, journal: &Journal, root: BorrowedFd<'_>) -> Result<OwnedFd, ApplyError> {
    let name = staging(place.run());
    let failed = |source| ApplyError::Io {
        what: "make (move it away if it is not yours)",
        path: name.clone(),
        source,
    };
    // What a journal tells of is removed after a crash.
    if mark(root, OsStr::new(&name)).map_err(failed)?.is_some() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    place.write(journal)?;
    let made =
        rustix::fs::mkdirat(root, &name, Mode::RWXU).and_then(|()| step(root, OsStr::new(&name)));
    if made.is_err() {
        place.end()?;
    }
    made.map_err(|errno| failed(errno.into()))
}

/// Makes everything new ready, and says what is going to happen.
fn prepare(
    workspace: &WorkspacePath,
    request: &Request<'_>,
    plan: &Plan<'_>,
    folders: &mut Folders<'_>,
    staging: BorrowedFd<'_>,
) -> Result<Journal, ApplyError> {
    let (blobs, owner) = (request.blobs, workspace.owner());
    let (umask, sync) = (request.umask, plan.todo.len() <= MANY);
    let steps = Stage { staging, blobs, owner, folders, slots: 0, umask, sync }.steps(plan)?;
    let synced = if sync { rustix::fs::fsync(staging) } else { rustix::fs::syncfs(staging) };
    synced.map_err(unsynced)?;
    let mut journal = Journal::new(workspace.path().to_owned(), workspace.identity().1);
    journal.staging = Some(Identity::of(staging).map_err(unsynced)?);
    journal.folders = folders.marks();
    journal.steps = steps;
    Ok(journal)
}

fn change(
    journal: &Journal,
    folders: &mut Folders<'_>,
    staging: BorrowedFd<'_>,
) -> Result<(), ApplyError> {
    let mut swap = Swap { folders, staging };
    journal.steps.iter().try_for_each(|step| swap.make(step))?;
    folders.sync().map_err(unsynced)?;
    fault::point().map_err(unsynced_io)?;
    // Last of all: what was changed must be where it is looked for.
    match folders.strayed() {
        None => Ok(()),
        Some(path) => {
            let path = path.display().to_string();
            Err(ApplyError::Io { what: "change", path, source: busy() })
        }
    }
}

fn unsynced(errno: Errno) -> ApplyError {
    unsynced_io(errno.into())
}

fn unsynced_io(source: io::Error) -> ApplyError {
    ApplyError::Io { what: "write", path: "the changes".into(), source }
}

/// Undoes what a journal tells, unless it was done to its end, and removes what is left of it.
pub(super) fn settle(
    place: &Place,
    journal: &Journal,
    done: bool,
    root: BorrowedFd<'_>,
    opened: BorrowedFd<'_>,
    folders: &mut Folders<'_>,
) -> Result<Option<Kept>, ApplyError> {
    let name = staging(place.run());
    let why = if done {
        // It is done all the same.
        if let Err(error) = undo::kept(journal, opened) {
            tracing::warn!("what was replaced cannot be put back any more: {error}");
        }
        fault::crash_point();
        follow(journal);
        None
    } else {
        undo::forget(journal);
        stay(journal);
        undo(journal, folders, opened)?
    };
    if let Some(why) = why {
        let left = format!("{KEPT}{}", place.run());
        rustix::fs::renameat_with(root, &name, root, &left, RenameFlags::NOREPLACE)
            .map_err(|errno| ApplyError::Io { what: "keep", path: name, source: errno.into() })?;
        place.end()?;
        return Ok(Some(Kept { name: left, why }));
    }
    if !done {
        // From here on there is nothing to undo, whatever gets the numbers of what is removed.
        // A name needs no room: what is undone may have failed because the disk is full.
        place.commit()?;
    }
    fault::crash_point();
    clear(root, &name, opened).map_err(|errno| ApplyError::Io {
        what: "remove",
        path: name,
        source: errno.into(),
    })?;
    place.end()?;
    Ok(None)
}

/// Moves the branches that are to follow, when all files are in their places.
pub(super) fn follow(journal: &Journal) {
    let followed = journal.commits.as_deref().map(git::follow);
    if let Some(Err(error)) = followed {
        tracing::warn!("the branches of a run stay where they are: {error}");
    }
}

fn stay(journal: &Journal) {
    if let Some(Err(error)) = journal.commits.as_deref().map(git::stay) {
        tracing::warn!("{error}");
    }
}

/// Most paths that are named of those that could not be put back.
const NAMED: usize = 3;

/// Puts everything back; answers why something could not be, if that is so for good.
fn undo(
    journal: &Journal,
    folders: &mut Folders<'_>,
    staging: BorrowedFd<'_>,
) -> Result<Option<String>, ApplyError> {
    let mut swap = Swap { folders, staging };
    let (mut kept, mut failed) = (Vec::new(), None);
    // All are tried: each that succeeds is one thing less that is not in its place.
    for step in journal.steps.iter().rev() {
        match swap.undo(step) {
            Ok(Undone::Wholly) => {}
            Ok(Undone::Kept) => {
                kept.push(format!("`{}` was edited or moved meanwhile", step.path()));
            }
            Ok(Undone::Gone) => kept.push(format!("the folder of `{}` is gone", step.path())),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    folders.sync().map_err(unsynced)?;
    fault::crash_point();
    let more = kept.len().saturating_sub(NAMED);
    kept.truncate(NAMED);
    if more > 0 {
        kept.push(format!("and {more} more"));
    }
    Ok((!kept.is_empty()).then(|| kept.join(", ")))
}

fn clear(root: BorrowedFd<'_>, name: &str, opened: BorrowedFd<'_>) -> Result<(), Errno> {
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
    match rustix::fs::unlinkat(root, name, AtFlags::REMOVEDIR) {
        // Somebody moved it away, empty as it is.
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}
