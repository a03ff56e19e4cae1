//! One place of a workspace, looked at without following any link on the way.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::walk::{open_folder, open_root};
use super::{Error, WorkspacePath};

/// A file or folder that is what it seems: it was reached without passing any symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protected {
    pub(super) relative: PathBuf,
    pub(super) kind: Kind,
    pub(super) identity: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Dir,
}

/// A symbolic link (or a device, FIFO or socket) where a protected file or folder should be. The
/// agent could replace it, or write to where it leads, so a run that may write must be refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error(
    "`{}` in the workspace is {what}, so it cannot be protected from the agent; replace it with a real file or folder, or use the mode read-only",
    crate::text::one_line(&.relative.to_string_lossy(), 200)
)]
pub struct Obstacle {
    pub relative: PathBuf,
    pub what: &'static str,
    /// Whether it belongs to something below the workspace and not to the workspace itself.
    pub nested: bool,
}

impl Protected {
    /// Relative to the workspace.
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path on the host to mount. Looked at once more, because whoever can write to the
    /// workspace can exchange the place for a link at any time; call it last before the mount.
    pub fn source(&self, workspace: &WorkspacePath) -> Result<PathBuf, Error> {
        let path = workspace.path().join(&self.relative);
        workspace.recheck()?;
        let now = open_root(workspace.path()).ok().map(|root| look(root.as_fd(), &self.relative));
        match now {
            Some(Found::Real(kind, identity)) if (kind, identity) == (self.kind, self.identity) => {
                Ok(path)
            }
            _ => {
                Err(Error::Replaced { given: crate::text::one_line(&path.to_string_lossy(), 300) })
            }
        }
    }
}

pub(super) enum Found {
    Nothing,
    Real(Kind, (u64, u64)),
    Odd { at: PathBuf, what: &'static str },
}

/// What is at a relative path, without following any link on the way.
pub(super) fn look(root: BorrowedFd<'_>, relative: &Path) -> Found {
    let mut at = PathBuf::new();
    let mut found = Found::Nothing;
    for part in relative.components() {
        let Component::Normal(name) = part else { return Found::Nothing };
        let Ok(parent) = open_folder(root, &at) else { return Found::Nothing };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Found::Nothing;
        };
        at.push(name);
        found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Real(Kind::Dir, (stat.st_dev, stat.st_ino)),
            FileType::RegularFile => Found::Real(Kind::File, (stat.st_dev, stat.st_ino)),
            FileType::Symlink => return Found::Odd { at, what: "a symbolic link" },
            _ => return Found::Odd { at, what: "neither a file nor a folder" },
        };
    }
    found
}
