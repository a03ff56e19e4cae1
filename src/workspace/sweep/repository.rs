//! What may stay of a repository that a run made.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Stat, Uid};
use rustix::io::Errno;

use super::super::gitconfig::{LARGEST, Setting, resolve};
use super::super::names::{fold, is_called};
use super::super::walk::open_folder;
use super::harmless::{Harmless, harmless_or, own};
use super::keep::open_file;

/// What a file of settings says; nothing where it cannot be read.
pub(super) fn own_settings(root: BorrowedFd<'_>, path: &Path) -> Option<Vec<Setting>> {
    let folder = open_folder(root, path.parent()?).ok()?;
    // As it is: a look changes nothing.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&folder, path.file_name()?, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(LARGEST).read_to_end(&mut bytes).ok()?;
    Some(own(&bytes))
}

/// Reads settings and sorts them; `own` are those that were there before. Too many of them are all
/// dropped.
pub(super) fn read_settings(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    own: &[Setting],
) -> Result<Harmless, Errno> {
    let mut bytes = Vec::new();
    let file = open_file(parent, name)?;
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|_| Errno::IO)?;
    if bytes.len() as u64 > LARGEST {
        let dropped = vec!["all of it, being too large".to_owned()];
        return Ok(Harmless { text: String::new(), dropped });
    }
    Ok(harmless_or(&bytes, own))
}

/// Puts a fresh file in the place of an old one, which must not be written to: it can have other
/// names, and other readers.
pub(super) fn write_fresh(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    text: &str,
    old: &Stat,
) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut number = 0;
    let (file, fresh) = loop {
        let fresh = format!(".sandbox-mcp-fresh-{number}");
        match rustix::fs::openat(parent, &fresh, flags, Mode::from(0o644)) {
            Err(Errno::EXIST) if number < 1000 => number += 1,
            opened => break (opened?, fresh),
        }
    };
    let written = (|| {
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
            rustix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        std::fs::File::from(file).write_all(text.as_bytes()).map_err(|_| Errno::IO)?;
        rustix::fs::renameat(parent, &fresh, parent, name)
    })();
    if written.is_err() {
        rustix::fs::unlinkat(parent, &fresh, AtFlags::empty())?;
    }
    written
}

/// Whether a `.git` file may stay: it belongs to a submodule or a linked worktree, and leads to
/// where the repository keeps those, in this workspace. Settings there are sorted like any others,
/// because it is among the git directories that were found.
pub(super) fn is_link_within(root: BorrowedFd<'_>, path: &Path, git: &HashSet<PathBuf>) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
    let Some(text) = read_line(root, folder, name) else { return false };
    let Some(target) = text.strip_prefix("gitdir: ") else { return false };
    let Some(target) = resolve(folder, Path::new(target)) else { return false };
    let parts: Vec<_> = target.components().map(|part| fold(part.as_os_str())).collect();
    let kept_by_git = parts
        .windows(2)
        .any(|pair| pair[0] == ".git" && (pair[1] == "modules" || pair[1] == "worktrees"));
    kept_by_git && git.contains(&target)
}

/// Whether a `commondir` may stay: it is a linked worktree's, and leads to its own repository.
pub(super) fn is_worktree_of(root: BorrowedFd<'_>, path: &Path, git: &HashSet<PathBuf>) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
    let Some(worktrees) = folder.parent().filter(|up| is_called(up, "worktrees")) else {
        return false;
    };
    // Git reads the settings there even if nothing else makes it a git directory.
    worktrees.parent().is_some_and(|up| git.contains(up))
        && read_line(root, folder, name).is_some_and(|text| text == "../..")
}

/// The only line of a small file.
fn read_line(root: BorrowedFd<'_>, folder: &Path, name: &OsStr) -> Option<String> {
    const LONGEST: u64 = 4096;
    let folder = open_folder(root, folder).ok()?;
    let file = open_file(folder.as_fd(), name).ok()?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    (text.len() as u64 <= LONGEST && !text.chars().any(char::is_control)).then(|| text.to_owned())
}
