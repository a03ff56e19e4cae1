//! The workspace as it is when a run's changes are told.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::{Live, Node, listed, tree, walk_all};
use crate::workspace::Bounds;
use crate::workspace::changes::changed_since;
use crate::workspace::layer::Twin;
use crate::workspace::walk::{Entry, Limits, Visitor, open_folder, open_root};

/// How much of the workspace is read, in times of what a run may add to it.
const ROOM: u64 = 8;

/// The folder that a view is of, without its mounts.
#[derive(Debug)]
pub struct Base {
    root: Option<OwnedFd>,
    began: i128,
    /// Of a copy, what was known of each thing when it was copied.
    twins: HashMap<PathBuf, Twin>,
    bytes: u64,
    live: Live,
    /// The folder that was looked at last: what is asked for comes by folders.
    last: Option<(PathBuf, Option<OwnedFd>)>,
}

/// What is at a place of the workspace.
pub struct Seen {
    /// None for nothing, and for what cannot be described.
    pub node: Option<Node>,
    /// Whether somebody has changed it since the run began.
    pub moved: bool,
    /// Of what is there.
    pub inode: Option<u64>,
    /// The run's own change, if it was carried over and is there now; then `node` is what was there
    /// before.
    pub live: Option<Now>,
}

/// The state of a place now.
pub struct Now {
    pub node: Option<Node>,
}

/// Compares inodes as a view shows them with the workspace's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inodes {
    /// The layer is on the same file system. Else the kernel puts the layer's number into the upper
    /// bits.
    plain: bool,
}

impl Inodes {
    pub fn of(upper: &OwnedFd, base: Option<&OwnedFd>) -> Self {
        let device = |folder| rustix::fs::fstat(folder).ok().map(|stat| stat.st_dev);
        Self { plain: base.is_some_and(|base| device(base) == device(upper)) }
    }

    pub fn key(self, inode: u64) -> u64 {
        if self.plain { inode } else { inode & 0xffff_ffff }
    }

    pub fn same(self, one: u64, other: u64) -> bool {
        self.key(one) == self.key(other)
    }
}

impl Base {
    pub fn open(workspace: &Path, identity: (u64, u64), began: i128, bounds: &Bounds) -> Self {
        let root = open_root(workspace).ok().filter(|root| {
            rustix::fs::fstat(root).is_ok_and(|now| (now.st_dev, now.st_ino) == identity)
        });
        Self {
            root,
            began,
            twins: HashMap::new(),
            bytes: bounds.bytes.saturating_mul(ROOM),
            live: Live::default(),
            last: None,
        }
    }

    /// Takes what was carried over for what was there before.
    pub fn with(self, live: Live) -> Self {
        Self { live, ..self }
    }

    pub fn live_paths(&self) -> Vec<PathBuf> {
        self.live.paths()
    }

    /// Returns true for a folder of the run's that was carried over.
    pub fn was_made(&self, folder: &Path) -> bool {
        let is = Node::Folder { mode: 0 };
        self.live.first(folder, Some(&is)).is_some_and(|first| first.before.is_none())
    }

    /// Returns true where a change of the run was carried over.
    pub fn is_live(&self, path: &Path) -> bool {
        self.live.has_path(path)
    }

    pub fn copied(&mut self, twins: HashMap<PathBuf, Twin>) {
        self.twins = twins;
    }

    /// False where the workspace was moved or removed.
    pub fn is_there(&self) -> bool {
        self.root.is_some()
    }

