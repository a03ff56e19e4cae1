//! Local copies of folders that a run changes on another machine: brought up to date from there.
//!
//! The other side is not trusted: whatever names and contents it sends, nothing is written outside
//! of the copies, and no link is followed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Archive, EntryType};

use super::changes::nanoseconds as nanoseconds_of;
use super::changeset::RelPath;
use super::remove::{grant, remove};
use super::walk::{BOTTOM, Entry, Limits, Visitor, open_folder, open_root, walk_to};
use crate::sandbox::{Coming, nanoseconds};

/// Longest record of a list: a path and some numbers.
const LONGEST: u64 = 1 << 17;

/// Most bytes of a list.
const LIST: usize = 512 << 20;

/// Most bytes behind the end of an archive.
const TRAILING: u64 = 1 << 20;

/// Most things that a list may name.
const MOST: usize = 5_000_000;

/// A thing on the other side.
#[derive(Clone, Copy, Debug)]
struct Far {
    kind: FileType,
    mode: Mode,
    is_changed: bool,
    /// Bytes, and when it was written.
    content: (u64, i128),
}

type List = BTreeMap<PathBuf, Far>;

/// Reads the other side's list, tells it which files are wanted, and takes these. Blocking.
pub fn take(coming: &Coming, stream: UnixStream) -> io::Result<()> {
    let other = stream.try_clone()?;
    let taken = take_all(coming, stream);
    if taken.is_err() {
        // Else whoever still tells names, and the other side, would wait for each other. It may have
        // ended.
        let _ = other.shutdown(Shutdown::Both);
    }
    taken
}

fn take_all(coming: &Coming, stream: UnixStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let mut lists = read(coming, &mut reader)?;
    let mut wanted = HashSet::new();
    for (name, root) in &coming.roots {
        let list = lists.entry(name.clone()).or_default();
        // A folder that cannot be listed there must not look like one that is empty.
        if list.remove(Path::new("")).is_none() {
            return Err(wrong("a folder is missing in the list"));
        }
        let root = open_root(root)?;
        for path in prepare(root.as_fd(), list)? {
            wanted.insert(Path::new(name).join(path));
        }
    }
    // At the same time, because neither side keeps what the other does not take.
    let names: Vec<u8> =
        wanted.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
    let telling = thread::spawn(move || {
        let mut stream = BufWriter::new(stream);
        stream.write_all(&names)?;
        stream.into_inner().map_err(io::IntoInnerError::into_error)?.shutdown(Shutdown::Write)
    });
    fetch(coming, reader, wanted, &lists)?;
    telling.join().map_err(|_| io::ErrorKind::Other)??;
    for (name, root) in &coming.roots {
        let (root, list) = (open_root(root)?, &lists[name]);
        // From below, because a folder that is shut takes no more changes.
        let is_one = |kind| [FileType::RegularFile, FileType::Directory].contains(&kind);
        for (path, far) in list.iter().rev().filter(|(_, far)| is_one(far.kind)) {
            set_mode(root.as_fd(), path, far.mode)?;
        }
    }
    Ok(())
}

/// Reads `KIND MODE CHANGED SIZE MODIFIED PATH` of each thing, up to an empty record.
fn read(coming: &Coming, reader: &mut impl BufRead) -> io::Result<BTreeMap<String, List>> {
    let mut lists = BTreeMap::<String, List>::new();
    let mut bytes = 0;
    for _ in 0..MOST {
        let mut record = Vec::new();
        reader.by_ref().take(LONGEST).read_until(0, &mut record)?;
        if record.pop() != Some(0) {
            return Err(wrong("the list ends early"));
        }
        if record.is_empty() {
            return Ok(lists);
        }
        bytes += record.len();
        if bytes > LIST {
            break;
        }
        let (name, path, far) =
            parse(&record, coming.since).ok_or_else(|| wrong("the list makes no sense"))?;
        if !coming.roots.contains_key(&name) {
            return Err(wrong("the list names another folder"));
        }
        lists.entry(name).or_default().insert(path, far);
    }
    Err(wrong("the list is too long"))
}

