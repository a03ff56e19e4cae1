//! Making the steps, and undoing them.
//!
//! Everything moves by rename within one file system, between the workspace and a private folder
//! in it, so that at each moment each thing is whole and in exactly one place. All goes by folders
//! that were opened before the first change ([`Folders`]). What is undone is found out by looking: a
//! step that was not made, or was undone already, changes nothing.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::super::RelPath;
use super::super::node::{name_of, permissions};
use super::error::ApplyError;
use super::fault;
use super::folders::{AGAIN, Folders, Identity, PATIENCE};
use super::journal::{Mark, Step};
use crate::workspace::walk::step as open_step;

pub(super) struct Swap<'a, 'b> {
    pub folders: &'a mut Folders<'b>,
    pub staging: BorrowedFd<'a>,
}

/// What undoing a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    Wholly,
    /// Somebody changed the new file meanwhile; it stays in the staging folder.
    Kept,
    /// The folder of the old file is gone, so that stays in the staging folder.
    Gone,
}

pub(super) fn old(slot: u64) -> String {
    format!("old-{slot}")
}

pub(super) fn new(slot: u64) -> String {
    format!("new-{slot}")
}

impl Swap<'_, '_> {
    pub fn make(&mut self, step: &Step) -> Result<(), ApplyError> {
        fault::point().map_err(ApplyError::io("change", step.path()))?;
        self.made(step).map_err(ApplyError::io("change", step.path()))?;
        fault::point().map_err(ApplyError::io("change", step.path()))
    }

