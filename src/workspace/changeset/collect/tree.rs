//! Looking at single things without following a link.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Node;
use crate::text::hex;
use crate::workspace::changeset::Escaped;

/// Opens a regular file; nothing else is opened for longer than it takes to see what it is.
pub fn open_file(folder: BorrowedFd<'_>, name: &OsStr) -> Result<(File, Stat), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened: OwnedFd = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&opened)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((File::from(opened), stat))
}

/// Hashes a file to its end, if that is within `most` bytes; answers the hash and how many there
/// were.
pub fn hash(file: &mut File, most: u64) -> io::Result<Option<(String, u64)>> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut size = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(Some((hex(&hasher.finalize()), size)));
        }
        size += count as u64;
        if size > most {
            return Ok(None);
        }
        hasher.update(&buffer[..count]);
    }
}

/// A symbolic link as it is listed.
pub fn link(folder: BorrowedFd<'_>, name: &OsStr) -> Option<Node> {
    let target = rustix::fs::readlinkat(folder, name, Vec::new()).ok()?;
    Some(Node::Link { target: Escaped(target.into_bytes()) })
}
