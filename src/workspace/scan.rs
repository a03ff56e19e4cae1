//! Looking for protected places below a workspace, at the cost of a run's start.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::names::{GitMarks, fold, is_vendored};
use super::protected_names::why_protected;
use super::walk::{Entry, Visitor};

/// Each repository costs mounts; nobody works in more at once.
pub(super) const MOST_REPOSITORIES: usize = 64;

/// What was found. The workspace's own places by their usual names are not this scan's.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The `.git` of each repository below, however it is spelt.
    pub repositories: Vec<PathBuf>,
    /// Folders that are git directories without being called so.
    pub bare: Vec<PathBuf>,
    /// Other trusted places.
    pub places: Vec<PathBuf>,
    pub too_many: bool,
    marks: GitMarks,
}

/// More than can be mounted; the rest is cut by the caller.
const MOST_PLACES: usize = 1000;

impl Scan {
    fn repository(&mut self, path: PathBuf, bare: bool) {
        if self.repositories.len() + self.bare.len() >= MOST_REPOSITORIES {
            self.too_many = true;
        } else if bare {
            self.bare.push(path);
        } else {
            self.repositories.push(path);
        }
    }

    fn place(&mut self, path: PathBuf) {
        if self.places.len() < MOST_PLACES {
            self.places.push(path);
        } else {
            self.too_many = true;
        }
    }
}

impl Visitor for Scan {
    fn enter(&mut self, _folder: &Path, _opened: BorrowedFd<'_>) {
        self.marks = GitMarks::default();
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let name = fold(entry.name);
        let path = || folder.join(entry.name);
        if name == ".git" {
            if !folder.as_os_str().is_empty() || entry.name != ".git" {
                self.repository(path(), false);
            }
            return false;
        }
        self.marks.note(&name);
        if why_protected(folder, &name).is_some() && !is_vendored(folder) {
            self.place(path());
            // Repositories inside are looked for all the same: there may be too many places to
            // mount this one.
        }
        true
    }

    fn leave(&mut self, folder: &Path, _whole: bool) {
        if self.marks.is_git() {
            self.repository(folder.to_owned(), true);
        }
    }
}
