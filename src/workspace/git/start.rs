//! How a repository was when its git directory was copied: what commits that come back are held
//! against.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::super::walk::{open_folder, step};
use super::copy::{CopyError, names};
use super::give::Given;
use super::read::{is_id, line, open_absolute, small};
use crate::files::{Durability, write_json};

/// One repository that a run got: that of the workspace, or a submodule's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// The path of the workspace in the working tree that it is a subfolder of; else empty.
    pub prefix: PathBuf,
    /// Its own working tree, relative to that one, or to the workspace.
    pub place: PathBuf,
    /// Its git directory on this machine, and what its working trees share.
    pub git: PathBuf,
    pub common: PathBuf,
    /// Its object stores, its own first.
    pub stores: Vec<PathBuf>,
    /// The copy of its git directory, relative to where all copies are.
    pub copy: PathBuf,
    /// Where the copy is inside, and its working tree.
    pub inside: PathBuf,
    pub worktree: PathBuf,
    /// `sha1` or `sha256`.
    pub format: String,
    /// The branch that was checked out, by its full name; none where a commit itself was.
    pub branch: Option<String>,
    /// The commit that was checked out; none before the first.
    pub commit: Option<String>,
    /// All references by their full names.
    pub refs: BTreeMap<String, String>,
    /// The end of the index, which is a sum of all of it, and that of the copy.
    pub index: Option<String>,
    pub index_inside: Option<String>,
    /// Commit and tree of the index that an earlier run of the session left, if the copy has these.
    #[serde(default)]
    pub began: Option<(Option<String>, Option<String>)>,
}

impl Repository {
    /// Its working tree on this machine.
    pub fn top(&self, workspace: &Path) -> PathBuf {
        let above = workspace.ancestors().nth(self.prefix.components().count());
        let top = above.unwrap_or(workspace).join(&self.place);
        // Without a slash at its end.
        top.components().collect()
    }

    /// Its copy below `folder`, and that of what its working trees share.
    pub(super) fn copies(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let copy = folder.join(&self.copy);
        // The references of a linked worktree are in the part that all worktrees share.
        let common = match self.git.strip_prefix(&self.common) {
            Ok(own) => copy.ancestors().nth(own.components().count()).unwrap_or(&copy).to_owned(),
            Err(_) => copy.clone(),
        };
        (copy, common)
    }
}

/// The file beside the copies that tells what a sandbox was given.
const NOTE: &str = "given.json";

/// Most references that are read of one repository, and how deep their names go.
const MOST: usize = 200_000;
const DEEPEST: usize = 32;
const PACKED: u64 = 256 << 20;

/// Writes down what a sandbox is given, for whoever takes back what becomes of it.
pub(super) fn note(folder: &Path, given: &Given) -> Result<(), CopyError> {
    let path = folder.join(NOTE);
    write_json(&path, given, Durability::Lazy).map_err(|source| CopyError::Io { path, source })
}

/// What a sandbox was given by way of a folder of copies; nothing where that was not finished.
pub fn noted(folder: &Path) -> Given {
    let text = std::fs::read(folder.join(NOTE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Reads references from a copy of a git directory, in which nothing is followed: loose ones go
/// first.
pub(super) fn references(common: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let Ok(common) = open_absolute(common) else { return found };
    let packed = small(common.as_fd(), "packed-refs", PACKED).unwrap_or_default();
    for line in packed.split(|byte| *byte == b'\n').take(MOST) {
        let Some((id, name)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        if is_id(id) && name.starts_with("refs/") {
            found.insert(name.to_owned(), id.to_owned());
        }
    }
    if let Ok(refs) = open_folder(common.as_fd(), Path::new("refs")) {
        loose(refs.as_fd(), "refs", &mut found, 0);
    }
    found
}

fn loose(folder: BorrowedFd<'_>, above: &str, found: &mut BTreeMap<String, String>, depth: usize) {
    for (part, kind) in names(folder) {
        let Some(part) = part.to_str() else { continue };
        let name = format!("{above}/{part}");
        match kind {
            _ if found.len() >= MOST => return,
            FileType::Directory if depth < DEEPEST => {
                if let Ok(folder) = step(folder, part.as_ref()) {
                    loose(folder.as_fd(), &name, found, depth + 1);
                }
            }
            FileType::RegularFile => {
                if let Some(id) = line(folder, part).filter(|id| is_id(id)) {
                    found.insert(name, id);
                }
            }
            _ => {}
        }
    }
}

/// What is checked out: a branch and the commit behind it.
pub(super) fn head(
    git: &Path,
    refs: &BTreeMap<String, String>,
) -> (Option<String>, Option<String>) {
    let text = open_absolute(git).ok().and_then(|git| line(git.as_fd(), "HEAD"));
    let text = text.unwrap_or_default();
    match text.strip_prefix("ref:").map(str::trim) {
        Some(branch) => (Some(branch.to_owned()), refs.get(branch).cloned()),
        None => (None, is_id(&text).then_some(text)),
    }
}

/// The sum at the end of an index of ours.
pub(super) fn index(git: &Path) -> Option<String> {
    let mut file = File::open(git.join("index")).ok()?;
    file.seek(SeekFrom::End(-20)).ok()?;
    let mut sum = [0; 20];
    file.read_exact(&mut sum).ok()?;
    Some(crate::text::hex(&sum))
}
