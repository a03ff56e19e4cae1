//! What is at a path of a workspace now, looked at without following a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::walk::open_folder;
use super::store::copy;
use super::{Escaped, Node, RelPath};

/// Permission bits of a stat.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o777
}

/// One entry of a folder.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    Node(Node, Stat),
    /// A regular file of a size that nobody asked for, whose content was not read.
    OtherFile(Stat),
    Special,
}

impl Seen {
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::Node(node, _) => Some(node),
            _ => None,
        }
    }

    pub fn stat(&self) -> Option<&Stat> {
        match self {
            Self::Node(_, stat) | Self::OtherFile(stat) => Some(stat),
            _ => None,
        }
    }

    pub fn is(&self, wanted: Option<&Node>) -> bool {
        match (self, wanted) {
            (Self::Nothing, None) => true,
            (Self::Node(node, _), Some(wanted)) => node == wanted,
            _ => false,
        }
    }
}

/// Returns true for two files with one content, whatever their modes.
pub(super) fn same_content(one: Option<&Node>, other: Option<&Node>) -> bool {
    match (one, other) {
        (Some(Node::File { sha256: one, .. }), Some(Node::File { sha256: other, .. })) => {
            one == other
        }
        _ => false,
    }
}

/// The folder that a path is in.
pub(super) fn parent_of(root: BorrowedFd<'_>, path: &RelPath) -> Result<OwnedFd, Errno> {
    open_folder(root, path.as_path().parent().unwrap_or(Path::new("")))
}

/// The last part of a path; each has one.
pub(super) fn name_of(path: &RelPath) -> &OsStr {
    path.as_path().file_name().unwrap_or_default()
}

/// Looks at an entry. A file is read only where its size is one of `sizes`.
pub(super) fn look(parent: BorrowedFd<'_>, name: &OsStr, sizes: &[u64]) -> io::Result<Seen> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Seen::Nothing),
        Err(errno) => return Err(errno.into()),
    };
    let node = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Node::Folder { mode: permissions(&stat) },
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            Node::Link { target: Escaped(target.into_bytes()) }
        }
        FileType::RegularFile => {
            if !u64::try_from(stat.st_size).is_ok_and(|size| sizes.contains(&size)) {
                return Ok(Seen::OtherFile(stat));
            }
            let Some((mut file, stat)) = regular(parent, name)? else { return Ok(Seen::Special) };
            let (sha256, size) = copy(&mut file, &mut io::sink())?;
            let mode = permissions(&stat);
            return Ok(Seen::Node(Node::File { sha256, size, mode }, stat));
        }
        _ => return Ok(Seen::Special),
    };
    Ok(Seen::Node(node, stat))
}

/// Opens a regular file; nothing where it has become something else.
pub(super) fn regular(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<(File, Stat)>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(opened.as_fd())?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_file.then(|| (File::from(opened), stat)))
}
