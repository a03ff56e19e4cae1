//! Sockets that lie in a folder: whoever listens there can be talked to by an agent, also where the
//! folder is mounted read-only.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FileType;

use super::WorkspacePath;
use super::walk::{Entry, Limits, Visitor, open_root, walk};

/// How far to look, at the cost of a run's start.
const SCAN: Limits = Limits { entries: 100_000, time: Duration::from_secs(3) };

/// Each costs a mount.
const MOST: usize = 32;

/// The sockets of a workspace, relative to it, and whether these are surely all.
pub fn sockets(workspace: &WorkspacePath) -> (Vec<PathBuf>, bool) {
    sockets_in(workspace.path())
}

pub(super) fn sockets_in(folder: &Path) -> (Vec<PathBuf>, bool) {
    let mut sockets = Sockets::default();
    let whole = open_root(folder).is_ok_and(|root| walk(root.as_fd(), SCAN, &mut sockets));
    (sockets.found, whole && !sockets.more)
}

#[derive(Default)]
struct Sockets {
    found: Vec<PathBuf>,
    more: bool,
}

impl Visitor for Sockets {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if entry.kind() == FileType::Socket {
            if self.found.len() < MOST {
                self.found.push(folder.join(entry.name));
            } else {
                self.more = true;
            }
        }
        true
    }
}
