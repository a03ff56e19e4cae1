//! Making changes of an earlier run in the view of the next one, before anything of it has begun.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Layer, LayerError, View};
use crate::ids::RunId;
use crate::workspace::WorkspacePath;
use crate::workspace::changeset::{Alteration, Blobs, Node};
use crate::workspace::remove::{grant, remove};
use crate::workspace::walk::{open_folder, open_root, step};

/// The name of a new thing until it has its own.
const NEW: &str = ".sandbox-mcp.new";

/// The view that gets the changes.
struct Seeding<'a> {
    root: OwnedFd,
    workspace: &'a WorkspacePath,
    is_overlay: bool,
    /// The owner of all that is made, where that is to be said.
    owner: Option<(Uid, Gid)>,
    /// Modes of folders, which come when all is made in them: a read-only one takes nothing.
    modes: BTreeMap<PathBuf, u32>,
}

impl Layer {
    /// Makes changes of an earlier run in the view. The workspace could get each of them. Blocking.
    pub fn seed(
        &mut self,
        workspace: &WorkspacePath,
        (run, changes): (&RunId, &[Alteration]),
        blobs: &Blobs,
    ) -> Result<(), LayerError> {
        self.note.earlier = Some(run.clone());
        self.note.write(&self.folder)?;
        let written = self.written();
        let failed = |path: &Path, source| LayerError::io("make the change of", path)(source);
        let root = open_root(&written).map_err(|errno| failed(&written, errno.into()))?;
        let owner = workspace.owner();
        let is_root = rustix::process::geteuid().is_root();
        let owner = is_root.then(|| (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid)));
        let is_overlay = self.view() == Some(View::Overlay);
        let modes = BTreeMap::new();
        let mut seeding = Seeding { root, workspace, is_overlay, owner, modes };
        // What is below goes first, and comes last.
        let (gone, made): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.after.is_none());
        for change in gone.into_iter().rev() {
            let path = change.path.as_path();
            seeding.remove(path).map_err(|error| failed(path, error))?;
        }
        for change in made {
            let path = change.path.as_path();
            seeding.make(change, blobs).map_err(|error| failed(path, error))?;
        }
        seeding.shut().map_err(|error| failed(&written, error))
    }
}

impl Seeding<'_> {
    /// Opens the folder that a path is in. In an overlay it is made where only the workspace has it.
    fn folder(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        let mut passed = PathBuf::new();
        for name in path.parent().unwrap_or(Path::new("")) {
            passed.push(name);
            let found = rustix::fs::statat(&at, name, AtFlags::SYMLINK_NOFOLLOW);
            at = match found {
                Err(Errno::NOENT) if self.is_overlay => {
                    let mode = self.workspace.path().join(&passed).symlink_metadata()?.mode();
                    self.make_folder(at.as_fd(), &passed, mode & 0o7777)?
                }
                Err(errno) => return Err(errno.into()),
                Ok(found) => {
                    let mode = found.st_mode & 0o7777;
                    if mode & 0o700 != 0o700 && self.owner.is_none() {
                        grant(at.as_fd(), name, FileType::Directory, 0o700)?;
                        self.modes.entry(passed.clone()).or_insert(mode);
                    }
                    step(at.as_fd(), name)?
                }
            };
        }
        Ok(at)
    }

    fn make_folder(
        &mut self,
        folder: BorrowedFd<'_>,
        path: &Path,
        mode: u32,
    ) -> io::Result<OwnedFd> {
        let name = name_of(path);
        rustix::fs::mkdirat(folder, name, Mode::RWXU)?;
        let opened = step(folder, name)?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&opened, Some(uid), Some(gid))?;
        }
        self.modes.insert(path.to_owned(), mode);
        Ok(opened)
    }

    /// Gives folders their modes, from the deepest up.
    fn shut(&self) -> io::Result<()> {
        for (path, mode) in self.modes.iter().rev() {
            match open_folder(self.root.as_fd(), path) {
                Ok(folder) => rustix::fs::fchmod(folder, Mode::from_raw_mode(*mode))?,
                // It was removed after something in it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Opens a file of the workspace, of which only the mode has changed.
    fn of_workspace(&self, path: &Path) -> io::Result<File> {
        let root = open_root(self.workspace.path())?;
        let folder = open_folder(root.as_fd(), path.parent().unwrap_or(Path::new("")))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(folder, name_of(path), flags, Mode::empty())?))
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = (self.folder(path)?, name_of(path));
        clear(folder.as_fd(), name)?;
        if self.is_overlay {
            // The kernel's mark of something that is not there, which any user may make.
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(&folder, name, kind, Mode::empty(), 0)?;
        }
        Ok(())
    }

    fn make(&mut self, change: &Alteration, blobs: &Blobs) -> io::Result<()> {
        let path = change.path.as_path();
        let (folder, name) = (self.folder(path)?, name_of(path));
        let folder = folder.as_fd();
        match &change.after {
            Some(Node::Folder { mode }) => {
                let found = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
                let is_folder =
                    |found: Stat| FileType::from_raw_mode(found.st_mode) == FileType::Directory;
                if found.is_ok_and(is_folder) {
                    self.modes.insert(path.to_owned(), *mode);
                } else {
                    clear(folder, name)?;
                    self.make_folder(folder, path, *mode)?;
                }
            }
            Some(Node::Link { target }) => {
                rustix::fs::symlinkat(&*target.0, folder, NEW)?;
                if let Some((uid, gid)) = self.owner {
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(folder, NEW, Some(uid), Some(gid), flags)?;
                }
                put(folder, name)?;
            }
            Some(Node::File { sha256, size, mode }) => {
                let is_kept = matches!(
                    &change.before,
                    Some(Node::File { sha256: before, .. }) if before == sha256
                );
                let mut content = if is_kept {
                    self.of_workspace(path)?
                } else {
                    blobs.open(sha256, *size).map_err(io::Error::other)?
                };
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut file =
                    File::from(rustix::fs::openat(folder, NEW, flags, Mode::RUSR | Mode::WUSR)?);
                if rustix::fs::ioctl_ficlone(&file, &content).is_err() {
                    io::copy(&mut content, &mut file)?;
                }
                if let Some((uid, gid)) = self.owner {
                    rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                }
                rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
                if let Some(written) = change.written {
                    rustix::fs::futimens(&file, &at(written))?;
                }
                put(folder, name)?;
            }
            None => {}
        }
        Ok(())
    }
}

/// Gives a new thing its name. What was there goes last, so that nothing new has its inode: by that
/// the collection knows what is as it was copied.
fn put(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match rustix::fs::renameat(folder, NEW, folder, name) {
        Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
            clear(folder, name)?;
            Ok(rustix::fs::renameat(folder, NEW, folder, name)?)
        }
        put => Ok(put?),
    }
}

fn name_of(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// Removes what is at a name, with all below.
fn clear(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match remove(folder, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A time of modification, in nanoseconds of the epoch.
fn at(written: i64) -> Timestamps {
    let (seconds, more) = (written.div_euclid(1_000_000_000), written.rem_euclid(1_000_000_000));
    let time = Timespec { tv_sec: seconds, tv_nsec: more };
    Timestamps { last_access: time, last_modification: time }
}
