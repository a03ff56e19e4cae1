//! Running git in a repository of the user's, as its owner.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::host::Ask;
use super::read::is_id;
use crate::text::one_line;

/// Time for one command.
const TIME: Duration = Duration::from_secs(60);

/// Most that one command may print.
const OUTPUT: u64 = 16 << 20;

/// The user's repository, and whom its files belong to.
#[derive(Clone, Copy)]
pub(super) struct Users<'a> {
    git: &'a Path,
    top: &'a Path,
    pub owner: (u32, u32),
}

impl<'a> Users<'a> {
    pub fn of(git: &'a Path, top: &'a Path) -> Result<Self, String> {
        let found = std::fs::symlink_metadata(git).map_err(|error| {
            format!("{} cannot be read: {error}", one_line(&git.display().to_string(), 160))
        })?;
        Ok(Self { git, top, owner: (found.uid(), found.gid()) })
    }

    /// A repository that is ours, and where git works as `owner` all the same.
    pub fn new(git: &'a Path, top: &'a Path, owner: (u32, u32)) -> Self {
        Self { git, top, owner }
    }

    /// Gives the owner something that we made, where we are root.
    pub fn own(self, path: &Path) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let (uid, gid) = self.owner;
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|error| error.to_string())
    }

    /// Git as the owner, in another repository of the owner's.
    pub fn at(self, git: &Path) -> Result<Ask, String> {
        self.of_owner(Ask::at(self.top), git)
    }

    /// The same with a bound on its memory.
    pub fn bounded_at(self, git: &Path) -> Result<Ask, String> {
        self.of_owner(Ask::bounded(self.top), git)
    }

    fn of_owner(self, ask: Option<Ask>, git: &Path) -> Result<Ask, String> {
        let ask = ask.ok_or("there is no git on this machine")?;
        Ok(ask.of_owner(self.owner).env("GIT_DIR", git))
    }

    /// Git in the repository itself.
    pub fn ask(self) -> Result<Ask, String> {
        Ok(self.at(self.git)?.env("GIT_WORK_TREE", self.top))
    }

    pub fn run(self, args: &[&str]) -> Result<String, String> {
        said(self.ask()?, args)
    }

    /// The tree that git names.
    pub fn tree(self, args: &[&str]) -> Option<String> {
        self.run(args).ok().map(|said| said.trim().to_owned()).filter(|id| is_id(id))
    }

    /// All files that some commits change, relative to the workspace. `ids` has one in each line.
    pub fn files(self, ids: &str, place: &Path) -> Result<Vec<PathBuf>, String> {
        let ask = self.ask()?.input(input(ids)?);
        let tree = ["diff-tree", "--stdin", "-r", "-m", "--root"];
        let shown = ["--name-only", "--no-commit-id", "-z"];
        let said = printed(ask, &[&tree[..], &shown].concat())?;
        let names = said.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let names: BTreeSet<&[u8]> = names.collect();
        Ok(names.into_iter().map(|name| place.join(OsStr::from_bytes(name))).collect())
    }
}

/// Runs git, and returns its output or which command failed.
pub(super) fn said(ask: Ask, args: &[&str]) -> Result<String, String> {
    printed(ask, args).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// The same for an output that need not be text.
fn printed(ask: Ask, args: &[&str]) -> Result<Vec<u8>, String> {
    let answer = ask.args(args).run(TIME, OUTPUT);
    if answer.ok {
        return Ok(answer.stdout);
    }
    let command = args.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    Err(format!("`git {command}` failed"))
}

/// A file that git reads as its standard input.
pub(super) fn input(text: impl AsRef<[u8]>) -> Result<Stdio, String> {
    let mut file = tempfile::tempfile().map_err(|error| error.to_string())?;
    file.write_all(text.as_ref()).map_err(|error| error.to_string())?;
    file.rewind().map_err(|error| error.to_string())?;
    Ok(Stdio::from(file))
}
