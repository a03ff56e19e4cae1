//! Comparing a copy with what was copied.
//!
//! The kernel's own marks tell what was touched: a file that has the inode under which it was
//! copied, and was not changed since the copy was done, is as it was. Its times of modification
//! are the agent's to set; the time of change is not.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::{CollectError, Collector, Past, Place, is_git, is_of_a_branch, walk_all};
use crate::workspace::changes::changed;
use crate::workspace::layer::{Copied, Layer};
use crate::workspace::remove::grant;
use crate::workspace::walk::{Entry, Visitor, open_folder};

pub(super) fn collect(
    collector: &mut Collector<'_>,
    copy: &OwnedFd,
    layer: &Layer,
) -> Result<(), CollectError> {
    let Some(Copied { at }) = layer.note().copied else {
        collector.complete = false;
        return Ok(());
    };
    let twins: HashMap<_, _> = Copied::read(layer.folder())?.into_iter().collect();
    let known: HashMap<_, _> =
        twins.iter().map(|(path, twin)| (path.clone(), twin.inode)).collect();
    collector.base.copied(twins);
    let mut limits = collector.limits;
    limits.entries = limits.entries.saturating_add(known.len());
    let mut compared = Compared { collector, known, at };
    let whole = walk_all(copy.as_fd(), limits, &mut compared);
    let mut gone: Vec<_> = compared.known.into_keys().collect();
    // Those that were carried over were not copied.
    gone.extend(collector.base.live_paths().into_iter().filter(|path| is_gone(copy, path)));
    gone.sort();
    gone.dedup();
    collector.complete &= whole;
    if whole {
        let skipped: HashSet<_> = collector.skipped.keys().cloned().collect();
        for path in gone.iter().filter(|path| !inside_of_git(path)) {
            // Below what was not looked into, nothing is known to be gone.
            if !path.ancestors().any(|above| skipped.contains(above)) {
                collector.delete_one(path);
            }
        }
    }
    Ok(())
}

/// Returns true where a copy has nothing at a path.
fn is_gone(copy: &OwnedFd, path: &Path) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
    let found = open_folder(copy.as_fd(), folder)
        .and_then(|folder| statat(folder, name, AtFlags::SYMLINK_NOFOLLOW));
    matches!(found, Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn inside_of_git(path: &Path) -> bool {
    let above = path.parent().into_iter().flat_map(Path::iter);
    above.into_iter().any(|name| name.eq_ignore_ascii_case(".git"))
}

struct Compared<'a, 'b> {
    collector: &'a mut Collector<'b>,
    /// What has not been seen yet.
    known: HashMap<PathBuf, u64>,
    at: i128,
}

impl Compared<'_, '_> {
    /// Of what is inside of a `.git` only whether it changed is of interest.
    fn inside(&mut self, path: &Path, known: bool) {
        let parts: PathBuf = path.iter().take_while(|name| !is_git(name)).collect();
        let name = path.iter().find(|name| is_git(name)).unwrap_or_default();
        let repository = parts.join(name);
        let inside = path.strip_prefix(&repository).unwrap_or(path).to_owned();
        if !known {
            let commits = self.collector.repositories.entry(repository).or_default();
            *commits |= is_of_a_branch(&inside);
        }
    }
}

impl Visitor for Compared<'_, '_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = folder.join(entry.name);
        if !self.collector.affords(&path) {
            return false;
        }
        let inode = self.known.remove(&path);
        let Some(stat) = entry.stat() else {
            self.collector.skip(&path, "unreadable");
            return false;
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_dir
            && stat.st_mode & 0o700 != 0o700
            && !rustix::process::geteuid().is_root()
            && self.collector.is_over
            && grant(entry.folder(), entry.name, FileType::Directory, 0o700).is_err()
        {
            self.collector.skip(&path, "unreadable");
            return false;
        }
        let same = inode == Some(stat.st_ino) && changed(&stat) <= self.at;
        match self.collector.place(&path) {
            Place::Ours => return false,
            Place::Repository => {
                self.inside(&path, same);
                return true;
            }
            Place::Plain if inside_of_git(&path) => {
                self.inside(&path, same || is_dir);
                return true;
            }
            Place::Plain => {}
        }
        let is_shared = is_dir && inode.is_none() && self.collector.is_made_meanwhile(&path);
        if !same && !is_shared {
            let past = Past::Known(inode.is_some());
            self.collector.compare(&path, entry.folder(), entry.name, &stat, past);
        }
        true
    }

    fn closed(&mut self, folder: &Path) {
        self.collector.skip(folder, "unreadable");
    }

    fn too_deep(&mut self, folder: &Path, _entry: &Entry<'_>) {
        self.collector.skip(folder, "too deep");
    }

    fn enough(&self) -> bool {
        self.collector.is_full()
    }
}
