//! Making changes of an earlier run in the view of the next one, before anything of it has begun.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::{Layer, LayerError, View};
use crate::ids::RunId;
use crate::workspace::WorkspacePath;
use crate::workspace::changeset::{Alteration, Blobs, Node};
use crate::workspace::remove::remove;
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
        let seeding = Seeding { root, workspace, is_overlay, owner };
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
        Ok(())
    }
}

impl Seeding<'_> {
    /// Opens the folder that a path is in. In an overlay it is made where only the workspace has it.
    fn folder(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut at = self.root.try_clone()?;
        let mut passed = std::path::PathBuf::new();
        for name in path.parent().unwrap_or(Path::new("")) {
            passed.push(name);
            at = match step(at.as_fd(), name) {
                Err(Errno::NOENT) if self.is_overlay => {
                    let mode = self.workspace.path().join(&passed).symlink_metadata()?.mode();
                    self.make_folder(at.as_fd(), name, mode & 0o7777)?
                }
                opened => opened?,
            };
        }
        Ok(at)
    }

    fn make_folder(&self, folder: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<OwnedFd> {
        rustix::fs::mkdirat(folder, name, Mode::RWXU)?;
        let opened = step(folder, name)?;
        if let Some((uid, gid)) = self.owner {
            rustix::fs::fchown(&opened, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(&opened, Mode::from_raw_mode(mode))?;
        Ok(opened)
    }

    /// Opens a file of the workspace, of which only the mode has changed.
    fn of_workspace(&self, path: &Path) -> io::Result<File> {
        let root = open_root(self.workspace.path())?;
        let folder = open_folder(root.as_fd(), path.parent().unwrap_or(Path::new("")))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(folder, name_of(path), flags, Mode::empty())?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (folder, name) = (self.folder(path)?, name_of(path));
        clear(folder.as_fd(), name)?;
        if self.is_overlay {
            // The kernel's mark of something that is not there, which any user may make.
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(&folder, name, kind, Mode::empty(), 0)?;
        }
        Ok(())
    }

    fn make(&self, change: &Alteration, blobs: &Blobs) -> io::Result<()> {
        let path = change.path.as_path();
        let (folder, name) = (self.folder(path)?, name_of(path));
        let folder = folder.as_fd();
        match &change.after {
            Some(Node::Folder { mode }) => {
                if let Ok(there) = step(folder, name) {
                    rustix::fs::fchmod(there, Mode::from_raw_mode(*mode))?;
                } else {
                    clear(folder, name)?;
                    self.make_folder(folder, name, *mode)?;
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
