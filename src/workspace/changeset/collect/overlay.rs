//! Reading the upper layer of an overlay.
//!
//! The kernel's marks there: a character device 0/0 is a deletion, `user.overlay.opaque` on a
//! folder says that nothing below it shows through. A sandbox can make neither: such devices are
//! refused to it, and attributes of these names are given others (`user.overlay.overlay.…`), or
//! refused.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::{Collector, Past, Place, is_of_a_branch, walk_all};
use crate::workspace::sweep::remove::grant;
use crate::workspace::walk::{Entry, Visitor, open_folder, step};

/// What the kernel says of one file or folder.
#[derive(Debug, Default)]
pub struct Marks {
    pub opaque: bool,
    /// Something that we do not mount for.
    pub unknown: bool,
}

/// None where they cannot be read.
pub fn marks(file: impl AsFd) -> Option<Marks> {
    let mut names = vec![0_u8; 64 << 10];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Some(Marks::default()),
        Err(_) => return None,
    };
    let mut marks = Marks::default();
    for name in names[..length].split(|byte| *byte == 0) {
        let Some(mark) = name.strip_prefix(b"user.overlay.") else { continue };
        match mark {
            b"opaque" => {
                let mut value = [0_u8; 8];
                let read = rustix::fs::fgetxattr(&file, "user.overlay.opaque", &mut value[..]);
                match read.map(|length| &value[..length]) {
                    Ok(b"y") => marks.opaque = true,
                    _ => marks.unknown = true,
                }
            }
            b"origin" | b"impure" | b"nlink" | b"uuid" | b"protattr" => {}
            // What a run called by one of these names.
            other => marks.unknown |= !other.starts_with(b"overlay."),
        }
    }
    Some(marks)
}

pub(super) fn collect(collector: &mut Collector, upper: &OwnedFd) {
    let limits = collector.limits;
    let mut walked = Upper { collector, root: upper, opaque: HashSet::new(), missing: Vec::new() };
    let whole = walk_all(upper.as_fd(), limits, &mut walked);
    let missing = walked.missing;
    collector.complete &= whole;
    for path in missing {
        collector.delete(&path);
    }
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

struct Upper<'a> {
    collector: &'a mut Collector,
    root: &'a OwnedFd,
    /// Folders through which nothing shows.
    opaque: HashSet<PathBuf>,
    /// What does not show through them.
    missing: Vec<PathBuf>,
}

impl Upper<'_> {
    fn folder(&mut self, path: &Path, entry: &Entry<'_>, stat: &Stat) -> bool {
        // The walk opens it by its name afterwards, so it must be open to us.
        if stat.st_mode & 0o700 != 0o700
            && !rustix::process::geteuid().is_root()
            && grant(entry.folder(), entry.name, FileType::Directory, 0o700).is_err()
        {
            self.collector.incomplete(path, "unreadable");
            return false;
        }
        let opened = step(entry.folder(), entry.name);
        let Some(marks) = opened.ok().and_then(|opened| marks(&opened)) else {
            self.collector.incomplete(path, "unreadable");
            return false;
        };
        if marks.unknown {
            self.collector.incomplete(path, "marked in a way that is not understood");
            return false;
        }
        self.collector.compare(path, entry, stat, Past::Unknown);
        let inherited = path.parent().is_some_and(|parent| self.opaque.contains(parent));
        if marks.opaque || inherited {
            self.opaque.insert(path.to_owned());
            match self.collector.base.names(path) {
                Ok(names) => {
                    let here = open_folder(self.root.as_fd(), path);
                    for name in names {
                        let there = here.as_ref().is_ok_and(|here| {
                            let flags = AtFlags::SYMLINK_NOFOLLOW;
                            rustix::fs::statat(here, &name, flags).is_ok()
                        });
                        let gone = path.join(name);
                        if !there && self.collector.affords(&gone) {
                            self.missing.push(gone);
                        }
                    }
                }
                Err(_) => self.collector.incomplete(path, "unreadable in the workspace"),
            }
        }
        true
    }
}

impl Visitor for Upper<'_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = folder.join(entry.name);
        if !self.collector.affords(&path) {
            return false;
        }
        match self.collector.place(&path) {
            Place::Ours => return false,
            Place::Repository => {
                self.collector.repositories.entry(path).or_default();
                return false;
            }
            Place::Plain => {}
        }
        let Some(stat) = entry.stat() else {
            self.collector.incomplete(&path, "unreadable");
            return false;
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice if stat.st_rdev == 0 => self.collector.delete(&path),
            FileType::Directory => return self.folder(&path, entry, &stat),
            _ => self.collector.compare(&path, entry, &stat, Past::Unknown),
        }
        false
    }

    fn closed(&mut self, folder: &Path) {
        self.collector.incomplete(folder, "unreadable");
    }

    fn too_deep(&mut self, folder: &Path, _entry: &Entry<'_>) {
        self.collector.incomplete(folder, "too deep");
    }

    fn enough(&self) -> bool {
        self.collector.is_full()
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