fn fetch(
    coming: &Coming,
    reader: impl Read,
    mut wanted: HashSet<PathBuf>,
    lists: &BTreeMap<String, List>,
) -> io::Result<()> {
    let (mut archive, mut bytes) = (Archive::new(reader), 0_u64);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        if !wanted.remove(&path) {
            return Err(wrong("a file comes that was not asked for"));
        }
        bytes = bytes.saturating_add(entry.size());
        if bytes > coming.most {
            return Err(wrong("more comes back than `limits.disk`"));
        }
        let mut parts = path.iter();
        let copy = parts.next().and_then(OsStr::to_str).unwrap_or_default();
        let below = parts.as_path();
        let far = lists.get(copy).and_then(|list| list.get(below));
        let (Some(root), Some(far)) = (coming.roots.get(copy), far) else {
            return Err(wrong("a file comes that was not asked for"));
        };
        let root = open_root(root)?;
        let modified = modified(&mut entry)?;
        let (folder, name) = parent(root.as_fd(), below)?;
        remove(folder.as_fd(), name)?;
        let is_link = far.kind == FileType::Symlink;
        match entry.header().entry_type() {
            EntryType::Symlink if is_link => {
                let target =
                    entry.link_name_bytes().ok_or_else(|| wrong("a link leads nowhere"))?;
                rustix::fs::symlinkat(OsStr::from_bytes(&target), &folder, name)?;
            }
            EntryType::Regular if !is_link => {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
                io::copy(&mut entry, &mut std::fs::File::from(file))?;
            }
            _ => return Err(wrong("a file comes as another kind of thing")),
        }
        give(coming.owner, folder.as_fd(), name)?;
        let times = Timestamps { last_access: modified, last_modification: modified };
        rustix::fs::utimensat(&folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // To its end, or the other side could not send it.
    io::copy(&mut archive.into_inner().take(TRAILING), &mut io::sink())?;
    // What could not be read there would be lost without a word.
    match wanted.into_iter().next() {
        None => Ok(()),
        Some(path) => Err(wrong(&format!("a file does not come: {}", path.display()))),
    }
}

/// Gives what was made to the sandbox's user, whose the rest is.
fn give(owner: (u32, u32), folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::chownat(folder, name, Some(uid), Some(gid), flags)?)
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Reads one record. The name of the copy, the path in it and what is there.
fn parse(record: &[u8], since: i128) -> Option<(String, PathBuf, Far)> {
    let mut parts = record.splitn(6, |byte| *byte == b' ');
    let kind = match parts.next()? {
        b"f" => FileType::RegularFile,
        b"d" => FileType::Directory,
        b"l" => FileType::Symlink,
        _ => FileType::Unknown,
    };
    let mut next = || std::str::from_utf8(parts.next()?).ok();
    let mode = u32::from_str_radix(next()?, 8).ok()?;
    let changed = nanoseconds(next()?)?;
    let content = (next()?.parse().ok()?, nanoseconds(next()?)?);
    let whole = Path::new(OsStr::from_bytes(parts.next()?));
    let mut steps = whole.iter();
    let name = steps.next()?.to_str()?.to_owned();
    let path = match steps.as_path() {
        below if below.as_os_str().is_empty() => PathBuf::new(),
        below => RelPath::new(below).ok()?.as_path().to_owned(),
    };
    let far = Far { kind, mode: Mode::from_raw_mode(mode), is_changed: changed > since, content };
    Some((name, path, far))
}

/// Removes what is not there on the other side, makes its folders, and opens those that are shut.
/// Returns the files and links that are wanted.
fn prepare(root: BorrowedFd<'_>, list: &List) -> io::Result<Vec<PathBuf>> {
    let mut here = Here { all: BTreeMap::new(), failed: None };
    let limits = Limits { entries: MOST, time: Duration::MAX };
    // What the last time was made at the bottom is looked at, too.
    let is_whole = walk_to(BOTTOM + 2, root, limits, &mut here);
    if let Some(errno) = here.failed {
        return Err(errno.into());
    }
    if !is_whole {
        return Err(wrong("the copy is too large"));
    }
    let mut gone: Option<PathBuf> = None;
    let mut kept = HashMap::new();
    for (path, (kind, content)) in here.all {
        // It went with the folder that it was in.
        if gone.as_ref().is_some_and(|gone| path.starts_with(gone)) {
            continue;
        }
        if list.get(&path).is_some_and(|far| far.kind == kind) {
            kept.insert(path, content);
            continue;
        }
        let (folder, name) = parent(root, &path)?;
        remove(folder.as_fd(), name)?;
        gone = Some(path);
    }
    // In this order each folder comes before what is in it.
    let is_folder = |far: &Far| far.kind == FileType::Directory;
    for (path, _) in list.iter().filter(|(path, far)| is_folder(far) && !kept.contains_key(*path)) {
        let (folder, name) = parent(root, path)?;
        rustix::fs::mkdirat(&folder, name, Mode::RWXU)?;
    }
    // A clock can be set back, so its word is not the only one.
    let is_same = |path: &Path, far: &Far| match kept.get(path) {
        Some(content) if far.kind == FileType::RegularFile => {
            !far.is_changed && *content == Some(far.content)
        }
        Some(_) => !far.is_changed,
        None => false,
    };
    let files = list.iter().filter(|(path, far)| {
        let is_file = [FileType::RegularFile, FileType::Symlink].contains(&far.kind);
        is_file && !is_same(path, far)
    });
    Ok(files.map(|(path, _)| path.clone()).collect())
}

/// What is in a local copy: kinds, and of files their bytes and when they were written.
struct Here {
    all: BTreeMap<PathBuf, (FileType, Option<(u64, i128)>)>,
    failed: Option<Errno>,
}

impl Visitor for Here {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let kind = entry.kind();
        let stat = entry.stat();
        if kind == FileType::Directory && stat.is_some_and(|stat| stat.st_mode & 0o700 != 0o700) {
            // Shut by the agent, and brought over like that.
            if let Err(errno) = grant(entry.folder(), entry.name, kind, 0o700) {
                self.failed = Some(errno);
            }
        }
        let content = stat.filter(|_| kind == FileType::RegularFile).map(|stat| {
            let modified = nanoseconds_of(stat.st_mtime.into(), stat.st_mtime_nsec.into());
            (u64::try_from(stat.st_size).unwrap_or(0), modified)
        });
        self.all.insert(folder.join(entry.name), (kind, content));
        true
    }

    fn closed(&mut self, _folder: &Path) {
        self.failed = Some(Errno::ACCESS);
    }
}

