//! Sockets that lie in a folder: whoever listens there can be talked to by an agent, also where the
//! folder is mounted read-only.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FileType;

use super::WorkspacePath;
use super::walk::{Entry, Limits, Visitor, open_root, walk};

/// How far to look, at the cost of a run's start.
const SCAN: Limits = Limits { entries: 100_000, time: Duration::from_millis(500) };

/// Each costs a mount.
const MOST: usize = 32;

/// The sockets of a workspace, relative to it; at most so many as can be hidden.
pub fn sockets(workspace: &WorkspacePath) -> Vec<PathBuf> {
    sockets_in(workspace.path())
}

pub(super) fn sockets_in(folder: &Path) -> Vec<PathBuf> {
    let mut sockets = Sockets::default();
    if let Ok(root) = open_root(folder) {
        walk(root.as_fd(), SCAN, &mut sockets);
    }
    sockets.0
}

#[derive(Default)]
struct Sockets(Vec<PathBuf>);

impl Visitor for Sockets {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if entry.kind() == FileType::Socket && self.0.len() < MOST {
            self.0.push(folder.join(entry.name));
        }
        true
    }
}
