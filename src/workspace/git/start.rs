//! How a repository was when its git directory was copied: what commits that come back are held
//! against.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::read::is_id;

/// One repository that a run got: that of the workspace, or a submodule's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Its working tree, relative to the workspace.
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
    /// The end of the index, which is a sum of all of it.
    pub index: Option<String>,
}

/// Reads references from a copy of a git directory: loose ones go first.
pub(super) fn references(common: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let packed = fs::read(common.join("packed-refs")).unwrap_or_default();
    for line in packed.split(|byte| *byte == b'\n') {
        let Some((id, name)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        if is_id(id) && name.starts_with("refs/") {
            found.insert(name.to_owned(), id.to_owned());
        }
    }
    loose(&common.join("refs"), "refs", &mut found);
    found
}

fn loose(folder: &Path, name: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(|part| format!("{name}/{part}")) else {
            continue;
        };
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            loose(&entry.path(), &name, found);
        } else if let Ok(text) = fs::read_to_string(entry.path())
            && is_id(text.trim())
        {
            found.insert(name, text.trim().to_owned());
        }
    }
}

/// What is checked out: a branch and the commit behind it.
pub(super) fn head(
    git: &Path,
    refs: &BTreeMap<String, String>,
) -> (Option<String>, Option<String>) {
    let text = fs::read_to_string(git.join("HEAD")).unwrap_or_default();
    let text = text.trim();
    match text.strip_prefix("ref:").map(str::trim) {
        Some(branch) => (Some(branch.to_owned()), refs.get(branch).cloned()),
        None => (None, is_id(text).then(|| text.to_owned())),
    }
}

/// The sum at the end of an index.
pub(super) fn index(git: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(git.join("index")).ok()?;
    file.seek(SeekFrom::End(-20)).ok()?;
    let mut sum = [0; 20];
    file.read_exact(&mut sum).ok()?;
    Some(crate::text::hex(&sum))
}
