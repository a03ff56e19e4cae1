//! Removing what a run made, whatever it is.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::walk::step;

/// How many folders are held open at once. What lies deeper is moved up first: a chain of a
/// million folders has no name that the kernel would take.
const DEEPEST: usize = 32;

/// Opens a folder even if a run has shut it, which its owner may undo.
fn open_anyway(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let opened = step(parent, name);
    let shut = match &opened {
        Ok(opened) => rustix::fs::fstat(opened)?.st_mode & 0o700 != 0o700,
        Err(Errno::ACCESS) => true,
        Err(_) => false,
    };
    if !shut || rustix::process::geteuid().is_root() {
        return opened;
    }
    match (grant(parent, name, FileType::Directory, 0o700), opened) {
        // Somebody else's; it may do as it is.
        (Err(_), Ok(opened)) => Ok(opened),
        (Err(errno), Err(_)) => Err(errno),
        (Ok(()), _) => step(parent, name),
    }
}

/// Gives the owner of a file or folder further rights to it, without following a link.
pub(super) fn grant(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    rights: u32,
) -> Result<(), Errno> {
    // No mode forbids to open only the name, and what was opened cannot be exchanged any more. The
    // kernel changes its mode by no other way than this one.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&opened)?;
    if FileType::from_raw_mode(found.st_mode) != kind {
        return Err(Errno::INVAL);
    }
    let mode = Mode::from_raw_mode((found.st_mode & 0o7777) | rights);
    rustix::fs::chmod(format!("/proc/self/fd/{}", opened.as_raw_fd()), mode)
}

/// Removes one entry of a folder and all below it.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let Err(errno) = remove_from(parent, name) else { return Ok(()) };
    if errno != Errno::ACCESS {
        return Err(errno);
    }
    // The folder that it lies in is shut; it is opened for as long as this takes.
    let mode = rustix::fs::fstat(parent)?.st_mode & 0o7777;
    rustix::fs::fchmod(parent, Mode::from_raw_mode(mode | 0o700))?;
    let removed = remove_from(parent, name);
    rustix::fs::fchmod(parent, Mode::from_raw_mode(mode))?;
    removed
}

fn remove_from(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    let top = open_anyway(parent, name)?;
    let mut moved = 0;
    loop {
        let before = moved;
        clear(top.as_fd(), top.as_fd(), 0, &mut moved)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // What was moved up is next.
            Err(Errno::NOTEMPTY | Errno::EXIST) if moved > before => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn clear(
    top: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> Result<(), Errno> {
    // In portions: reading goes on from a place that removing makes uncertain.
    loop {
        let names = some_names(folder)?;
        if names.is_empty() {
            return Ok(());
        }
        let before = *moved;
        let mut removed = false;
        for name in names {
            match rustix::fs::unlinkat(folder, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {
                    removed = true;
                    continue;
                }
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
            if depth >= DEEPEST {
                move_up(top, folder, &name, moved)?;
                continue;
            }
            let inner = open_anyway(folder, &name)?;
            clear(top, inner.as_fd(), depth + 1, moved)?;
            drop(inner);
            rustix::fs::unlinkat(folder, &name, AtFlags::REMOVEDIR)?;
            removed = true;
        }
        if !removed && *moved == before {
            return Err(Errno::NOTEMPTY);
        }
    }
}

fn move_up(
    top: BorrowedFd<'_>,
    folder: BorrowedFd<'_>,
    name: &OsStr,
    moved: &mut u64,
) -> Result<(), Errno> {
    loop {
        *moved += 1;
        let new = format!("{moved}");
        match rustix::fs::renameat_with(folder, name, top, &new, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return done,
        }
    }
}

fn some_names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, Errno> {
    const PORTION: usize = 1000;
    let mut names = Vec::new();
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
        if names.len() >= PORTION {
            break;
        }
    }
    Ok(names)
}
