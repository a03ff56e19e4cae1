//! Finding the git directory of a workspace, by reading alone.
//!
//! What lies outside of the workspace is taken only if it names the workspace back, because
//! whoever wrote the workspace could name any repository of this machine.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::super::gitconfig::{Setting, settings_of};
use super::super::refuse::{Ours, refusal};
use super::super::walk::open_root;
use super::read::{is_folder, line, look, open_absolute, resolved, small};
use crate::text::one_line;

/// Most object stores that one repository can borrow from, and how far they can borrow in turn.
const STORES: usize = 16;

/// Where a git directory is, as absolute paths without links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// What belongs to this working tree.
    pub git: PathBuf,
    /// What all working trees share: the same, unless this is a linked worktree.
    pub common: PathBuf,
    /// Where the `.git` file leads by its own text; none where `.git` is the folder itself.
    pub pointer: Option<String>,
}

impl Found {
    pub fn is_worktree(&self) -> bool {
        self.git != self.common
    }
}

/// Why a repository is not given to a sandbox, and what cures it. A remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub String);

fn refused<T>(why: &str) -> Result<T, Refused> {
    Err(Refused(format!("git does not work in this run: {why}")))
}

fn shown(path: &Path) -> String {
    one_line(&path.display().to_string(), 160)
}

/// Finds the working tree that a folder is in, and its git directory: its own, else that of a folder
/// above on the same file system, where git on this machine finds it too. None where there is none.
pub(super) fn find_around(folder: &Path, ours: &Ours) -> Result<Option<(PathBuf, Found)>, Refused> {
    if let Some(found) = find(folder, ours)? {
        return Ok(Some((folder.to_owned(), found)));
    }
    let Ok(own) = folder.metadata() else { return Ok(None) };
    for top in folder.ancestors().skip(1) {
        if top.metadata().map_or(true, |found| found.dev() != own.dev()) {
            return Ok(None);
        }
        let Some(found) = find(top, ours)? else { continue };
        if let Some(why) = refusal(top, top, ours) {
            return refused(&format!("its repository is {}, {why}", shown(top)));
        }
        let owner = top.join(".git").symlink_metadata().map(|found| found.uid());
        if owner.ok() != Some(own.uid()) {
            let top = shown(top);
            return refused(&format!("its repository, {top}, belongs to another user"));
        }
        if is_sparse(&found) {
            let top = shown(top);
            return refused(&format!(
                "it is a subfolder of {top}, which is a sparse checkout; `--workspace {top}` works"
            ));
        }
        return Ok(Some((top.to_owned(), found)));
    }
    Ok(None)
}

/// Returns the path of a folder in the working tree that it is a subfolder of. Empty where it is the
/// top of one, or in none that a sandbox could get.
pub fn below_top(folder: &Path) -> PathBuf {
    let found = find_around(folder, &Ours::here()).ok().flatten();
    found.and_then(|(top, _)| folder.strip_prefix(top).ok().map(Path::to_owned)).unwrap_or_default()
}

fn is_sparse(found: &Found) -> bool {
    let read = |folder: &Path, name| settings_of(open_absolute(folder).ok()?.as_fd(), name);
    let all = [read(&found.common, "config"), read(&found.git, "config.worktree")];
    let all: Vec<Setting> = all.into_iter().flatten().flatten().collect();
    let said = all.iter().rfind(|setting| {
        setting.section == "core" && setting.subsection.is_none() && setting.key == "sparsecheckout"
    });
    said.is_some_and(|said| said.value.as_deref() != Some("false"))
}

/// Finds the git directory of the working tree at `top`. None where there is none.
pub(super) fn find(top: &Path, ours: &Ours) -> Result<Option<Found>, Refused> {
    let Ok(root) = open_root(top) else { return Ok(None) };
    let Some(found) = look(root.as_fd(), ".git") else { return Ok(None) };
    let found = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => {
            let git = top.join(".git");
            Found { common: git.clone(), git, pointer: None }
        }
        FileType::RegularFile => match pointed(top, root.as_fd(), ours)? {
            Some(found) => found,
            None => return Ok(None),
        },
        FileType::Symlink => {
            return refused("`.git` is a symbolic link; put `gitdir: ` and its target into a file");
        }
        _ => return refused("`.git` is neither a folder nor a file"),
    };
    checked(found)
}

/// Looks whether it is a repository that git would take, with a store of its own.
fn checked(found: Found) -> Result<Option<Found>, Refused> {
    let (Ok(git), Ok(common)) = (open_absolute(&found.git), open_absolute(&found.common)) else {
        let place = shown(&found.git);
        return refused(&format!("{place} is not there, closed, or behind a symbolic link"));
    };
    if look(git.as_fd(), "HEAD").is_none() {
        return Ok(None);
    }
    if !found.is_worktree() && look(git.as_fd(), "commondir").is_some() {
        let place = shown(&found.git);
        return refused(&format!(
            "{place}/commondir belongs to a linked worktree, which this is not"
        ));
    }
    if !is_folder(common.as_fd(), "objects") {
        let place = shown(&found.common);
        return refused(&format!("{place}/objects is not a folder; put the objects there"));
    }
    if look(common.as_fd(), "reftable").is_some() {
        return refused(
            "the repository keeps its references in a reftable, which the git in the sandbox does \
             not know; `git refs migrate --ref-format=files` makes them ordinary ones",
        );
    }
    Ok(Some(found))
}