    fn folder(&mut self, folder: &Path) -> Result<Option<BorrowedFd<'_>>, Errno> {
        let known = self.last.as_ref().is_some_and(|(last, _)| last == folder);
        if !known {
            let opened = match &self.root {
                None => None,
                Some(root) => match open_folder(root.as_fd(), folder) {
                    Ok(opened) => Some(opened),
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => None,
                    Err(errno) => return Err(errno),
                },
            };
            self.last = Some((folder.to_owned(), opened));
        }
        Ok(self.last.as_ref().and_then(|(_, opened)| opened.as_ref()).map(AsFd::as_fd))
    }

    pub fn node(&mut self, path: &Path) -> io::Result<Seen> {
        let seen = self.now(path)?;
        let Some(first) = self.live.first(path, seen.node.as_ref()) else { return Ok(seen) };
        let live = Some(Now { node: seen.node });
        Ok(Seen { node: first.before.clone(), moved: false, inode: seen.inode, live })
    }

    fn now(&mut self, path: &Path) -> io::Result<Seen> {
        let nothing = || Ok(Seen { node: None, moved: false, inode: None, live: None });
        let (began, most) = (self.began, self.bytes);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return nothing();
        };
        let Some(folder) = self.folder(parent)? else { return nothing() };
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return nothing(),
            Err(errno) => return Err(errno.into()),
        };
        let mode = stat.st_mode & 0o777;
        let mut read = 0;
        let node = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Some(Node::Folder { mode }),
            FileType::Symlink => tree::link(folder, name),
            FileType::RegularFile => match tree::open_file(folder, name) {
                Ok((_, stat)) if u64::try_from(stat.st_size).is_ok_and(|size| size > most) => {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                Ok((mut file, _)) => {
                    let (sha256, size) = whole(&mut file, most)?;
                    read = size;
                    Some(Node::File { sha256, size, mode })
                }
                // It has just gone, or become something else.
                Err(Errno::NOENT | Errno::LOOP | Errno::INVAL) => None,
                Err(errno) => return Err(errno.into()),
            },
            _ => None,
        };
        // Once more: it may have changed while it was read.
        let after = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let twin = self.twins.get(path).filter(|_| !matches!(node, Some(Node::Folder { .. })));
        let same = twin.is_some_and(|twin| match (&node, &twin.sha256) {
            (Some(Node::File { sha256, .. }), Some(was)) => sha256 == was,
            _ => false,
        });
        let changed = |stat: &Stat| {
            changed_since(stat, began) && !same && !twin.is_some_and(|twin| twin.is(stat))
        };
        let moved = changed(&stat) || after.map_or(true, |after| changed(&after));
        self.bytes = self.bytes.saturating_sub(read);
        Ok(Seen { node, moved, inode: Some(stat.st_ino), live: None })
    }

    /// Whether something may have been taken away from a place where nothing is: then the folder
    /// was changed that it was in, or one above.
    pub fn may_have_lost(&self, path: &Path) -> bool {
        let Some(root) = &self.root else { return true };
        for folder in path.ancestors().skip(1) {
            match open_folder(root.as_fd(), folder).and_then(rustix::fs::fstat) {
                Ok(stat) => return changed_since(&stat, self.began),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(_) => return true,
            }
        }
        true
    }

    /// Everything below a folder, without what is inside of a `.git`.
    pub fn below<'a>(&self, folder: &'a Path, limits: Limits, room: usize) -> Below<'a> {
        let opened = self.root.as_ref().map(|root| open_folder(root.as_fd(), folder));
        let mut below =
            Below { top: folder, found: Vec::new(), closed: Vec::new(), whole: true, room };
        match opened {
            Some(Ok(opened)) => below.whole = walk_all(opened.as_fd(), limits, &mut below),
            Some(Err(Errno::ACCESS)) => below.closed.push(folder.to_owned()),
            _ => {}
        }
        below
    }

    pub fn root(&self) -> Option<&OwnedFd> {
        self.root.as_ref()
    }

    /// The folder that a path is in, and its name there.
    pub fn parent(&mut self, path: &Path) -> Option<(OwnedFd, OsString)> {
        let folder = self.folder(path.parent()?).ok()??.try_clone_to_owned().ok()?;
        Some((folder, path.file_name()?.to_owned()))
    }

    /// The names in a folder with their inodes; none where there is no such folder. Of a mount point
    /// that is the folder below the mount, which is what an overlay shows as well.
    pub fn entries(&mut self, folder: &Path) -> Result<Vec<(OsString, u64)>, Errno> {
        let Some(opened) = self.folder(folder)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(opened)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                entries.push((name.to_owned(), entry.ino()));
            }
        }
        Ok(entries)
    }

    /// The inode of one name.
    pub fn inode(&mut self, folder: &Path, name: &OsStr) -> Option<u64> {
        let folder = self.folder(folder).ok()??;
        let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some(stat.st_ino)
    }
}

fn whole(file: &mut File, most: u64) -> io::Result<(String, u64)> {
    tree::hash(file, most)?.ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// What lies below a folder.
pub struct Below<'a> {
    top: &'a Path,
    pub found: Vec<PathBuf>,
    /// Folders that cannot be looked into.
    pub closed: Vec<PathBuf>,
    /// Nothing was left out for want of room or time.
    pub whole: bool,
    /// What is left of the room for names.
    pub room: usize,
}

impl Visitor for Below<'_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = self.top.join(folder).join(entry.name);
        self.room = self.room.saturating_sub(listed(&path));
        self.found.push(path);
        !entry.name.eq_ignore_ascii_case(".git")
    }

    fn closed(&mut self, folder: &Path) {
        self.closed.push(self.top.join(folder));
    }

    fn enough(&self) -> bool {
        self.room == 0
    }
}
