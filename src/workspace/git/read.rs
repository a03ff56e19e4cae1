//! Reading git directories: without a link, regular files alone, each of them bounded.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::walk::{open_folder, open_root};

/// Most of a file that holds one path or one id.
pub(super) const LINE: u64 = 8 << 10;

/// Opens a folder by its absolute path; a link anywhere on the way is an error.
pub(super) fn open_absolute(path: &Path) -> Result<OwnedFd, Errno> {
    let below = path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
    open_folder(open_root(Path::new("/"))?.as_fd(), below)
}

/// Opens a regular file, which nothing can be waited for.
pub(super) fn open_file(folder: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let found = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        _ => Err(Errno::INVAL),
    }
}

/// What lies at a name, which is not followed.
pub(super) fn look(folder: BorrowedFd<'_>, name: &str) -> Option<Stat> {
    rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

pub(super) fn is_folder(folder: BorrowedFd<'_>, name: &str) -> bool {
    look(folder, name)
        .is_some_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// Reads a file of at most so many bytes; none where there is no such file, or it has more.
pub(super) fn small(folder: BorrowedFd<'_>, name: &str, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = open_file(folder, OsStr::new(name)).ok()?;
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

/// Reads the one line of a file, without its end.
pub(super) fn line(folder: BorrowedFd<'_>, name: &str) -> Option<String> {
    let text = String::from_utf8(small(folder, name, LINE)?).ok()?;
    let text = text.trim_end_matches(['\n', '\r']);
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.to_owned())
}

/// Resolves a path against an absolute folder by its text alone. There are no links on the way of
/// what is opened by [`open_absolute`], so the text says where it leads.
pub(super) fn resolved(folder: &Path, path: &str) -> PathBuf {
    let mut at = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => {
                at.pop();
            }
            Component::CurDir => {}
            part => at.push(part),
        }
    }
    at
}

/// Returns true for the hexadecimal name of an object.
pub(super) fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
