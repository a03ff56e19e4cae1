//! Looking at a project without a container: reading, listing, searching, and what git says.
//!
//! It serves hosts that have no file system of their own. What lies in the project is hostile:
//! everything is opened from the root's descriptor without following a link, only regular files
//! are read, nothing of the project is executed, and all work is bounded in bytes and in time.

mod error;
mod gather;
mod git;
mod laid;
mod place;
mod private;
mod read;
mod search;

#[cfg(test)]
mod git_tests;
#[cfg(test)]
mod laid_tests;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use error::Error;
pub use gather::{Listing, Selection};
pub(in crate::workspace) use git::find as find_git;
pub use git::{Commit, Head, StatusEntry, StatusReport};
pub use read::{Excerpt, Range};
pub use search::{Hit, Hits, Query};

use self::laid::Laid;

use super::WorkspacePath;
use super::changeset::{Blobs, Manifest};
use super::walk::open_root;

/// A workspace that is open for looking.
#[derive(Debug)]
pub struct Project {
    root: File,
    path: PathBuf,
    /// What a run in a view of its own made of it.
    laid: Option<Laid>,
}

impl Project {
    pub fn open(workspace: &WorkspacePath) -> Result<Self, Error> {
        let unreadable =
            |source| Error::Unreadable { given: place::shown(workspace.path()), source };
        let root = open_root(workspace.path()).map_err(|errno| unreadable(errno.into()))?;
        let root = File::from(root);
        let found = root.metadata().map_err(unreadable)?;
        if (found.dev(), found.ino()) != workspace.identity() {
            return Err(Error::Replaced { given: place::shown(workspace.path()) });
        }
        Ok(Self { root, path: workspace.path().to_owned(), laid: None })
    }

    /// With the changes of a run laid over it, as if they had been carried over.
    #[must_use]
    pub fn with(mut self, changes: &Manifest, contents: Blobs) -> Self {
        self.laid = Some(Laid::new(changes, contents));
        self
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
