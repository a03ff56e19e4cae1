//! A copy of a workspace, where there is no overlay.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{LayerError, Note, View};
use crate::text::hex;
use crate::workspace::changes;
use crate::workspace::changeset::RelPath;
use crate::workspace::walk::{BOTTOM, Entry, Limits, Visitor, open_folder, open_root, walk_to};
use crate::workspace::{Bounds, WorkspacePath};

const LIST: &str = "copied";
/// Names and inodes of half a million files.
const LARGEST: u64 = 1 << 30;

/// When the copy was done. What the kernel has not changed since then, the run has not either.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Copied {
    pub at: i128,
}

impl Copied {
    pub(super) fn written(folder: &Path) -> Result<Self, LayerError> {
        let path = folder.join(LIST);
        let failed = |errno: Errno| LayerError::io("look at", &path)(errno.into());
        Ok(Self { at: changes::changed(&rustix::fs::stat(&path).map_err(failed)?) })
    }

    /// What was copied.
    pub fn read(folder: &Path) -> io::Result<Vec<(PathBuf, Twin)>> {
        let mut bytes = Vec::new();
        File::open(folder.join(LIST))?.take(LARGEST).read_to_end(&mut bytes)?;
        let lines = bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty());
        let parsed = lines.map(|line| {
            let mut parts = line.splitn(6, |byte| *byte == b' ');
            let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<i128>().ok();
            let (inode, original) = (number()?, number()?);
            let (size, modified) = (number()?, number()?);
            let (inode, original) = (inode.try_into().ok()?, original.try_into().ok()?);
            let sha256 = std::str::from_utf8(parts.next()?).ok().filter(|sha256| *sha256 != "-");
            let sha256 = sha256.map(str::to_owned);
            let path = std::ffi::OsString::from_vec(parts.next()?.to_vec());
            Some((PathBuf::from(path), Twin { inode, original, size, modified, sha256 }))
        });
        parsed.collect::<Option<_>>().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// What was known of a thing when it was copied.
#[derive(Clone, Debug)]
pub struct Twin {
    /// The copy's.
    pub inode: u64,
    /// The inode, size and time of modification of what was copied.
    original: u64,
    size: i128,
    modified: i128,
    /// Of its content, where the copy had to read it.
    pub sha256: Option<String>,
}

impl Twin {
    /// Returns true where the original is still the file that was copied, whatever became of its
    /// mode, its owner and its further names.
    pub fn is(&self, stat: &Stat) -> bool {
        let modified = changes::nanoseconds(stat.st_mtime.into(), stat.st_mtime_nsec.into());
        let now = (stat.st_ino, i128::from(stat.st_size), modified);
        now == (self.original, self.size, self.modified)
    }
}

/// Copies everything but sockets, pipes and devices, and what cannot be read. Answers how, and how
/// much was left out.
pub(super) fn copy(
    workspace: &WorkspacePath,
    to: &Path,
    folder: &Path,
    note: &Note,
    stop: &AtomicBool,
) -> Result<(View, u64), LayerError> {
    let from = workspace.path();
    let list = folder.join(LIST);
    let list = File::options().create_new(true).write(true).mode(0o600).open(&list);
    let list = list.map_err(LayerError::io("make the list", folder))?;
    let empty = note.empty();
    let places = Places { empty: &empty, hidden: &note.hidden };
    fill(from, to, BufWriter::new(list), (note.bounds, places), stop)
}

/// Copies a folder that an agent has written to into an empty one: no link is followed, and
/// nothing but files, folders and links is made.
pub fn copy_folder(from: &Path, to: &Path, bounds: Bounds) -> Result<(), LayerError> {
    let places = Places { empty: &[], hidden: &[] };
    fill(from, to, io::sink(), (bounds, places), &AtomicBool::new(false)).map(drop)
}

/// Places that a copy treats in their own way.
#[derive(Clone, Copy)]
struct Places<'a> {
    empty: &'a [&'a Path],
    hidden: &'a [RelPath],
}

