//! What stays read-only in a workspace that is otherwise the agent's to change.
//!
//! These are the paths that a tool on the *host* executes or trusts later: a hook written in a
//! sandbox would run outside of it at the user's next commit.
//!
//! The caller mounts them read-only over themselves. A mount follows symbolic links, on the host
//! and with the engine's rights, so a link in such a place is never a [`Protected`]: it comes as
//! an [`Obstacle`], which knows no path to mount.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

use super::walk::{Entry, Limits, Visitor, open_folder, walk};
use super::{Error, WorkspacePath};

/// Protected in every workspace, relative to it.
pub(super) const DEFAULT: &[&str] = &[
    ".claude",
    ".cursor",
    ".envrc",
    ".git/config",
    ".git/config.worktree",
    ".git/hooks",
    ".git/modules",
    ".git/worktrees",
    ".github/workflows",
    ".husky",
    ".idea",
    ".mcp.json",
    ".sandbox-mcp.toml",
    ".vscode",
];

/// Protected in each repository below the workspace, relative to that repository.
const OF_A_REPOSITORY: &[&str] =
    &[".git/config", ".git/config.worktree", ".git/hooks", ".git/modules", ".git/worktrees"];

/// How far to look for repositories below the workspace, at the cost of a run's start.
const SCAN: Limits = Limits { entries: 100_000, time: Duration::from_millis(500) };

/// Each repository costs mounts; nobody works in more at once.
const MOST_REPOSITORIES: usize = 64;

/// What to do about the protected places of a workspace, as they are now.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// To be mounted read-only over themselves. Sorted, none inside of another.
    pub places: Vec<Protected>,
    /// To be mounted over themselves as they are, in front of `places`: a mount point cannot be
    /// renamed, and without that `mv .git x` would carry the mounts below it away.
    pub anchors: Vec<Protected>,
    /// What cannot be mounted safely.
    pub obstacles: Vec<Obstacle>,
    /// False when there may be more repositories below than were found.
    pub complete: bool,
}

// Places that do not exist yet, and folders made during the run, are not this function's: nothing
// can be mounted over them without leaving litter. They are for issue 3's masks and closing sweep,
// which will want `DEFAULT`, `.git/commondir`, and every nested repository's list.

/// A file or folder that is what it seems: it was reached without passing any symbolic link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protected {
    relative: PathBuf,
    kind: Kind,
    identity: (u64, u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Dir,
}

/// A symbolic link (or a device, FIFO or socket) where a protected file or folder should be. The
/// agent could replace it, or write to where it leads, so a run that may write must be refused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error(
    "`{}` in the workspace is {what}, so it cannot be protected from the agent; replace it with a real file or folder, or use the mode read-only",
    crate::text::one_line(&.relative.to_string_lossy(), 200)
)]
pub struct Obstacle {
    pub relative: PathBuf,
    pub what: &'static str,
    /// Whether it belongs to a repository below the workspace and not to the workspace itself.
    pub nested: bool,
}