    fn made(&mut self, step: &Step) -> io::Result<()> {
        let (name, removed) = (name_of(step.path()), self.folders.identity(step.path().as_path()));
        let parent = self.folders.get(folder_of(step.path()))?;
        match step {
            Step::Displace { slot, is, .. } => {
                let into = old(*slot);
                rename(parent, name, self.staging, OsStr::new(&into))?;
                // Between the look and now somebody could have changed it.
                if mark(self.staging, OsStr::new(&into))? != Some(*is) {
                    return Err(busy());
                }
            }
            Step::Place { slot, .. } => {
                rename(self.staging, OsStr::new(&new(*slot)), parent, name)?;
            }
            Step::RemoveFolder { .. } => {
                let there = match open_step(parent, name) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(busy()),
                    there => there?,
                };
                if removed != Some(Identity::of(&there)?) {
                    return Err(busy());
                }
                match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    // Somebody put something into it just now.
                    Err(Errno::NOTEMPTY | Errno::EXIST) => return Err(busy()),
                    done => done?,
                }
                self.folders.removed(step.path().as_path());
            }
            Step::Chmod { path, from, to } => self.chmod(path, *from, *to)?,
        }
        Ok(())
    }

    pub fn undo(&mut self, step: &Step) -> Result<Undone, ApplyError> {
        fault::crash_point();
        self.undone(step).map_err(ApplyError::io("put back", step.path()))
    }

    fn undone(&mut self, step: &Step) -> io::Result<Undone> {
        let name = name_of(step.path());
        // What lies ready or is back already needs no folder to look into.
        match step {
            Step::RemoveFolder { path, .. } if self.folders.has(path.as_path()) => {
                return Ok(Undone::Wholly);
            }
            Step::Displace { slot, .. } if !self.has(&old(*slot))? => return Ok(Undone::Wholly),
            Step::Place { slot, folder, is, .. } => {
                if let Some(back) = mark(self.staging, OsStr::new(&new(*slot)))? {
                    // An undoing that was killed kept it, too.
                    let kept = !*folder && back != *is;
                    return Ok(if kept { Undone::Kept } else { Undone::Wholly });
                }
            }
            _ => {}
        }
        if let Step::Place { path, folder: true, is, .. } = step
            && self.is_elsewhere(path, *is)?
        {
            return Ok(Undone::Kept);
        }
        let parent = match self.folders.get(folder_of(step.path())) {
            Ok(parent) => parent,
            Err(Errno::NOENT) => return Ok(step.without_folder()),
            Err(errno) => return Err(errno.into()),
        };
        match step {
            Step::Displace { slot, .. } => {
                match rename(self.staging, OsStr::new(&old(*slot)), parent, name) {
                    // A removed folder is still open, and takes nothing any more.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Undone::Gone),
                    done => done.map(|()| Undone::Wholly),
                }
            }
            Step::Place { slot, folder, is, .. } => {
                let there = mark(parent, name)?.filter(|there| there.inode == is.inode);
                let Some(there) = there else { return Ok(Undone::Wholly) };
                if *folder {
                    return match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                        // Somebody put something of theirs into it.
                        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Undone::Kept),
                        done => Ok(done.map(|()| Undone::Wholly)?),
                    };
                }
                rename(parent, name, self.staging, OsStr::new(&new(*slot)))?;
                Ok(if there == *is { Undone::Wholly } else { Undone::Kept })
            }
            Step::RemoveFolder { mode, uid, gid, .. } => {
                let made = rustix::fs::mkdirat(parent, name, Mode::RWXU);
                let there = match (made, open_step(parent, name)) {
                    (Ok(()), there) => {
                        let there = there?;
                        own(there.as_fd(), *uid, *gid)?;
                        rustix::fs::fchmod(&there, Mode::from_raw_mode(*mode))?;
                        there
                    }
                    // Somebody made another one, which serves as well.
                    (Err(Errno::EXIST), Ok(there)) => there,
                    (Err(Errno::EXIST | Errno::NOENT), Err(_)) => return Ok(Undone::Gone),
                    (Err(errno), _) => return Err(errno.into()),
                };
                self.folders.add(step.path().as_path(), there)?;
                Ok(Undone::Wholly)
            }
            Step::Chmod { path, from, to } => match self.chmod(path, *to, *from) {
                Err(error) if error.kind() == io::ErrorKind::NotFound || is_busy(&error) => {
                    Ok(Undone::Wholly)
                }
                done => done.map(|()| Undone::Wholly),
            },
        }
    }

    /// Of a folder by its descriptor, wherever it is by now; of anything else by its name.
    fn chmod(&mut self, path: &RelPath, from: u32, to: u32) -> io::Result<()> {
        if self.folders.identity(path.as_path()).is_none() {
            return chmod(self.folders.get(folder_of(path))?, name_of(path), from, to);
        }
        let folder = self.folders.get(path.as_path())?;
        let stat = rustix::fs::fstat(folder)?;
        if permissions(&stat) != from {
            return Err(busy());
        }
        // Who belongs to a shared folder's group is not the run's to say.
        let mode = (stat.st_mode & 0o7000) | (to & 0o777);
        Ok(rustix::fs::fchmod(folder, Mode::from_raw_mode(mode))?)
    }

    /// Whether a new folder is not where it was put, and not removed either. Waits a moment for it
    /// to come back.
    fn is_elsewhere(&mut self, path: &RelPath, is: Mark) -> io::Result<bool> {
        let until = Instant::now() + PATIENCE;
        loop {
            let opened = self.folders.get(path.as_path()).and_then(rustix::fs::fstat);
            if !opened.is_ok_and(|stat| stat.st_nlink > 0) {
                return Ok(false);
            }
            let Ok(parent) = self.folders.get(folder_of(path)) else { return Ok(true) };
            if mark(parent, name_of(path))?.is_some_and(|there| there.inode == is.inode) {
                return Ok(false);
            }
            if Instant::now() >= until {
                return Ok(true);
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(mark(self.staging, OsStr::new(name))?.is_some())
    }
}

/// The folder whose names a step changes.
pub(super) fn folder_of(path: &RelPath) -> &Path {
    path.as_path().parent().unwrap_or(Path::new(""))
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

    /// What it means for undoing that the folder is gone: what was put there went with it.
    fn without_folder(&self) -> Undone {
        match self {
            Self::Displace { .. } | Self::RemoveFolder { .. } => Undone::Gone,
            Self::Place { .. } | Self::Chmod { .. } => Undone::Wholly,
        }
    }
}

const BUSY: &str = "somebody else changed it at the same time; nothing was applied, try again";

pub(super) fn busy() -> io::Error {
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
