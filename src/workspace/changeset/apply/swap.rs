//! Making the steps, and undoing them.
//!
//! Everything moves by rename within one file system, between the workspace and a private folder
//! in it, so that at each moment each thing is whole and in exactly one place. What is undone is
//! found out by looking: a step that was not made, or was undone already, changes nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::super::RelPath;
use super::super::node::{name_of, parent_of, permissions};
use super::error::ApplyError;
use super::fault;
use super::journal::{Mark, Step};

pub(super) struct Swap<'a> {
    pub root: BorrowedFd<'a>,
    pub staging: BorrowedFd<'a>,
}

/// What undoing a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    Wholly,
    /// Somebody changed the new file meanwhile; it stays in the staging folder.
    Kept,
}

pub(super) fn old(slot: u64) -> String {
    format!("old-{slot}")
}

pub(super) fn new(slot: u64) -> String {
    format!("new-{slot}")
}

impl Swap<'_> {
    pub fn make(&self, step: &Step) -> Result<(), ApplyError> {
        fault::point().map_err(ApplyError::io("change", step.path()))?;
        let failed = ApplyError::io("change", step.path());
        let name = name_of(step.path());
        let parent = parent_of(self.root, step.path());
        let parent = match parent {
            Ok(parent) => parent,
            Err(errno) => return Err(failed(errno.into())),
        };
        let made = match step {
            Step::Displace { slot, is, .. } => {
                let into = old(*slot);
                rename(parent.as_fd(), name, self.staging, OsStr::new(&into)).and_then(|()| {
                    // Between the look and now somebody could have changed it.
                    match mark(self.staging, OsStr::new(&into))? {
                        Some(found) if found == *is => Ok(()),
                        _ => Err(busy()),
                    }
                })
            }
            Step::Place { slot, .. } => {
                rename(self.staging, OsStr::new(&new(*slot)), parent.as_fd(), name)
            }
            Step::RemoveFolder { .. } => {
                match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                    // Somebody put something into it just now.
                    Err(Errno::NOTEMPTY | Errno::EXIST) => Err(busy()),
                    done => done.map_err(io::Error::from),
                }
            }
            Step::Chmod { from, to, .. } => chmod(parent.as_fd(), name, *from, *to),
        };
        made.map_err(failed)?;
        fault::point().map_err(ApplyError::io("change", step.path()))
    }

    pub fn undo(&self, step: &Step) -> Result<Undone, ApplyError> {
        fault::crash_point();
        self.undone(step).map_err(ApplyError::io("put back", step.path()))
    }

    fn undone(&self, step: &Step) -> io::Result<Undone> {
        let name = name_of(step.path());
        let parent = match parent_of(self.root, step.path()) {
            Ok(parent) => parent,
            // What is in no folder was put nowhere, or its folder went away with it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return match step {
                    Step::Displace { slot, .. } if self.has(&old(*slot))? => {
                        Err(Errno::NOENT.into())
                    }
                    Step::RemoveFolder { .. } => Err(Errno::NOENT.into()),
                    _ => Ok(Undone::Wholly),
                };
            }
            Err(errno) => return Err(errno.into()),
        };
        match step {
            Step::Displace { slot, .. } => {
                let from = old(*slot);
                if self.has(&from)? {
                    rename(self.staging, OsStr::new(&from), parent.as_fd(), name)?;
                }
            }
            Step::Place { slot, folder, is, .. } => {
                let into = new(*slot);
                let there = mark(parent.as_fd(), name)?;
                let Some(there) = there.filter(|there| there.inode == is.inode) else {
                    // It never went, or came back already: an undoing that was killed kept it, too.
                    let back = mark(self.staging, OsStr::new(&into))?;
                    let kept = !*folder && back.is_some_and(|back| back != *is);
                    return Ok(if kept { Undone::Kept } else { Undone::Wholly });
                };
                if self.has(&into)? {
                    return Ok(Undone::Wholly);
                }
                if *folder {
                    return match rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR) {
                        // Somebody put something of theirs into it.
                        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Undone::Kept),
                        done => Ok(done.map(|()| Undone::Wholly)?),
                    };
                }
                rename(parent.as_fd(), name, self.staging, OsStr::new(&into))?;
                if there != *is {
                    return Ok(Undone::Kept);
                }
            }
            Step::RemoveFolder { mode, uid, gid, .. } => {
                match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                    Ok(()) => {
                        let made = super::super::super::walk::step(parent.as_fd(), name)?;
                        own(made.as_fd(), *uid, *gid)?;
                        rustix::fs::fchmod(&made, Mode::from_raw_mode(*mode))?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Step::Chmod { from, to, .. } => match chmod(parent.as_fd(), name, *to, *from) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_busy(&error) => {}
                done => done?,
            },
        }
        Ok(Undone::Wholly)
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(mark(self.staging, OsStr::new(name))?.is_some())
    }
}

impl Step {
    pub fn path(&self) -> &RelPath {
        match self {
            Self::Displace { path, .. }
            | Self::Place { path, .. }
            | Self::RemoveFolder { path, .. }
            | Self::Chmod { path, .. } => path,
        }
    }
}

const BUSY: &str = "somebody else changed it at the same time; nothing was applied, try again";

fn busy() -> io::Error {
    io::Error::other(BUSY)
}

fn is_busy(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.to_string() == BUSY)
}

/// Moves and never overwrites.
fn rename(
    from: BorrowedFd<'_>,
    name: &OsStr,
    into: BorrowedFd<'_>,
    as_name: &OsStr,
) -> io::Result<()> {
    match rustix::fs::renameat_with(from, name, into, as_name, RenameFlags::NOREPLACE) {
        // Not every file system knows how; then we look first.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            if mark(into, as_name)?.is_some() {
                return Err(Errno::EXIST.into());
            }
            Ok(rustix::fs::renameat(from, name, into, as_name)?)
        }
        done => Ok(done?),
    }
}

pub(super) fn mark(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<Mark>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Mark::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Changes the permissions of a file or folder that has those that it should have.
fn chmod(parent: BorrowedFd<'_>, name: &OsStr, from: u32, to: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened: OwnedFd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&opened)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::RegularFile | FileType::Directory) || permissions(&stat) != from {
        return Err(busy());
    }
    // The one way to what cannot be opened for reading, and never through a link.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened));
    // Who belongs to a shared folder's group is not the run's to say. Of a file nothing stays.
    let kept = if kind == FileType::Directory { stat.st_mode & 0o7000 } else { 0 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(kept | (to & 0o777)))
}

/// Gives a new thing to whom it should belong, where we may.
pub(super) fn own(opened: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        rustix::fs::fchown(opened, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}