impl Protected {
    /// Relative to the workspace.
    pub fn relative(&self) -> &Path {
        &self.relative
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path on the host to mount. Looked at once more, because whoever can write to the
    /// workspace can exchange the place for a link at any time; call it last before the mount.
    pub fn source(&self, workspace: &WorkspacePath) -> Result<PathBuf, Error> {
        let path = workspace.path().join(&self.relative);
        workspace.recheck()?;
        let now = open_root(workspace).map(|root| look(root.as_fd(), &self.relative));
        match now {
            Some(Found::Real(kind, identity)) if (kind, identity) == (self.kind, self.identity) => {
                Ok(path)
            }
            _ => {
                Err(Error::Replaced { given: crate::text::one_line(&path.to_string_lossy(), 300) })
            }
        }
    }
}

/// Those of `names`, relative to the workspace, that exist in it, and those that are not what they
/// seem.
pub fn existing(workspace: &WorkspacePath, names: &[&str]) -> Protection {
    let mut found = Protection { complete: true, ..Protection::default() };
    if let Some(root) = open_root(workspace) {
        for name in names {
            found.add(root.as_fd(), Path::new(name), false);
        }
    }
    found
}

/// The protected places that exist in the workspace: the default ones, `extra` ones, and those of
/// the repositories below. Paths in `extra` that lead out of the workspace are passed over.
pub fn protected(workspace: &WorkspacePath, extra: &[String]) -> Protection {
    let mut protection = Protection::default();
    let Some(root) = open_root(workspace) else { return protection };
    let root = root.as_fd();
    for place in DEFAULT.iter().copied().chain(extra.iter().map(String::as_str)) {
        protection.add(root, Path::new(place), false);
    }
    protection.add_repository_file(root, Path::new(""));

    let mut repositories = Repositories::default();
    protection.complete = walk(root, SCAN, &mut repositories) && !repositories.too_many;
    for repository in &repositories.found {
        for place in OF_A_REPOSITORY {
            protection.add(root, &repository.join(place), true);
        }
        protection.add_repository_file(root, repository);
    }
    protection.tidy(root);
    protection
}

impl Protection {
    fn add(&mut self, root: BorrowedFd<'_>, place: &Path, nested: bool) {
        let relative: PathBuf =
            place.components().filter(|part| *part != Component::CurDir).collect();
        match look(root, &relative) {
            Found::Nothing => {}
            Found::Real(kind, identity) => {
                self.places.push(Protected { relative, kind, identity });
            }
            Found::Odd { at, what } => self.obstacles.push(Obstacle { relative: at, what, nested }),
        }
    }

    /// The `.git` of a linked worktree or a submodule is a file that names the true one.
    fn add_repository_file(&mut self, root: BorrowedFd<'_>, repository: &Path) {
        let place = repository.join(".git");
        if !matches!(look(root, &place), Found::Real(Kind::Dir, _)) {
            self.add(root, &place, !repository.as_os_str().is_empty());
        }
    }

    fn tidy(&mut self, root: BorrowedFd<'_>) {
        self.places.sort();
        // A parent sorts in front of its children.
        self.places.dedup_by(|later, kept| later.relative.starts_with(&kept.relative));
        self.obstacles.sort();
        self.obstacles.dedup_by(|later, kept| later.relative == kept.relative);
        let mut parents: Vec<_> = self
            .places
            .iter()
            .filter_map(|place| place.relative.parent())
            // Only folders such as `.git`. A mount point is also a border that no file can be
            // moved across, which a folder of sources must not become.
            .filter(|parent| {
                parent.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
            })
            .map(Path::to_owned)
            .collect();
        parents.sort();
        parents.dedup();
        for relative in parents {
            if let Found::Real(kind, identity) = look(root, &relative) {
                self.anchors.push(Protected { relative, kind, identity });
            }
        }
    }
}

/// Repositories below the workspace, not the workspace's own.
#[derive(Default)]
struct Repositories {
    found: Vec<PathBuf>,
    too_many: bool,
}

impl Visitor for Repositories {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if !entry.name.eq_ignore_ascii_case(".git") {
            return true;
        }
        if !folder.as_os_str().is_empty() {
            if self.found.len() < MOST_REPOSITORIES {
                self.found.push(folder.to_owned());
            } else {
                self.too_many = true;
            }
        }
        false
    }
}

enum Found {
    Nothing,
    Real(Kind, (u64, u64)),
    Odd { at: PathBuf, what: &'static str },
}

/// What is at a relative path, without following any link on the way.
fn look(root: BorrowedFd<'_>, relative: &Path) -> Found {
    let mut at = PathBuf::new();
    let mut found = Found::Nothing;
    for part in relative.components() {
        let Component::Normal(name) = part else { return Found::Nothing };
        let Ok(parent) = open_folder(root, &at) else { return Found::Nothing };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Found::Nothing;
        };
        at.push(name);
        found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Real(Kind::Dir, (stat.st_dev, stat.st_ino)),
            FileType::RegularFile => Found::Real(Kind::File, (stat.st_dev, stat.st_ino)),
            FileType::Symlink => return Found::Odd { at, what: "a symbolic link" },
            _ => return Found::Odd { at, what: "neither a file nor a folder" },
        };
    }
    found
}

fn open_root(workspace: &WorkspacePath) -> Option<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(workspace.path(), flags, Mode::empty()).ok()
}

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
