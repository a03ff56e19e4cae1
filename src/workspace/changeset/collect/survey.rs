//! The folders of an overlay as they look merged, asked for from inside, from the top down.
//!
//! The layer alone does not tell: a folder that was removed and made anew, and one that came from
//! elsewhere, look the same in it to anybody but root. So PID 1 lists each folder that is in the
//! layer, and each that shows where another one was before.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::base::{Base, Inodes};
use super::{LIST, is_git, listed};
use crate::sandbox::{EntrySeen, FolderSeen, KindSeen};
use crate::workspace::layer::Layer;
use crate::workspace::remove::grant;
use crate::workspace::walk::{BOTTOM, open_folder, open_root};

/// The folders of a view that hold changes, as they look in it.
#[derive(Debug, Default)]
pub struct Merged {
    /// What is in each; or why that is not known.
    pub(super) folders: BTreeMap<PathBuf, Result<Vec<EntrySeen>, &'static str>>,
    /// Nothing was left out for want of room.
    pub(super) whole: bool,
}

/// Asks for [`Merged`] in rounds.
#[derive(Debug)]
pub struct Survey {
    base: Base,
    upper: OwnedFd,
    covered: Vec<PathBuf>,
    inodes: Inodes,
    merged: Merged,
    room: usize,
    wanted: Vec<PathBuf>,
    /// Folders that are the workspace's own in their places.
    same: HashSet<PathBuf>,
    /// Modes may be changed: nobody works with them any more.
    is_over: bool,
}

impl Survey {
    /// Begins with the workspace itself, unless nothing was written at all. `is_over` says that the
    /// agent does not go on after it.
    pub fn begin(layer: &Layer, is_over: bool) -> io::Result<Self> {
        let note = layer.note();
        let base = Base::open(&note.workspace, note.identity, note.began, &note.bounds);
        let upper = open_root(&layer.written())?;
        let inodes = Inodes::of(&upper, base.root());
        let is_empty = is_empty(&upper)?;
        Ok(Self {
            base,
            upper,
            covered: note.empty().into_iter().map(Path::to_owned).collect(),
            inodes,
            merged: Merged { folders: BTreeMap::new(), whole: true },
            room: LIST,
            same: HashSet::new(),
            is_over,
            wanted: if is_empty { Vec::new() } else { vec![PathBuf::new()] },
        })
    }

    /// The folders to ask for next; none when all is known.
    pub fn wanted(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.wanted)
    }

    /// Takes what was asked for.
    pub fn take(&mut self, seen: Vec<FolderSeen>) {
        for FolderSeen { path, entries } in seen {
            for entry in entries.iter().flatten() {
                let below = path.join(&entry.name);
                let there = self.base.inode(&path, &entry.name);
                if entry.kind == KindSeen::Folder
                    && there.is_some_and(|there| self.inodes.same(entry.inode, there))
                {
                    self.same.insert(below.clone());
                }
                let cost = listed(&below);
                self.merged.whole &= self.room >= cost;
                self.room = self.room.saturating_sub(cost);
                if self.room > 0
                    && entry.kind == KindSeen::Folder
                    && self.is_of_interest(&path, entry)
                {
                    self.wanted.push(below);
                }
            }
            self.merged.folders.insert(path, entries.ok_or("unreadable"));
        }
    }

    fn is_of_interest(&mut self, folder: &Path, entry: &EntrySeen) -> bool {
        let path = folder.join(&entry.name);
        if is_git(&entry.name) || self.covered.contains(&path) {
            return false;
        }
        if folder.components().count() >= BOTTOM {
            self.merged.folders.insert(path, Err("too deep"));
            return false;
        }
        if let Ok(above) = open_folder(self.upper.as_fd(), folder) {
            let stat = rustix::fs::statat(&above, &entry.name, AtFlags::SYMLINK_NOFOLLOW);
            if let Ok(stat) = stat
                && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            {
                // It is looked into later, and its mode is known by now.
                let is_shut = stat.st_mode & 0o700 != 0o700;
                if self.is_over && is_shut && !rustix::process::geteuid().is_root() {
                    // Where that fails, so does the look, which says it.
                    let _ = grant(above.as_fd(), &entry.name, FileType::Directory, 0o700);
                }
                return true;
            }
        }
        // Another folder shows here, with everything that is in it.
        !shows_through(&self.same, folder)
    }

    pub fn done(self) -> Merged {
        self.merged
    }
}

/// Returns true for a folder of the view that is the workspace's own with a layer over it: it and all
/// above are the `same`.
pub(super) fn shows_through(same: &HashSet<PathBuf>, folder: &Path) -> bool {
    folder.ancestors().all(|above| above.as_os_str().is_empty() || same.contains(above))
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    let mut entries = rustix::fs::Dir::read_from(folder)?;
    Ok(!entries.any(|entry| {
        entry.is_ok_and(|entry| ![&b"."[..], b".."].contains(&entry.file_name().to_bytes()))
    }))
}
