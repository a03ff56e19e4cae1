//! A repository as git may see it: settings of ours, everything else the project's.
//!
//! Git runs programs that a repository's settings name (monitors, filters, hooks, helpers, pagers,
//! and more with each release), reads further settings from where they point, and fetches what is
//! missing. So it never reads the project's settings: it gets a private folder with settings
//! written here, a copy of the index and of `HEAD`, and the project's objects. These are reached by
//! name: who can place links among them can have a commit shown of another repository, if they know
//! its id already.

use std::fmt::Write;
use std::fs::{self, File, FileTimes};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use tempfile::TempDir;

use super::super::gitconfig::parse;
use super::super::walk::open_folder;
use super::place::{self, regular};
use super::{Error, Project};

const SMALL: u64 = 1 << 20;
const PACKED_REFS: u64 = 32 << 20;
const INDEX: u64 = 128 << 20;
/// References that lead to references.
const DEEPEST: usize = 5;

/// Where `HEAD` is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Nothing when a commit is checked out directly.
    pub branch: Option<String>,
    /// Nothing before the first commit.
    pub commit: Option<String>,
}

/// A folder for git, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Private {
    pub folder: TempDir,
    pub head: Head,
}

impl Project {
    /// Makes the private folder, in `place`.
    pub(super) fn private(&self, place: &Path) -> Result<Private, Error> {
        let unusual = |why| Error::Unusual { given: place::shown(&self.path), why };
        let git = match rustix::fs::statat(self.root(), ".git", AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                open_folder(self.root(), Path::new(".git"))
                    .map_err(|errno| read_failed(errno.into()))?
            }
            Ok(_) => {
                return Err(unusual(
                    "its `.git` leads elsewhere (a linked worktree, a submodule, or a link)",
                ));
            }
            Err(Errno::NOENT) => {
                return Err(Error::NoRepository { given: place::shown(&self.path) });
            }
            Err(errno) => return Err(read_failed(errno.into())),
        };
        let git = git.as_fd();
        if open_folder(git, Path::new("objects")).is_err() {
            return Err(unusual("it has no objects of its own"));
        }
        if exists(git, "objects/info/alternates") {
            return Err(unusual("it borrows objects from another repository"));
        }
        if exists(git, "reftable") {
            return Err(unusual("it keeps its references in a reftable"));
        }
        let head = head(git)?.ok_or_else(|| unusual("its `HEAD` cannot be understood"))?;
        let folder = tempfile::Builder::new()
            .prefix("sandbox-mcp-git-")
            .tempdir_in(place)
            .map_err(|source| Error::Io { what: "make a folder for git", source })?;
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, content))
        };
        let settings = settings(&small(git, "config", SMALL)?.unwrap_or_default());
        let made = (|| {
            write("config", settings.as_bytes())?;
            fs::create_dir_all(folder.path().join("refs"))?;
            fs::create_dir_all(folder.path().join("objects"))?;
            match (&head.branch, &head.commit) {
                (Some(branch), commit) => {
                    write("HEAD", format!("ref: refs/heads/{branch}\n").as_bytes())?;
                    if let Some(commit) = commit {
                        write(&format!("refs/heads/{branch}"), format!("{commit}\n").as_bytes())?;
                    }
                }
                (None, Some(commit)) => write("HEAD", format!("{commit}\n").as_bytes())?,
                (None, None) => {}
            }
            Ok(())
        })();
        made.map_err(write_failed)?;
        for name in ["info/exclude", "shallow"] {
            if let Some(content) = small(git, name, SMALL)? {
                write(name, &content).map_err(write_failed)?;
            }
        }
        copy_index(git, folder.path())?;
        Ok(Private { folder, head })
    }
}

fn write_failed(source: std::io::Error) -> Error {
    Error::Io { what: "write a folder for git", source }
}

fn read_failed(source: std::io::Error) -> Error {
    Error::Io { what: "read the repository", source }
}

