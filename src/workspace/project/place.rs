//! From the path that a caller gives to an open file or folder inside of the project.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::names::fold;
use super::super::refuse::{Ours, refusal};
use super::super::walk::open_folder;
use super::{Error, Project};
use crate::text::one_line;

/// What a path leads to.
#[derive(Debug)]
pub(super) enum Place {
    File(File),
    Folder(OwnedFd),
    /// One that only a run made.
    Made,
}

/// A path fit for a message; it came from a caller.
pub(super) fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy(), 300)
}

/// Whether a name is git's own in whatever spelling.
pub(super) fn is_git(name: &std::ffi::OsStr) -> bool {
    fold(name) == ".git"
}

/// A caller's path as one that cannot lead out of the project by its words; the root is empty.
pub(super) fn relative(given: &str) -> Result<PathBuf, Error> {
    if given.contains('\0') {
        return Err(Error::Nul);
    }
    let text = || one_line(given, 300);
    let mut path = PathBuf::new();
    for part in Path::new(given).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) if is_git(name) => return Err(Error::Git { given: text() }),
            Component::Normal(name) => path.push(name),
            Component::ParentDir => return Err(Error::Upwards { given: text() }),
            Component::RootDir | Component::Prefix(_) => {
                return Err(Error::Absolute { given: text() });
            }
        }
    }
    Ok(path)
}

impl Project {
    /// Opens what a relative path leads to, without following a link anywhere on the way.
    pub(super) fn place(&self, path: &Path) -> Result<Place, Error> {
        let given = || shown(path);
        let absolute = self.path.join(path);
        // What is below is served as it is allowed; only what nobody may have is refused, and not
        // what merely stays read-only.
        if let Some(why) = refusal(&absolute, &absolute, &Ours::here()) {
            return Err(Error::Refused { given: given(), why });
        }
        if let Some(laid) = &self.laid
            && let Some(found) = laid.find(path)?
        {
            return Ok(found);
        }
        let wrong = |errno: Errno| match errno {
            Errno::NOENT => Error::Missing { given: given() },
            Errno::NOTDIR | Errno::LOOP => Error::Blocked { given: given() },
            other => Error::Unreadable { given: given(), source: other.into() },
        };
        let Some(name) = path.file_name() else {
            return open_folder(self.root(), path).map(Place::Folder).map_err(wrong);
        };
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = open_folder(self.root(), parent).map_err(wrong)?;
        // Opening a device can already do something, so look first.
        let found = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong)?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => regular(parent.as_fd(), name).map_err(wrong)?.map(Place::File),
            FileType::Directory => {
                let folder = open_folder(parent.as_fd(), Path::new(name)).map_err(wrong)?;
                Some(Place::Folder(folder))
            }
            FileType::Symlink => return Err(Error::Link { given: given() }),
            _ => None,
        }
        .ok_or_else(|| Error::Special { given: given() })
    }
}

/// Opens a regular file; nothing when it has become something else meanwhile. Opening must not
/// block whatever lies there.
pub(super) fn regular(
    parent: rustix::fd::BorrowedFd<'_>,
    name: &std::ffi::OsStr,
) -> Result<Option<File>, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode);
    Ok((kind == FileType::RegularFile).then(|| File::from(opened)))
}
