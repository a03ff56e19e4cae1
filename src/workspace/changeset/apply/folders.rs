//! The folders that an application changes names in, each opened once, before the first change.
//!
//! A path can lead elsewhere at any moment: somebody swaps a folder for a link and back. So steps
//! and their undoing go by descriptors, and the journal has the device and inode of each. After a
//! crash a folder is found again by its path, and only if it is the one that was opened then.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::super::RelPath;
use crate::workspace::walk::{open_folder, step};

/// How long a recovery looks for folders that are not in their places, all together. Somebody who
/// swaps them for links puts them back soon.
pub(super) const PATIENCE: Duration = Duration::from_millis(300);
pub(super) const AGAIN: Duration = Duration::from_millis(2);

/// What a folder stays, wherever it is moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(folder: impl AsFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(folder)?;
        Ok(Self { device: stat.st_dev, inode: stat.st_ino })
    }
}

/// A folder, as a journal tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FolderMark {
    path: RelPath,
    #[serde(flatten)]
    is: Identity,
}

#[derive(Debug)]
struct Folder {
    is: Identity,
    /// Not yet, after a crash.
    opened: Option<OwnedFd>,
    /// Taken away by a step of ours, so that its path leads to it no more.
    removed: bool,
}

#[derive(Debug)]
pub(super) struct Folders<'a> {
    root: BorrowedFd<'a>,
    known: BTreeMap<PathBuf, Folder>,
    patience: Option<Instant>,
}

impl<'a> Folders<'a> {
    pub fn new(root: BorrowedFd<'a>) -> Self {
        Self { root, known: BTreeMap::new(), patience: None }
    }

    /// Those that a journal tells of, to be found again.
    pub fn recalled(root: BorrowedFd<'a>, marks: &[FolderMark]) -> Self {
        let known = marks.iter().map(|mark| {
            let folder = Folder { is: mark.is, opened: None, removed: false };
            (mark.path.as_path().to_owned(), folder)
        });
        Self { root, known: known.collect(), patience: Some(Instant::now() + PATIENCE) }
    }

    pub fn marks(&self) -> Vec<FolderMark> {
        let mark = |(path, folder): (&PathBuf, &Folder)| {
            Some(FolderMark { path: RelPath::new(path).ok()?, is: folder.is })
        };
        self.known.iter().filter_map(mark).collect()
    }

    /// The file system of the workspace.
    pub fn device(&self) -> Option<u64> {
        Identity::of(self.root).ok().map(|is| is.device)
    }

    /// Opens a folder of the workspace, from the one above, which stays open as well.
    pub fn open(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Errno> {
        if let (false, Some(above), Some(name)) =
            (self.known.contains_key(path), path.parent(), path.file_name())
        {
            let opened = match step(self.open(above)?, name) {
                Err(Errno::MFILE) if more_descriptors() => step(self.open(above)?, name),
                opened => opened,
            };
            self.add(path, opened?)?;
        }
        self.get(path)
    }

    /// Takes in a folder that was made just now, and that is to be at this path.
    pub fn add(&mut self, path: &Path, opened: OwnedFd) -> Result<(), Errno> {
        let is = Identity::of(&opened)?;
        let folder = Folder { is, opened: Some(opened), removed: false };
        self.known.insert(path.to_owned(), folder);
        Ok(())
    }

    /// Notes that a step took a folder away.
    pub fn removed(&mut self, path: &Path) {
        if let Some(folder) = self.known.get_mut(path) {
            folder.removed = true;
        }
    }

    /// Whether the folder of this path is still there, wherever it is by now.
    pub fn has(&mut self, path: &Path) -> bool {
        self.known.get(path).is_some_and(|folder| !folder.removed) && self.get(path).is_ok()
    }

    pub fn identity(&self, path: &Path) -> Option<Identity> {
        self.known.get(path).map(|folder| folder.is)
    }

    /// The folder that was opened for this path, or [`Errno::NOENT`] where it is gone.
    pub fn get(&mut self, path: &Path) -> Result<BorrowedFd<'_>, Errno> {
        if path.as_os_str().is_empty() {
            return Ok(self.root);
        }
        let folder = self.known.get_mut(path).ok_or(Errno::NOENT)?;
        if folder.opened.is_none() {
            folder.opened = Some(find(self.root, path, folder.is, self.patience)?);
        }
        folder.opened.as_ref().map(AsFd::as_fd).ok_or(Errno::NOENT)
    }

    /// A folder whose path leads elsewhere by now.
    pub fn strayed(&self) -> Option<&Path> {
        let strayed = |(path, folder): &(&PathBuf, &Folder)| {
            let found = open_folder(self.root, path).and_then(Identity::of);
            !folder.removed && found != Ok(folder.is)
        };
        self.known.iter().find(strayed).map(|(path, _)| path.as_path())
    }

    /// Makes the names in all of them outlive a loss of power.
    pub fn sync(&mut self) -> Result<(), Errno> {
        rustix::fs::fsync(self.root)?;
        for folder in self.known.values().filter(|folder| !folder.removed) {
            if let Some(opened) = &folder.opened {
                rustix::fs::fsync(opened)?;
            }
        }
        Ok(())
    }
}

fn find(
    root: BorrowedFd<'_>,
    path: &Path,
    is: Identity,
    patience: Option<Instant>,
) -> Result<OwnedFd, Errno> {
    loop {
        match open_folder(root, path) {
            Ok(opened) if Identity::of(&opened) == Ok(is) => return Ok(opened),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno),
        }
        if patience.is_none_or(|until| Instant::now() >= until) {
            return Err(Errno::NOENT);
        }
        std::thread::sleep(AGAIN);
    }
}

/// Raises the number of descriptors that this process may have to what it may be raised to; false
/// where that is what it is.
fn more_descriptors() -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    current != maximum && setrlimit(Resource::Nofile, raised).is_ok()
}

/// Whether two spellings of a name are one in this folder.
pub(super) fn folds_case(folder: BorrowedFd<'_>) -> bool {
    // exFAT, FAT, NTFS, and shares of other systems.
    const KINDS: [i64; 6] =
        [0x2011_BAB0, 0x4d44, 0x5346_544e, 0x7366_746e, 0xff53_4d42, 0xfe53_4d42];
    const CASEFOLD: u32 = 0x4000_0000;
    let kind = rustix::fs::fstatfs(folder).map(|stat| stat.f_type & 0xffff_ffff);
    kind.is_ok_and(|kind| KINDS.contains(&kind))
        || rustix::fs::ioctl_getflags(folder).is_ok_and(|flags| flags.bits() & CASEFOLD != 0)
}
