//! Deletions: things of the workspace that are not in a view any more.

use std::path::Path;

use super::{Collector, Found, Place};
use crate::workspace::changeset::Node;
use crate::workspace::walk::Limits;

impl Collector<'_> {
    /// Something that is never carried over; what was in its place is gone all the same.
    pub(super) fn left_out(&mut self, path: &Path, why: &'static str) {
        self.skip(path, why);
        self.delete(path);
    }

    /// Something of the workspace is not in the view any more.
    pub(super) fn delete(&mut self, path: &Path) {
        if matches!(self.delete_one(path), Some(Node::Folder { .. })) {
            self.delete_below(path);
        }
    }

    /// The same without what is below; answers what it was.
    pub(super) fn delete_one(&mut self, path: &Path) -> Option<Node> {
        match self.place(path) {
            Place::Ours => return None,
            Place::Repository => {
                self.repositories.entry(path.to_owned()).or_default();
                return None;
            }
            Place::Plain => {}
        }
        let Ok(base) = self.base.node(path) else {
            self.skip(path, "unreadable in the workspace");
            return None;
        };
        if let Some(inode) = base.inode {
            self.gone.insert(self.inodes.key(inode), path.to_owned());
        }
        let before = base.node.or_else(|| base.live?.node)?;
        if self.is_of_check(path) {
            return None;
        }
        let before_it = Some(before.clone());
        let found = Found { before: before_it, after: None, moved: base.moved, written: None };
        self.find(path, found);
        Some(before)
    }

    pub(super) fn delete_below(&mut self, folder: &Path) {
        // What the workspace had, no bound of the run's holds for.
        let limits = Limits { entries: usize::MAX, ..self.limits };
        let below = self.base.below(folder, limits, self.room);
        self.room = below.room;
        if !below.whole {
            self.incomplete(folder, "too much to look at");
        }
        for folder in &below.closed {
            self.skip(folder, "unreadable in the workspace");
        }
        for path in below.found {
            // What is inside of a `.git` is not listed: `below` does not go there.
            self.delete_one(&path);
            if self.is_full() {
                return;
            }
        }
    }
}
