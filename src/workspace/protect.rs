//! What stays read-only in a workspace that is otherwise the agent's to change.
//!
//! These are the paths that a tool on the *host* executes or trusts later: a hook written in a
//! sandbox would run outside of it at the user's next commit.
//!
//! The caller mounts them read-only over themselves. A mount follows symbolic links, on the host
//! and with the engine's rights, so a link in such a place is never a [`Protected`]: it comes as
//! an [`Obstacle`], which knows no path to mount.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::WorkspacePath;
use super::gitconfig::named;
use super::linked::linked;
use super::names::fold_path;
use super::place::{Found, Kind, Obstacle, Protected, look};
use super::protected_names::HELD;
use super::scan::Scan;
use super::walk::{Limits, open_root, walk};

/// Protected in every workspace besides what is trusted in any folder.
pub(super) const OF_A_WORKSPACE: &[&str] = &[
    ".git/config",
    ".git/config.worktree",
    ".git/hooks",
    ".git/modules",
    ".git/worktrees",
    ".github/workflows",
];

/// Protected in every workspace, relative to it; where one is absent, a placeholder stands there.
/// The other protected names are looked for like those in folders below.
pub(super) fn default_places<'a>() -> impl Iterator<Item = &'a str> {
    HELD.iter().chain(OF_A_WORKSPACE).copied()
}

/// Protected in each repository below the workspace, relative to its `.git`.
const OF_A_REPOSITORY: &[&str] = &["config", "config.worktree", "hooks", "modules", "worktrees"];

/// Protected in a git directory that is not called `.git`: git uses it when somebody stands in it.
const OF_A_BARE_REPOSITORY: &[&str] = &["config", "config.worktree", "hooks"];

/// How far to look for repositories below the workspace, at the cost of a run's start.
const SCAN: Limits = Limits { entries: 100_000, time: Duration::from_secs(3) };

/// Each place costs a mount and a run's start some milliseconds. Repositories and the workspace's
/// own places come first and have their own bounds.
const MOST_PLACES: usize = 128;

/// Links in places that are not the workspace's own are only told about.
const MOST_NESTED_OBSTACLES: usize = 16;

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
    /// Protected files that have further names. A mount protects one name only; if another one is
    /// in the workspace too, the agent can write through it.
    pub linked: Vec<PathBuf>,
    /// False when there may be more repositories or places below than were found.
    pub complete: bool,
}

// The workspace's own places that do not exist yet are `Placeholders`', to be made before; what a
// run makes elsewhere is `Before`'s, to be swept after it.

/// Those of `names`, relative to the workspace, that exist in it, and those that are not what they
/// seem.
pub fn existing(workspace: &WorkspacePath, names: &[&str]) -> Protection {
    let mut found = Protection { complete: true, ..Protection::default() };
    if let Ok(root) = open_root(workspace.path()) {
        for name in names {
            found.add(root.as_fd(), Path::new(name), false);
        }
    }
    found
}

/// The protected places that exist in the workspace: the default ones, `extra` ones, those of the
/// repositories below, what the settings of a repository name, and what tools on the host trust in
/// folders below. Paths in `extra` that
/// lead out of the workspace are passed over.
pub fn protected(workspace: &WorkspacePath, extra: &[String]) -> Protection {
    let mut protection = Protection::default();
    let Ok(root) = open_root(workspace.path()) else { return protection };
    let root = root.as_fd();
    for place in default_places().chain(extra.iter().map(String::as_str)) {
        protection.add(root, Path::new(place), false);
    }
    protection.add_repository_file(root, Path::new(".git"), false);
    for (place, _) in named(root, workspace.path(), Path::new(".git")) {
        protection.add(root, &place, false);
    }

    let mut scan = Scan::default();
    protection.complete = walk(root, SCAN, &mut scan) && !scan.too_many;
    for repository in &scan.repositories {
        for place in OF_A_REPOSITORY {
            protection.add(root, &repository.join(place), true);
        }
        protection.add_repository_file(root, repository, true);
        for (place, _) in named(root, workspace.path(), repository) {
            protection.add(root, &place, true);
        }
    }
    for repository in &scan.bare {
        for place in OF_A_BARE_REPOSITORY {
            protection.add(root, &repository.join(place), !repository.as_os_str().is_empty());
        }
    }
    protection.tidy();
    for place in &scan.places {
        if protection.covers(place) {
            continue;
        }
        if protection.places.len() < MOST_PLACES {
            protection.add(root, place, true);
        } else {
            protection.complete = false;
        }
    }
    protection.tidy();
    protection.anchor(root);
    protection.linked = linked(root, &protection.places);
    protection
}

impl Protection {
    fn add(&mut self, root: BorrowedFd<'_>, place: &Path, nested: bool) {
        let relative: PathBuf =
            place.components().filter(|part| *part != Component::CurDir).collect();
        match look(root, &relative) {
            Found::Nothing => {}
            // What cannot be said to an engine cannot be mounted by one.
            Found::Real(..) if relative.to_str().is_none() => {
                let what = "below a name that is not UTF-8";
                self.obstacles.push(Obstacle { relative, what, nested });
            }
            Found::Real(kind, identity) => {
                self.places.push(Protected { relative, kind, identity });
            }
            Found::Odd { at, what } => self.obstacles.push(Obstacle { relative: at, what, nested }),
        }
    }

    /// The `.git` of a linked worktree or a submodule is a file that names the true one.
    fn add_repository_file(&mut self, root: BorrowedFd<'_>, place: &Path, nested: bool) {
        if !matches!(look(root, place), Found::Real(Kind::Dir, _)) {
            self.add(root, place, nested);
        }
    }

    fn covers(&self, path: &Path) -> bool {
        self.places.iter().any(|place| path.starts_with(&place.relative))
            || self.obstacles.iter().any(|obstacle| obstacle.relative == path)
    }

    fn tidy(&mut self) {
        self.places.sort();
        // A parent sorts in front of its children.
        self.places.dedup_by(|later, kept| later.relative.starts_with(&kept.relative));
        // Two spellings are one place where the file system folds case. Another name of the same
        // file is not: it needs a mount of its own.
        let mut seen = HashSet::new();
        self.places.retain(|place| seen.insert((place.identity, fold_path(&place.relative))));
        self.obstacles.sort();
        self.obstacles.dedup_by(|later, kept| later.relative == kept.relative);
        let mut nested = 0;
        self.obstacles.retain(|obstacle| {
            nested += usize::from(obstacle.nested);
            !obstacle.nested || nested <= MOST_NESTED_OBSTACLES
        });
        self.complete &= nested <= MOST_NESTED_OBSTACLES;
    }

    fn anchor(&mut self, root: BorrowedFd<'_>) {
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

#[cfg(test)]
#[path = "protect_tests.rs"]
mod tests;