/// Follows a `.git` file.
fn pointed(top: &Path, root: BorrowedFd<'_>, ours: &Ours) -> Result<Option<Found>, Refused> {
    let Some(text) = line(root, ".git") else { return refused("`.git` is no file of git's") };
    let Some(pointer) = text.strip_prefix("gitdir:").map(str::trim).filter(|path| !path.is_empty())
    else {
        return refused("`.git` is no file of git's");
    };
    let git = resolved(top, pointer);
    let Ok(opened) = open_absolute(&git) else {
        return refused(&format!(
            "`.git` names {}, which is not there, closed, or behind a symbolic link; `git worktree \
             repair` in the main worktree cures a moved one",
            shown(&git)
        ));
    };
    let pointer = Some(pointer.to_owned());
    let opened = opened.as_fd();
    let found = if let Some(common) = line(opened, "commondir") {
        let common = resolved(&git, &common);
        let kept = git.parent().is_some_and(|up| up == common.join("worktrees"));
        if !kept || !names_back(&git, opened, top) {
            return refused(&format!(
                "`.git` names {}, which is not the administration of this worktree; `git worktree \
                 repair` in the main worktree cures a moved one",
                shown(&git)
            ));
        }
        Found { git, common, pointer }
    } else {
        if !git.starts_with(top) && !is_worktree_of(&git, opened, top) {
            let git = shown(&git);
            return refused(&format!(
                "`.git` names {git}, which does not name this folder; `git --git-dir={git} config \
                 core.worktree {}` says that it belongs here",
                shown(top)
            ));
        }
        Found { common: git.clone(), git, pointer }
    };
    if found.common.starts_with(top) {
        return Ok(Some(found));
    }
    let its_top = top_of(&found.common);
    match refusal(&its_top, &its_top, ours) {
        Some(why) => refused(&format!("its repository is {}, {why}", shown(&its_top))),
        None => Ok(Some(found)),
    }
}

/// The folder whose repository it is: what a workspace would be.
fn top_of(git: &Path) -> PathBuf {
    git.components().take_while(|part| part.as_os_str() != ".git").collect()
}

/// Whether a linked worktree's administration is that of the worktree at `top`.
fn names_back(git: &Path, opened: BorrowedFd<'_>, top: &Path) -> bool {
    line(opened, "gitdir").is_some_and(|path| same(&resolved(git, &path), &top.join(".git")))
}

/// Whether a repository's settings say that its working tree is at `top`.
fn is_worktree_of(git: &Path, opened: BorrowedFd<'_>, top: &Path) -> bool {
    worktree_of(git, opened).is_some_and(|worktree| same(&worktree, top))
}

/// The working tree that a repository's settings name.
pub(super) fn worktree_of(git: &Path, opened: BorrowedFd<'_>) -> Option<PathBuf> {
    let settings = settings_of(opened, "config")?;
    let named = settings.iter().rfind(|setting| {
        setting.section == "core" && setting.subsection.is_none() && setting.key == "worktree"
    })?;
    Some(resolved(git, named.value.as_deref()?))
}

/// Whether two names are of one thing, which no link is.
fn same(one: &Path, other: &Path) -> bool {
    let inode = |path: &Path| {
        let found = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((found.st_dev, found.st_ino))
    };
    one == other || inode(one).is_some_and(|one| inode(other) == Some(one))
}

/// The object stores of a repository: its own, and those that they borrow from. `within` are the
/// folders that they may lie in; a store elsewhere names nobody back.
pub(super) fn stores(common: &Path, within: &[&Path]) -> Result<Vec<PathBuf>, Refused> {
    let mut found = vec![common.join("objects")];
    let mut next = 0;
    while let Some(store) = found.get(next).cloned() {
        next += 1;
        let Ok(opened) = open_absolute(&store) else {
            return refused(&format!(
                "the object store {} is not there, closed, or behind a symbolic link",
                shown(&store)
            ));
        };
        if !is_folder(opened.as_fd(), "info") {
            continue;
        }
        let listed = match look(opened.as_fd(), "info/alternates") {
            None => continue,
            Some(_) => super::super::walk::open_folder(opened.as_fd(), Path::new("info"))
                .ok()
                .and_then(|info| small(info.as_fd(), "alternates", 64 << 10))
                .and_then(|bytes| String::from_utf8(bytes).ok()),
        };
        let Some(listed) = listed else {
            return refused(&format!("{}/info/alternates cannot be read", shown(&store)));
        };
        for path in listed.lines().filter(|path| !path.is_empty() && !path.starts_with('#')) {
            let borrowed = resolved(&store, path);
            if !within.iter().any(|folder| borrowed.starts_with(folder)) || path.starts_with('"') {
                return refused(&format!(
                    "the repository borrows objects from {}, which does not know of it; \
                     `workspace.objects = [\"{}\"]` in your settings allows that, or `git repack \
                     -ad` and then removing {}/info/alternates makes it whole",
                    one_line(path, 120),
                    shown(&borrowed),
                    shown(&store)
                ));
            }
            if !found.contains(&borrowed) {
                found.push(borrowed);
            }
            if found.len() > STORES {
                return refused("the repository borrows objects from too many others");
            }
        }
    }
    Ok(found)
}