fn exists(git: BorrowedFd<'_>, name: &str) -> bool {
    rustix::fs::statat(git, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Opens a regular file below `.git`; links and the like are as good as nothing.
fn open(git: BorrowedFd<'_>, name: &str) -> Result<Option<File>, Error> {
    let path = Path::new(name);
    let (Some(parent), Some(last)) = (path.parent(), path.file_name()) else { return Ok(None) };
    match open_folder(git, parent).and_then(|parent| regular(parent.as_fd(), last)) {
        Ok(file) => Ok(file),
        // What the name of a reference can be may be too long or no name for a file.
        Err(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::NXIO
            | Errno::INVAL
            | Errno::ISDIR
            | Errno::NAMETOOLONG,
        ) => Ok(None),
        Err(errno) => Err(read_failed(errno.into())),
    }
}

fn small(git: BorrowedFd<'_>, name: &str, most: u64) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = open(git, name)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(read_failed)?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

fn text(git: BorrowedFd<'_>, name: &str, most: u64) -> Result<Option<String>, Error> {
    Ok(small(git, name, most)?.and_then(|bytes| String::from_utf8(bytes).ok()))
}

/// What `HEAD` says, and the commit behind it. Nothing when it makes no sense.
fn head(git: BorrowedFd<'_>) -> Result<Option<Head>, Error> {
    let Some(first) = text(git, "HEAD", 4096)? else { return Ok(None) };
    let first = first.trim();
    let Some(reference) = first.strip_prefix("ref:").map(str::trim) else {
        let commit = is_id(first).then(|| first.to_owned());
        return Ok(commit.map(|commit| Head { branch: None, commit: Some(commit) }));
    };
    let Some(branch) = reference.strip_prefix("refs/heads/").filter(|name| is_branch(name)) else {
        return Ok(None);
    };
    let commit = resolve(git, reference)?;
    Ok(Some(Head { branch: Some(branch.to_owned()), commit }))
}

fn resolve(git: BorrowedFd<'_>, reference: &str) -> Result<Option<String>, Error> {
    let mut reference = reference.to_owned();
    for _ in 0..DEEPEST {
        let Some(value) = text(git, &reference, 4096)? else { return packed(git, &reference) };
        let value = value.trim();
        match value.strip_prefix("ref:").map(str::trim) {
            Some(next) if next.starts_with("refs/") && is_branch(next) => {
                next.clone_into(&mut reference);
            }
            Some(_) => return Ok(None),
            None => return Ok(is_id(value).then(|| value.to_owned())),
        }
    }
    Ok(None)
}

fn packed(git: BorrowedFd<'_>, reference: &str) -> Result<Option<String>, Error> {
    let all = small(git, "packed-refs", PACKED_REFS)?.unwrap_or_default();
    let found = all
        .split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.trim_end().split_once(' '))
        .find(|(id, name)| *name == reference && is_id(id));
    Ok(found.map(|(id, _)| id.to_owned()))
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a name can be a path below `refs/heads` and nothing else.
fn is_branch(name: &str) -> bool {
    name.len() <= 250
        && !name.starts_with('-')
        && !name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c))
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        && !name.contains("..")
        && crate::text::clean(name) == name
}

/// The few settings that decide how files are compared; none of them names a program or a place.
fn settings(theirs: &[u8]) -> String {
    let mut ours = "[core]\n\tbare = false\n".to_owned();
    let mut sha256 = false;
    for setting in parse(&String::from_utf8_lossy(theirs)).0 {
        if setting.subsection.is_some() {
            continue;
        }
        let value = setting.value.as_deref().unwrap_or("true").to_ascii_lowercase();
        let allowed: &[&str] = match (setting.section.as_str(), setting.key.as_str()) {
            ("core", "filemode" | "ignorecase" | "precomposeunicode" | "symlinks") => {
                &["true", "false", "yes", "no", "on", "off", "1", "0"]
            }
            ("core", "autocrlf") => &["true", "false", "input"],
            ("core", "eol") => &["lf", "crlf", "native"],
            ("extensions", "objectformat") => {
                sha256 = value == "sha256";
                &[]
            }
            _ => &[],
        };
        if allowed.contains(&value.as_str()) {
            // Writing to a text cannot fail.
            let _ = writeln!(ours, "\t{} = {value}", setting.key);
        }
    }
    let version = u8::from(sha256);
    let _ = writeln!(ours, "\trepositoryformatversion = {version}");
    if sha256 {
        ours.push_str("[extensions]\n\tobjectformat = sha256\n");
    }
    ours
}

/// The index with its times: git takes what was changed at the same moment for changed.
fn copy_index(git: BorrowedFd<'_>, folder: &Path) -> Result<(), Error> {
    let Some(from) = open(git, "index")? else { return Ok(()) };
    let found = from.metadata().map_err(read_failed)?;
    if found.size() > INDEX {
        return Err(Error::Io {
            what: "read the repository",
            source: std::io::Error::other("its index is too large"),
        });
    }
    let mut to = File::create(folder.join("index")).map_err(write_failed)?;
    std::io::copy(&mut from.take(INDEX), &mut to).map_err(write_failed)?;
    let modified = found.modified().map_err(read_failed)?;
    to.set_times(FileTimes::new().set_modified(modified)).map_err(write_failed)
}