fn fill(
    from: &Path,
    to: &Path,
    list: impl Write,
    (bounds, places): (Bounds, Places<'_>),
    stop: &AtomicBool,
) -> Result<(View, u64), LayerError> {
    let open = |path: &Path| {
        open_root(path).map_err(|errno| LayerError::io("open the folder", path)(errno.into()))
    };
    let (source, target) = (open(from)?, open(to)?);
    let mut copier = Copier {
        root: target.as_fd(),
        here: None,
        list,
        folders: Vec::new(),
        empty: places.empty,
        hidden: places.hidden,
        bounds,
        bytes: 0,
        files: 0,
        left_out: 0,
        sha256: None,
        reflinks: true,
        plain: false,
        stop,
        failed: None,
    };
    // Ends by its own bounds.
    let limits = Limits { entries: usize::MAX, time: Duration::MAX };
    walk_to(BOTTOM, source.as_fd(), limits, &mut copier);
    if let Some(error) = copier.failed.take() {
        return Err(error);
    }
    if stop.load(Ordering::Relaxed) {
        return Err(LayerError::Stopped);
    }
    let failed = |source: io::Error| LayerError::io("copy the workspace to", to)(source);
    // From below, because a folder that may not be written to takes no more entries.
    for (path, stat) in copier.folders.iter().rev() {
        let opened = open_folder(copier.root, path).map_err(|errno| failed(errno.into()))?;
        finish(opened.as_fd(), stat).map_err(|errno| failed(errno.into()))?;
    }
    copier.list.flush().map_err(failed)?;
    let view = if copier.reflinks && !copier.plain { View::Reflink } else { View::Copy };
    Ok((view, copier.left_out))
}

/// Most files, and bytes in them, that are copied within a tenth of a second.
const FEW: (usize, u64) = (200, 4 << 20);

/// Tells whether a copy takes less than a tenth of a second, by a look that takes less than that.
pub(super) fn is_quick(workspace: &WorkspacePath, note: &Note) -> bool {
    let Ok(root) = open_root(workspace.path()) else { return false };
    let limits = Limits { entries: FEW.0, time: Duration::from_millis(30) };
    let empty = note.empty();
    let mut weighed = Weighed { bytes: 0, empty: &empty };
    walk_to(BOTTOM, root.as_fd(), limits, &mut weighed) && weighed.bytes <= FEW.1
}

struct Weighed<'a> {
    bytes: u64,
    empty: &'a [&'a Path],
}

impl Visitor for Weighed<'_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if self.empty.contains(&&*folder.join(entry.name)) {
            return false;
        }
        if entry.kind() == FileType::RegularFile
            && let Some(stat) = entry.stat()
        {
            self.bytes = self.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
        }
        true
    }

    fn enough(&self) -> bool {
        self.bytes > FEW.1
    }
}

struct Copier<'a, L> {
    root: BorrowedFd<'a>,
    /// The folder of the copy that is being filled.
    here: Option<Rc<OwnedFd>>,
    /// Gets the name and inode of each copy.
    list: L,
    folders: Vec<(PathBuf, Stat)>,
    /// Places of the copy under which nothing is copied.
    empty: &'a [&'a Path],
    hidden: &'a [RelPath],
    bounds: Bounds,
    bytes: u64,
    files: u64,
    left_out: u64,
    /// Of the content that was copied last.
    sha256: Option<String>,
    /// Whether the file system has not refused yet.
    reflinks: bool,
    /// Whether anything was copied byte by byte.
    plain: bool,
    stop: &'a AtomicBool,
    failed: Option<LayerError>,
}

/// Why one entry is not in the copy.
enum Not {
    /// It is not for the agent.
    Hidden,
    /// It is nothing to copy, cannot be read, or has just gone.
    Copied,
    Failed(io::Error),
}

