//! The new contents, each under its hash.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, MemfdFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{Node, tree};
use crate::text::hex;
use crate::workspace::remove::grant;

pub struct Blobs {
    folder: PathBuf,
    /// How much may still be read.
    room: u64,
    made: bool,
    /// Nobody writes to the layer any more, so its files can be had without a copy.
    may_link: bool,
}

/// The place of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Layer,
    /// Its owner may write to it at any moment.
    Workspace,
}

/// Why a content is not kept.
pub enum Not {
    /// It cannot be, and the result is without it.
    Kept(&'static str),
    /// Nothing can be.
    Failed(io::Error),
}

impl Blobs {
    pub fn new(folder: &Path, room: u64, may_link: bool) -> Self {
        Self { folder: folder.to_owned(), room, made: false, may_link }
    }

    /// Tells what a file is, and keeps its content unless it is as `before`.
    pub fn keep(
        &mut self,
        file: &mut File,
        (stat, source): (&Stat, Source),
        before: Option<&Node>,
    ) -> Result<Node, Not> {
        let mode = stat.st_mode & 0o777;
        let unread = |_| Not::Kept("unreadable");
        let too_large = || Not::Kept("larger than what may be kept");
        // Reading a hole takes as long as reading what is there.
        if u64::try_from(stat.st_size).is_ok_and(|size| size > self.room) {
            return Err(too_large());
        }
        let hashed = tree::hash(file, self.room).map_err(unread)?;
        let (sha256, size) = hashed.ok_or_else(too_large)?;
        self.room -= size;
        let known =
            |node: &Node| matches!(node, Node::File { sha256: same, .. } if *same == sha256);
        if !before.is_some_and(known) {
            let plain = stat.st_mode & 0o7400 == 0o400 && stat.st_nlink == 1;
            let is_ours = self.may_link && source == Source::Layer && plain;
            self.store(file, &sha256, size, is_ours)?;
        }
        Ok(Node::File { sha256, size, mode })
    }

    /// Keeps a content; gives its hash and size.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<(String, u64)> {
        let sha256 = hex(&Sha256::digest(bytes));
        let size = bytes.len() as u64;
        let mut file = File::from(rustix::fs::memfd_create("content", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        match self.store(&mut file, &sha256, size, false) {
            Ok(()) => Ok((sha256, size)),
            Err(Not::Failed(error)) => Err(error),
            Err(Not::Kept(why)) => Err(io::Error::other(why)),
        }
    }

    /// A content that is kept, of up to `most` bytes.
    pub fn get(&self, sha256: &str, most: u64) -> Option<Vec<u8>> {
        let file = File::open(self.folder.join(sha256)).ok()?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn store(
        &mut self,
        file: &mut File,
        sha256: &str,
        size: u64,
        is_ours: bool,
    ) -> Result<(), Not> {
        if !self.made {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
            made.map_err(Not::Failed)?;
            self.made = true;
        }
        let path = self.folder.join(sha256);
        // What was interrupted has another name.
        if path.symlink_metadata().is_ok_and(|meta| meta.len() == size) {
            return Ok(());
        }
        // A second name is made in no time, and its file outlives the layer.
        let opened = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        if is_ours && rustix::fs::linkat(CWD, &*opened, CWD, &path, follow).is_ok() {
            return Ok(());
        }
        let partial = self.folder.join("partial");
        Self::write(file, &partial, sha256, size).map_err(Not::Failed)?;
        fs::rename(&partial, &path).map_err(Not::Failed)
    }

    fn write(file: &mut File, to: &Path, sha256: &str, size: u64) -> io::Result<()> {
        let mut options = File::options();
        let mut copy = options.create(true).write(true).truncate(true).mode(0o600).open(to)?;
        if rustix::fs::ioctl_ficlone(&copy, &*file).is_ok() {
            return Ok(());
        }
        file.rewind()?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        let mut left = size;
        loop {
            let count = file.read(&mut buffer)?;
            let Some(rest) = left.checked_sub(count as u64) else { break };
            if count == 0 {
                break;
            }
            left = rest;
            hasher.update(&buffer[..count]);
            // A hole costs an agent nothing, and shall cost us no more.
            if buffer[..count].iter().all(|byte| *byte == 0) {
                copy.seek(io::SeekFrom::Current(i64::try_from(count).unwrap_or(i64::MAX)))?;
            } else {
                copy.write_all(&buffer[..count])?;
            }
        }
        copy.set_len(size)?;
        if left == 0 && hex(&hasher.finalize()) == sha256 {
            Ok(())
        } else {
            Err(io::Error::other("a file of the layer changed while it was read"))
        }
    }
}

/// Opens a file of a layer. The run may have shut it, which its owner may undo: its mode is put
/// back.
pub fn open_written(folder: BorrowedFd<'_>, name: &OsStr) -> Result<(File, Stat), Not> {
    let opened = match tree::open_file(folder, name) {
        Err(Errno::ACCESS) => open_shut(folder, name),
        other => other,
    };
    opened.map_err(|_| Not::Kept("unreadable"))
}

fn open_shut(folder: BorrowedFd<'_>, name: &OsStr) -> Result<(File, Stat), Errno> {
    let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    grant(folder, name, FileType::RegularFile, 0o400)?;
    let (file, _) = tree::open_file(folder, name)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok((file, stat))
}
