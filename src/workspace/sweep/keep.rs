//! Keeping what is swept, for a person to look at.
//!
//! In the record it must be as inert as can be: a copy of an evil repository would be one, and so
//! every file gets a further ending, plain letters for a name and no right to be executed.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::super::walk::{open_folder, open_root, step};
use super::remove::{grant, open_anyway};

const ENDING: &str = ".swept";

/// As deep as anything is looked at.
const DEEPEST: usize = 64;

/// Where swept things go, and how much of them.
#[derive(Debug)]
pub(super) struct Keeper<'a> {
    into: &'a Path,
    opened: Option<OwnedFd>,
    bytes: u64,
    entries: usize,
}

/// What became of one of them.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Relative to the record.
    pub at: Option<PathBuf>,
    /// What is not in the record.
    pub missing: Option<&'static str>,
}

const TOO_MUCH: &str = "not all of it is kept, because it was too much";
const UNREADABLE: &str = "not all of it could be kept";

impl<'a> Keeper<'a> {
    pub fn new(into: &'a Path, bytes: u64, entries: usize) -> Self {
        Self { into, opened: None, bytes, entries }
    }

    /// Copies one entry of a folder. `path` is where it lies in the workspace.
    pub fn keep(&mut self, parent: BorrowedFd<'_>, path: &Path) -> Kept {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Kept::default();
        };
        let mut missing = None;
        let at = self
            .folder(folder)
            .and_then(|(opened, at)| {
                let kept = self.copy(parent, name, opened.as_fd(), 0, &mut missing)?;
                Ok(kept.map(|name| at.join(name)))
            })
            .unwrap_or_else(|_| {
                missing = Some(UNREADABLE);
                None
            });
        Kept { at, missing }
    }

    /// The folder of the record that stands for one of the workspace, made if need be.
    fn folder(&mut self, folder: &Path) -> Result<(OwnedFd, PathBuf), Errno> {
        if self.opened.is_none() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(self.into);
            made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            self.opened = Some(open_root(self.into)?);
        }
        let Some(root) = &self.opened else { return Err(Errno::IO) };
        let mut opened = open_folder(root.as_fd(), Path::new(""))?;
        let mut at = PathBuf::new();
        for part in folder.components() {
            let name = plain(part.as_os_str());
            opened = make_folder(opened.as_fd(), &name)?;
            at.push(name);
        }
        Ok((opened, at))
    }

    /// Copies one entry; answers its name in the record.
    fn copy(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        into: BorrowedFd<'_>,
        depth: usize,
        missing: &mut Option<&'static str>,
    ) -> Result<Option<String>, Errno> {
        let found = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if self.entries == 0 {
            *missing = Some(TOO_MUCH);
            return Ok(None);
        }
        self.entries -= 1;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                if depth >= DEEPEST {
                    *missing = Some(TOO_MUCH);
                    return Ok(None);
                }
                let at = plain(name);
                let made = make_folder(into, &at)?;
                let opened = open_anyway(parent, name)?;
                let mut entries = Dir::read_from(&opened)?;
                while let Some(entry) = entries.read() {
                    let entry = entry?;
                    let inner = OsStr::from_bytes(entry.file_name().to_bytes());
                    if inner == "." || inner == ".." {
                        continue;
                    }
                    if self.entries == 0 {
                        *missing = Some(TOO_MUCH);
                        break;
                    }
                    if self.copy(opened.as_fd(), inner, made.as_fd(), depth + 1, missing).is_err() {
                        *missing = Some(UNREADABLE);
                    }
                }
                Ok(Some(at))
            }
            FileType::RegularFile => {
                // Its size is what it claims; a file of nothing but holes is as large when read.
                if u64::try_from(found.st_size).map_or(true, |size| size > self.bytes) {
                    *missing = Some(TOO_MUCH);
                    return Ok(None);
                }
                let source = open_file(parent, name)?;
                let (mut file, at) = make_file(into, name)?;
                let mut source = source.take(self.bytes);
                let copied = std::io::copy(&mut source, &mut file);
                let copied = copied.map_err(|error| io_errno(&error))?;
                self.bytes -= copied.min(self.bytes);
                Ok(Some(at))
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
                let (mut file, at) = make_file(into, name)?;
                let text = [b"a symbolic link to ", target.to_bytes(), b"\n"].concat();
                file.write_all(&text).map_err(|error| io_errno(&error))?;
                Ok(Some(at))
            }
            // There is nothing in it.
            _ => Ok(None),
        }
    }
}

fn io_errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Opens a regular file to be read, without waiting for anybody and without following a link.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &OsStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(parent, name, flags, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            // Shut by the run; it is about to be removed anyway.
            grant(parent, name, FileType::RegularFile, 0o600)?;
            open()?
        }
        opened => opened?,
    };
    let found = rustix::fs::fstat(&opened)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok(File::from(opened))
}

fn make_folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => step(parent, OsStr::new(name)),
        Err(errno) => Err(errno),
    }
}

/// Makes a file for what was called `name`; two names can have become one.
fn make_file(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(File, String), Errno> {
    let plain = plain(name);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for number in 0..100 {
        let name = match number {
            0 => format!("{plain}{ENDING}"),
            _ => format!("{plain}.{number}{ENDING}"),
        };
        match rustix::fs::openat(parent, &name, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => {}
            opened => return Ok((File::from(opened?), name)),
        }
    }
    Err(Errno::EXIST)
}

/// A name of plain letters.
fn plain(name: &OsStr) -> String {
    let lossy = name.to_string_lossy();
    let plain = lossy.chars().take(200).map(|letter| {
        if letter.is_ascii_alphanumeric() || "._-+@~ ".contains(letter) { letter } else { '_' }
    });
    plain.collect()
}