/// The opened folder that a path of a copy lies in, and its name there.
fn parent<'a>(root: BorrowedFd<'_>, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    Ok((open_folder(root, path.parent().unwrap_or(Path::new("")))?, name))
}

/// Gives a file or folder the mode that it has on the other side.
fn set_mode(root: BorrowedFd<'_>, path: &Path, mode: Mode) -> io::Result<()> {
    let (folder, name) = parent(root, path)?;
    let stat = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    if !is_link && Mode::from_raw_mode(stat.st_mode) != mode {
        rustix::fs::chmodat(&folder, name, mode, AtFlags::empty())?;
    }
    Ok(())
}

/// When a file was written.
fn modified(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Timespec> {
    let mut nanos = i128::from(entry.header().mtime()?) * 1_000_000_000;
    if let Some(extensions) = entry.pax_extensions()? {
        for one in extensions {
            let one = one?;
            if one.key() == Ok("mtime") {
                nanos = one.value().ok().and_then(nanoseconds).unwrap_or(nanos);
            }
        }
    }
    let (seconds, rest) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let seconds = seconds.try_into().map_err(|_| wrong("a time that no file has"))?;
    Ok(Timespec { tv_sec: seconds, tv_nsec: rest.try_into().unwrap_or(0) })
}

#[cfg(test)]
#[path = "mirror_tests.rs"]
mod tests;
