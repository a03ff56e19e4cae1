//! A walk over a folder that an agent may change under our feet.
//!
//! Every folder is opened from the root's descriptor, one name at a time and never through a
//! symbolic link, so that no exchange of a folder for a link leads the walk outside. It goes in
//! breadth, because when it has to stop early the top of a project matters most.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Deeper than this nobody works; a chain of a million folders is somebody's trap.
const DEEPEST: usize = 64;

/// Deeper than any tool makes folders: how far to go where nothing may be overlooked.
pub(super) const BOTTOM: usize = 256;

/// How far a walk goes before it gives up on completeness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub entries: usize,
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 200_000, time: Duration::from_secs(3) }
    }
}

/// What a walk passes by.
pub(super) struct Entry<'a> {
    folder: BorrowedFd<'a>,
    pub name: &'a OsStr,
    kind: FileType,
}

impl Entry<'_> {
    /// The opened folder that it lies in.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub fn kind(&self) -> FileType {
        match self.kind {
            // Some file systems tell the type only when asked for everything.
            FileType::Unknown => {
                self.stat().map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode))
            }
            known => known,
        }
    }

    /// Nothing when it has vanished meanwhile.
    pub fn stat(&self) -> Option<Stat> {
        rustix::fs::statat(self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW).ok()
    }
}

/// Who looks at what the walk passes by. Folders are named relative to the root.
pub(super) trait Visitor {
    /// A folder was opened; its entries follow.
    fn enter(&mut self, _folder: &Path, _opened: BorrowedFd<'_>) {}
    /// One entry; answers whether to go into it, if it is a folder.
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool;
    /// A folder is done; `whole` when each of its entries was shown.
    fn leave(&mut self, _folder: &Path, _whole: bool) {}
    /// A folder is there but cannot be looked into.
    fn closed(&mut self, _folder: &Path) {}
    /// A folder, an entry of another one, is there but lies too deep to be looked into.
    fn too_deep(&mut self, _folder: &Path, _entry: &Entry<'_>) {}
    /// Whether enough is known; asked at every entry.
    fn enough(&self) -> bool {
        false
    }
}

/// Walks all below `root`; answers whether everything was shown but for closed folders.
pub(super) fn walk(root: BorrowedFd<'_>, limits: Limits, visitor: &mut impl Visitor) -> bool {
    walk_to(DEEPEST, root, limits, visitor)
}

/// The same, down to another depth.
pub(super) fn walk_to(
    deepest: usize,
    root: BorrowedFd<'_>,
    limits: Limits,
    visitor: &mut impl Visitor,
) -> bool {
    let started = Instant::now();
    let mut left = limits.entries;
    let mut complete = true;
    let mut queue = VecDeque::from([Rc::new(Way { above: None, name: OsString::new() })]);
    let mut way = Opener { root, parent: None };
    while let Some(here) = queue.pop_front() {
        let folder = here.path();
        let opened = match way.open(&folder) {
            Ok(opened) => opened,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(_) => {
                visitor.closed(&folder);
                continue;
            }
        };
        let Some(mut entries) = opened.try_clone().ok().and_then(|copy| Dir::new(copy).ok()) else {
            visitor.closed(&folder);
            continue;
        };
        let deep = folder.components().count() >= deepest;
        let mut whole = true;
        visitor.enter(&folder, opened.as_fd());
        while let Some(entry) = entries.read() {
            let Ok(entry) = entry else {
                whole = false;
                break;
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            if left == 0 || started.elapsed() >= limits.time || visitor.enough() {
                whole = false;
                break;
            }
            left -= 1;
            let entry = Entry { folder: opened.as_fd(), name, kind: entry.file_type() };
            if visitor.entry(&folder, &entry) && entry.is_dir() {
                if deep {
                    complete = false;
                    visitor.too_deep(&folder, &entry);
                } else {
                    let above = Some(Rc::clone(&here));
                    queue.push_back(Rc::new(Way { above, name: name.to_owned() }));
                }
            }
        }
        visitor.leave(&folder, whole);
        complete &= whole;
        if !whole && (left == 0 || started.elapsed() >= limits.time || visitor.enough()) {
            return false;
        }
    }
    complete
}

/// A folder that the walk still has to go into. Each name is kept once: the paths of half a million
/// folders at the end of long names would take all memory.
struct Way {
    above: Option<Rc<Way>>,
    name: OsString,
}

impl Way {
    fn path(&self) -> PathBuf {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(way) = at {
            names.push(way.name.as_os_str());
            at = way.above.as_deref();
        }
        names.into_iter().rev().collect()
    }
}

/// Opens folders in the order of a walk, in which those of one parent follow each other.
struct Opener<'a> {
    root: BorrowedFd<'a>,
    /// The parent of the last folder, so that its siblings cost one step and not the whole way.
    parent: Option<(PathBuf, OwnedFd)>,
}

impl Opener<'_> {
    fn open(&mut self, folder: &Path) -> Result<OwnedFd, Errno> {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return open_folder(self.root, folder);
        };
        match &self.parent {
            Some((known, opened)) if known == parent => step(opened.as_fd(), name),
            _ => {
                let opened = open_folder(self.root, parent)?;
                let folder = step(opened.as_fd(), name);
                self.parent = Some((parent.to_owned(), opened));
                folder
            }
        }
    }
}

/// Opens a folder below `root` without following a link anywhere on the way.
pub(super) fn open_folder(root: BorrowedFd<'_>, folder: &Path) -> Result<OwnedFd, Errno> {
    let mut opened = step(root, OsStr::new("."))?;
    for part in folder.components() {
        // Anything else would lead up or away; no caller has it.
        let Component::Normal(name) = part else { return Err(Errno::INVAL) };
        opened = step(opened.as_fd(), name)?;
    }
    Ok(opened)
}

/// Opens the root of a workspace.
pub(super) fn open_root(workspace: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(workspace, flags, Mode::empty())
}

pub(super) fn step(parent: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}
