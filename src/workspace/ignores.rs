//! Which paths a project itself calls unimportant.
//!
//! The matching is the `ignore` crate's; its walker is not used. It opens whatever is called
//! `.gitignore` and reads it to the end, and an agent may have put a FIFO or a link to an endless
//! device there.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{FileType, Mode, OFlags};

use super::walk::open_folder;

/// Files beyond these bounds are passed over: more is listed then, never less. Rules are compiled
/// to automata of several hundred times their size, and each costs time for every path.
const LARGEST_FILE: u64 = 256 << 10;
const LONGEST_RULE: usize = 256;
const ALL_RULES: usize = 64 << 10;

/// How many folders up a repository may begin.
const HIGHEST: usize = 32;

/// The rules of a workspace, by the folder that holds them.
#[derive(Debug, Default)]
pub(super) struct Ignores {
    workspace: PathBuf,
    by_folder: HashMap<PathBuf, Gitignore>,
    /// Rules that hold for the whole workspace, the stronger ones first: those of the folders
    /// above it, then the repository's own exclude file.
    outer: Vec<Gitignore>,
    /// How much of [`ALL_RULES`] is used up.
    used: usize,
}

impl Ignores {
    /// The rules that hold from outside or above; those inside come by [`Self::read`].
    pub fn around(workspace: &Path) -> Self {
        let mut ignores = Self { workspace: workspace.to_owned(), ..Self::default() };
        let above = workspace.ancestors().take(HIGHEST);
        let Some(repository) =
            above.clone().find(|dir| dir.join(".git").symlink_metadata().is_ok())
        else {
            return ignores;
        };
        for dir in above.skip(1).take_while(|dir| dir.starts_with(repository)) {
            ignores.add_outer(dir, "", ".gitignore");
        }
        ignores.add_outer(repository, ".git/info", "exclude");
        ignores
    }

    fn add_outer(&mut self, base: &Path, folder: &str, name: &str) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(base, flags, Mode::empty()) else { return };
        let Ok(opened) = open_folder(opened.as_fd(), Path::new(folder)) else { return };
        if let Some(rules) = self.parse(base, opened.as_fd(), name) {
            self.outer.push(rules);
        }
    }

    /// Takes up the `.gitignore` of one folder of the workspace, if there is a usable one.
    pub fn read(&mut self, folder: &Path, opened: BorrowedFd<'_>) {
        let base = self.workspace.join(folder);
        if let Some(rules) = self.parse(&base, opened, ".gitignore") {
            self.by_folder.insert(folder.to_owned(), rules);
        }
    }

    /// Takes up rules that stand in a folder's `.gitignore` although the folder has none such.
    pub fn lay(&mut self, folder: &Path, text: &str) {
        if let Some(rules) = self.rules(&self.workspace.join(folder), text) {
            self.by_folder.insert(folder.to_owned(), rules);
        }
    }

    fn parse(&mut self, base: &Path, opened: BorrowedFd<'_>, name: &str) -> Option<Gitignore> {
        let text = read_small(opened, name)?;
        self.rules(base, &text)
    }

    fn rules(&mut self, base: &Path, text: &str) -> Option<Gitignore> {
        let mut builder = GitignoreBuilder::new(base);
        let rules = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
        for line in rules {
            self.used += line.len() + 16;
            if line.len() > LONGEST_RULE || self.used > ALL_RULES {
                // The whole file, then: half of one could hide what its other half shows.
                return None;
            }
            // A line that is no rule is no rule for git either.
            let _ = builder.add_line(None, line);
        }
        builder.build().ok().filter(|rules| !rules.is_empty())
    }

    /// Whether a path is ignored, given that no folder on the way to it is.
    /// What decides about others is itself always shown.
    pub fn hides(&self, path: &Path, is_dir: bool) -> bool {
        if !is_dir && path.file_name().is_some_and(|name| name == ".gitignore") {
            return false;
        }
        let absolute = self.workspace.join(path);
        let inner = path.ancestors().skip(1).filter_map(|folder| self.by_folder.get(folder));
        inner
            .chain(&self.outer)
            .map(|rules| rules.matched(&absolute, is_dir))
            .find(|found| !found.is_none())
            .is_some_and(|found| found.is_ignore())
    }
}

/// The text of a small regular file; anything else is not there. Opening must not block and
/// reading must end, whatever lies there.
fn read_small(folder: BorrowedFd<'_>, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags, Mode::empty()).ok()?;
    let found = rustix::fs::fstat(&opened).ok()?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    std::fs::File::from(opened).take(LARGEST_FILE + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LARGEST_FILE).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_cost_too_much_hide_nothing() {
        let folder = Path::new("");
        let mut ignores = Ignores::default();
        ignores.lay(folder, "*.log\n");
        assert!(ignores.hides(Path::new("a.log"), false));
        for text in
            [format!("*.log\n{}\n", "*a".repeat(LONGEST_RULE)), "*\n!seen\n".repeat(ALL_RULES / 8)]
        {
            let mut ignores = Ignores::default();
            ignores.lay(folder, &text);
            assert!(!ignores.hides(Path::new("a.log"), false));
        }
    }
}