impl From<Errno> for Not {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

impl<L: Write> Copier<'_, L> {
    fn one(&mut self, folder: &Path, entry: &Entry<'_>) -> Result<(), Not> {
        let stat = entry.stat().ok_or(Not::Copied)?;
        if self.hidden.iter().any(|hidden| hidden.as_path() == folder.join(entry.name)) {
            return Err(Not::Hidden);
        }
        let here = self.here.clone().ok_or(Not::Copied)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(&here, entry.name, Mode::RWXU)?;
                self.folders.push((folder.join(entry.name), stat));
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(entry.folder(), entry.name, Vec::new());
                let target = target.map_err(|_| Not::Copied)?;
                rustix::fs::symlinkat(&target, &here, entry.name)?;
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                if let Some((uid, gid)) = owner(&stat) {
                    rustix::fs::chownat(&here, entry.name, Some(uid), Some(gid), flags)?;
                }
                rustix::fs::utimensat(&here, entry.name, &times(&stat), flags)?;
            }
            FileType::RegularFile => {
                // A file that grows while it is copied must not fill the disk.
                let room = self.bounds.bytes.saturating_sub(self.bytes);
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = rustix::fs::openat(entry.folder(), entry.name, flags, Mode::empty());
                let from = from.map_err(|_| Not::Copied)?;
                let stat = rustix::fs::fstat(&from)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(Not::Copied);
                }
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::RUSR | Mode::WUSR;
                let to = rustix::fs::openat(&here, entry.name, flags, mode)?;
                if !self.is_empty(folder, entry.name) {
                    self.bytes += self.content(from, &to, &stat, room).map_err(Not::Failed)?;
                }
                finish(to.as_fd(), &stat)?;
            }
            _ => return Err(Not::Copied),
        }
        let made = rustix::fs::statat(&here, entry.name, AtFlags::SYMLINK_NOFOLLOW)?;
        let path = folder.join(entry.name);
        let modified = changes::nanoseconds(stat.st_mtime.into(), stat.st_mtime_nsec.into());
        let sha256 = self.sha256.take().unwrap_or_else(|| "-".into());
        let (inode, original, size) = (made.st_ino, stat.st_ino, stat.st_size);
        let line = write!(self.list, "{inode} {original} {size} {modified} {sha256} ")
            .and_then(|()| self.list.write_all(path.as_os_str().as_bytes()))
            .and_then(|()| self.list.write_all(b"\0"));
        line.map_err(Not::Failed)
    }

    fn is_empty(&self, folder: &Path, name: &OsStr) -> bool {
        !self.empty.is_empty() && self.empty.contains(&&*folder.join(name))
    }

    fn content(&mut self, from: OwnedFd, to: &OwnedFd, stat: &Stat, room: u64) -> io::Result<u64> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if size == 0 || size > room {
            // The bound is looked at after each entry.
            return Ok(size);
        }
        if self.reflinks {
            match rustix::fs::ioctl_ficlone(to, &from) {
                Ok(()) => return Ok(size),
                Err(_) => self.reflinks = false,
            }
        }
        self.plain = true;
        let mut to = File::from(to.try_clone()?);
        let mut from = File::from(from).take(room);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; usize::try_from(size.clamp(1, 128 << 10)).unwrap_or(1)];
        let mut copied = 0;
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                self.sha256 = Some(hex(&hasher.finalize()));
                return Ok(copied);
            }
            copied += count as u64;
            to.write_all(&buffer[..count])?;
            hasher.update(&buffer[..count]);
        }
    }
}

impl<L: Write> Visitor for Copier<'_, L> {
    fn enter(&mut self, folder: &Path, _opened: BorrowedFd<'_>) {
        match open_folder(self.root, folder) {
            Ok(here) => self.here = Some(Rc::new(here)),
            Err(errno) => {
                self.failed = Some(LayerError::io("open the copy of", folder)(errno.into()));
            }
        }
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        match self.one(folder, entry) {
            Ok(()) => self.files += 1,
            Err(Not::Hidden) => return false,
            Err(Not::Copied) => {
                self.left_out += 1;
                return false;
            }
            Err(Not::Failed(source)) => {
                self.failed = Some(LayerError::io("copy", &folder.join(entry.name))(source));
                return false;
            }
        }
        if self.is_empty(folder, entry.name) {
            return false;
        }
        let Bounds { bytes, files } = self.bounds;
        if self.bytes > bytes {
            let allowed = bytes >> 20;
            self.failed = Some(LayerError::TooLarge { what: "MiB", allowed, key: "limits.disk" });
        } else if self.files > files {
            self.failed =
                Some(LayerError::TooLarge { what: "files", allowed: files, key: "limits.files" });
        }
        true
    }

    fn closed(&mut self, _folder: &Path) {
        self.left_out += 1;
    }

    fn too_deep(&mut self, _folder: &Path, _entry: &Entry<'_>) {
        self.left_out += 1;
    }

    fn enough(&self) -> bool {
        self.failed.is_some() || self.stop.load(Ordering::Relaxed)
    }
}

/// Gives a copy the owner, mode and times of its original.
fn finish(copy: BorrowedFd<'_>, stat: &Stat) -> Result<(), Errno> {
    if let Some((uid, gid)) = owner(stat) {
        rustix::fs::fchown(copy, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode & 0o1777))?;
    rustix::fs::futimens(copy, &times(stat))
}

/// Whom a copy is to be given to; nobody where we cannot.
fn owner(stat: &Stat) -> Option<(Uid, Gid)> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, rest: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: rest.try_into().unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
