//! Reading an overlay: the merged view says what is where, the layer and the workspace have the
//! contents.
//!
//! A file that is in the layer is read there. Any other shows through from the workspace: from the
//! same place, or, where a folder was renamed, from another one. Renaming keeps inodes, so the file
//! is found among those that are no longer where they were.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};

use super::blobs::{Not, Source};
use super::survey::{Merged, shows_through};
use super::{Collector, Past, Place, is_of_a_branch, tree, walk_all, written};
use crate::sandbox::{EntrySeen, KindSeen};
use crate::workspace::changeset::Node;
use crate::workspace::walk::{Entry, Visitor, open_folder};

pub(super) fn collect(collector: &mut Collector<'_>, upper: &OwnedFd, merged: &Merged) {
    collector.complete &= merged.whole;
    let left = collector.limits.entries;
    let mut view = View { collector, upper, moved: Vec::new(), same: HashSet::new(), left };
    for (folder, entries) in &merged.folders {
        match entries {
            Ok(entries) => view.folder(folder, entries),
            Err(why) => view.collector.skip(folder, why),
        }
        if view.collector.is_full() {
            return;
        }
    }
    // When everything is known that is no longer where it was.
    for (path, entry) in std::mem::take(&mut view.moved) {
        view.collector.moved(&path, &entry);
    }
    // Those that were carried over are not in the workspace any more.
    for path in collector.base.live_paths() {
        if !collector.found.contains_key(&path) && is_gone(merged, &path) {
            collector.delete_one(&path);
        }
    }
    let limits = collector.limits;
    let repositories: Vec<_> = collector.repositories.keys().cloned().collect();
    for repository in repositories {
        if let Ok(opened) = open_folder(upper.as_fd(), &repository) {
            let mut branches = Branches(false);
            // Answers by what is found; a repository too large for this has been worked in.
            let whole = walk_all(opened.as_fd(), limits, &mut branches);
            collector.repositories.insert(repository, branches.0 || !whole);
        }
    }
}

struct View<'a, 'b> {
    collector: &'a mut Collector<'b>,
    upper: &'a OwnedFd,
    /// What shows through from another place.
    moved: Vec<(PathBuf, EntrySeen)>,
    /// What is, in the view, the thing that the workspace has in that place.
    same: HashSet<PathBuf>,
    /// How many things of the layer may still be looked at.
    left: usize,
}

impl View<'_, '_> {
    fn folder(&mut self, folder: &Path, entries: &[EntrySeen]) {
        let Ok(before) = self.collector.base.entries(folder) else {
            return self.collector.skip(folder, "unreadable in the workspace");
        };
        let before: HashMap<OsString, u64> = before.into_iter().collect();
        let now: BTreeMap<_, _> = entries.iter().map(|entry| (&entry.name, entry)).collect();
        let here = open_folder(self.upper.as_fd(), folder).ok();
        let in_layer = |name: &OsStr| {
            let stat = rustix::fs::statat(here.as_ref()?, name, AtFlags::SYMLINK_NOFOLLOW);
            stat.ok()
        };
        // Where the workspace's own folder shows through, all that the run changed is in the layer.
        // What else differs was changed below, where a view may show it or not.
        let shows_through = shows_through(&self.same, folder);
        let was_made = self.collector.base.was_made(folder);
        for (name, inode) in &before {
            let path = folder.join(name);
            let entry = now.get(name);
            if entry.is_some_and(|entry| self.collector.inodes.same(entry.inode, *inode)) {
                self.same.insert(path);
                continue;
            }
            let key = self.collector.inodes.key(*inode);
            self.collector.gone.insert(key, path.clone());
            // What was new in the layer leaves no mark. In a folder that was new there, all else is
            // somebody's who has found it in the workspace.
            let deleted = (!shows_through && !was_made)
                || in_layer(name).as_ref().is_some_and(is_mark)
                || self.collector.base.is_live(&path);
            if entry.is_none() && deleted && self.collector.affords(&path) {
                self.collector.delete(&path);
            }
        }
        for (name, entry) in now {
            let path = folder.join(name);
            if !self.collector.affords(&path) {
                return;
            }
            let written = here.as_ref().map(AsFd::as_fd).zip(in_layer(name));
            match self.collector.place(&path) {
                Place::Ours => continue,
                Place::Repository => {
                    if written.is_some() {
                        self.collector.repositories.entry(path).or_default();
                    }
                    continue;
                }
                Place::Plain => {}
            }
            if let Some((here, mut stat)) = written {
                let Some(left) = self.left.checked_sub(1) else {
                    self.collector.complete = false;
                    return;
                };
                self.left = left;
                let is_new = entry.kind == KindSeen::Folder && !self.same.contains(&path);
                if is_new && self.collector.is_made_meanwhile(&path) {
                    continue;
                }
                // The survey may have opened a folder that the run had shut.
                stat.st_mode = (stat.st_mode & !0o7777) | entry.mode;
                self.collector.compare(&path, here, name, &stat, Past::Unknown);
                continue;
            }
            if !shows_through && !self.same.contains(&path) {
                self.moved.push((path, entry.clone()));
            }
        }
    }
}

