//! Places that tools on the host are led to: by a symbolic link under a name that they trust, or by
//! the settings of a repository below the workspace.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FileType;

use crate::workspace::names::{fold, is_vendored};
use crate::workspace::protected_names::why_protected;
use crate::workspace::walk::{Entry, Limits, Visitor, walk};
use crate::workspace::{git_programs, gitconfig};

/// The bounds of a look, which an apply waits for.
const LOOK: Limits = Limits { entries: 100_000, time: Duration::from_secs(3) };

/// More repositories than anybody works in at once.
const REPOSITORIES: usize = 64;

/// More links than any project has in such places.
const LINKS: usize = 1000;

/// The ways that a workspace has before anything is applied.
#[derive(Debug, Default)]
pub(super) struct Leads {
    /// Links with a trusted name.
    pub links: Vec<PathBuf>,
    /// Places that settings of repositories name.
    pub named: Vec<PathBuf>,
}

impl Leads {
    pub fn of(workspace: &Path, root: BorrowedFd<'_>) -> Self {
        let mut look = Look::default();
        walk(root, LOOK, &mut look);
        let settings = look.repositories.iter().filter_map(|git| {
            let settings = gitconfig::settings(root, git)?;
            Some(git_programs::of_settings(workspace, git.parent()?, &settings))
        });
        Self { named: settings.flatten().collect(), links: look.links }
    }
}

#[derive(Default)]
struct Look {
    repositories: Vec<PathBuf>,
    links: Vec<PathBuf>,
}

impl Visitor for Look {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let name = fold(entry.name);
        let is_git = name == ".git";
        if is_git && self.repositories.len() < REPOSITORIES {
            self.repositories.push(folder.join(entry.name));
        }
        let is_trusted =
            || is_git || (why_protected(folder, &name).is_some() && !is_vendored(folder));
        if entry.kind() == FileType::Symlink && self.links.len() < LINKS && is_trusted() {
            self.links.push(folder.join(entry.name));
        }
        !is_git
    }
}