/// Returns true where a view shows nothing at a path, as far as it was looked at.
fn is_gone(merged: &Merged, path: &Path) -> bool {
    path.ancestors().any(|place| {
        let Some((folder, name)) = place.parent().zip(place.file_name()) else { return false };
        let Some(Ok(entries)) = merged.folders.get(folder) else { return false };
        let is_there = |entry: &EntrySeen| place == path || entry.kind == KindSeen::Folder;
        !entries.iter().any(|entry| entry.name == name && is_there(entry))
    })
}

/// Whether something in the layer is the kernel's mark of a deletion, device 0/0. No agent can make
/// one.
fn is_mark(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

impl Collector<'_> {
    /// Something of the workspace that is at another place in the view.
    fn moved(&mut self, path: &Path, entry: &EntrySeen) {
        self.has_moved_folder = true;
        let Ok(base) = self.base.node(path) else {
            return self.skip(path, "unreadable in the workspace");
        };
        if matches!(base.node, Some(Node::Folder { .. })) && entry.kind != KindSeen::Folder {
            self.delete_below(path);
        }
        let content = match entry.kind {
            KindSeen::Folder => Some((Node::Folder { mode: entry.mode & 0o777 }, None)),
            KindSeen::Other => return self.left_out(path, "device"),
            KindSeen::File | KindSeen::Link => self.content(entry),
        };
        match content {
            Some((after, written)) => self.changed(path, base, after, written, Past::Unknown),
            None if self.failed.is_some() => {}
            None => self.skip(path, "its content was not found"),
        }
    }

    /// The content of a file or link that the workspace has at another place, and when it was
    /// written.
    fn content(&mut self, entry: &EntrySeen) -> Option<(Node, Option<i64>)> {
        let from = self.gone.get(&self.inodes.key(entry.inode))?.clone();
        let (folder, name) = self.base.parent(&from)?;
        if entry.kind == KindSeen::Link {
            return Some((tree::link(folder.as_fd(), &name)?, None));
        }
        let (mut file, stat) = tree::open_file(folder.as_fd(), &name).ok()?;
        let is_it = self.inodes.same(entry.inode, stat.st_ino)
            && u64::try_from(stat.st_size).is_ok_and(|size| size == entry.size);
        match self.blobs.keep(&mut file, (&stat, Source::Workspace), None) {
            Ok(Node::File { sha256, size, .. }) if is_it => {
                let mode = entry.mode & 0o777;
                Some((Node::File { sha256, size, mode }, Some(written(&stat))))
            }
            Ok(_) | Err(Not::Kept(_)) => None,
            Err(Not::Failed(error)) => {
                self.failed = Some(error);
                None
            }
        }
    }
}

/// Looks whether branches of a repository are in the layer.
struct Branches(bool);

impl Visitor for Branches {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = folder.join(entry.name);
        self.0 |= !entry.is_dir() && is_of_a_branch(&path);
        // Objects are many and say nothing.
        path.starts_with("refs")
    }

    fn enough(&self) -> bool {
        self.0
    }
}
