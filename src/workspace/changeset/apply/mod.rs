//! Carrying a result over into its workspace: all of what is asked for, or nothing.
//!
//! Everything is looked at before anything is touched: each path must be exactly what the run
//! found, or already what it left. The folders are opened once, for that look, and all that follows
//! goes by these descriptors, wherever paths lead meanwhile. Then all that is new is made ready in a
//! private folder of the workspace, so that from there on only names change. What is going to happen
//! is written down in the state folder, then done by renames that keep the old things in the private
//! folder. If each folder is still where it was, it is marked as done, and only then are the old
//! things removed. A failure on the way undoes it all. So does [`recover`] after a crash before the
//! mark; after it, [`recover`] removes the rest.

mod carry;
mod error;
mod fault;
mod folders;
#[cfg(test)]
mod ground;
mod journal;
mod leads;
mod like;
#[cfg(test)]
mod looks_tests;
mod merge;
mod mounted;
mod partial;
#[cfg(test)]
mod partial_tests;
mod plan;
#[cfg(test)]
mod race_tests;
mod recover;
mod stage;
mod swap;
mod take;
#[cfg(test)]
mod tests;
mod trust;
#[cfg(test)]
mod trust_tests;
mod undo;
#[cfg(test)]
mod undo_tests;
mod writers;

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

pub use error::{Agreed, ApplyError, Conflict, NeedsYes, Obeyed};
pub use merge::{LARGEST_MERGED, merged};
pub use recover::{Recovered, is_unsettled, recover};
pub use take::taken;
pub use trust::protected_files;
pub use undo::{Keep, forget_all, reversed};

use self::carry::carry;
use self::folders::Folders;
use self::journal::Place;
use self::partial::LeftOut;
use self::plan::{Plan, Todo, select};
use self::recover::settle_found;
use self::trust::{Trust, is_git, obeyed};
use super::{Alteration, Blobs, Manifest, RelPath};
use crate::ids::RunId;
use crate::workspace::{FolderLock, WorkspacePath};

/// What the private folder in a workspace is called, before the run's id.
pub const STAGING: &str = ".sandbox-mcp.apply-";
/// What it is called when there is something in it that nobody else has.
const KEPT: &str = ".sandbox-mcp.kept-";

/// What is to be carried over.
#[derive(Debug)]
pub struct Request<'a> {
    pub run: &'a RunId,
    pub manifest: &'a Manifest,
    pub blobs: &'a Blobs,
    /// The folder of journals, the same for all processes of this user.
    pub journals: &'a Path,
    /// Paths that are asked for; everything when empty.
    pub only: &'a [String],
    /// Configured places that need a yes.
    pub protected: &'a [String],
    /// The mask of the run, where nobody has set it. What is new and has the mode that it gives has
    /// the mode here that our own mask gives.
    pub umask: Option<u32>,
    /// Where what is replaced is kept, to be put back one day.
    pub keep: Option<Keep<'a>>,
    /// Which of the changes that need a yes have one.
    pub agreed: &'a Agreed,
    /// What needs a yes and has none, what conflicts and what fails is left out, with what belongs to
    /// it, and the rest is carried over. Otherwise nothing is.
    pub partial: bool,
    /// Changes by the caller's check after the agent wait, as conflicts do.
    pub hold_checked: bool,
    /// Look, and change nothing.
    pub dry_run: bool,
    /// The list of branches that follow when everything is carried over.
    pub commits: Option<PathBuf>,
}

/// What was carried over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What was changed, or would be.
    pub changed: Vec<RelPath>,
    /// What was already as the run left it.
    pub already: Vec<RelPath>,
    /// Folders that the run deleted, and that stay because something else is in them.
    pub kept_folders: Vec<RelPath>,
    /// Files with further names, which keep the old content.
    pub linked: Vec<RelPath>,
    /// Files that are mounted by themselves somewhere, where the old content stays.
    pub mounted: Vec<RelPath>,
    /// What agents and shells on the host will follow from now on.
    pub obeyed: Vec<Obeyed>,
    /// Files whose old content is too much to be kept, so that this cannot be undone.
    pub beyond: Vec<RelPath>,
    /// What was asked for and is left out, because of what follows.
    pub pending: Vec<RelPath>,
    pub protected: Vec<NeedsYes>,
    pub conflicts: Vec<Conflict>,
}

/// Carries changes over. Blocking.
pub fn apply(
    workspace: &WorkspacePath,
    lock: &FolderLock,
    request: &Request<'_>,
) -> Result<Carried, ApplyError> {
    if !lock.is_of(workspace) {
        return Err(ApplyError::NotLocked);
    }
    workspace.recheck().map_err(crate::workspace::GuardError::from)?;
    // Each path that is listed is complete in itself.
    if !request.manifest.complete && request.only.is_empty() {
        return Err(ApplyError::Incomplete);
    }
    let root = lock.root();
    // Whoever held the lock before may have died within its work.
    for place in Place::all(request.journals) {
        if let Some((journal, done)) = place.read()?
            && journal.workspace == workspace.path()
        {
            settle_found(&place, &journal, done, root)?;
        }
    }
    let changes = select(request.manifest, request.only)?;
    let mut trust = None;
    let mut left = LeftOut::default();
    if request.hold_checked && !request.manifest.checked.is_empty() {
        let held = partial::of_check(&request.manifest.checked);
        if !request.partial {
            return Err(ApplyError::Conflicts(held));
        }
        left.note(ApplyError::Conflicts(held), &changes)?;
    }
    loop {
        let rest = left.rest(&changes, &request.manifest.repositories);
        let mut judge = |todo: &[&Alteration]| {
            let made = || Trust::of(workspace, root, request.protected, &changes);
            trust.get_or_insert_with(made).needs(todo, &request.manifest.repositories)
        };
        match attempt(workspace, root, request, &rest, &mut judge) {
            Err(error) if request.partial => left.note(error, &rest)?,
            Err(error) => return Err(error),
            Ok(carried) => {
                let done: HashSet<_> = rest.iter().map(|change| &change.path).collect();
                let all = changes.iter().map(|change| &change.path);
                let pending = all.filter(|path| !done.contains(path)).cloned().collect();
                let LeftOut { protected, conflicts, .. } = left;
                return Ok(Carried { pending, protected, conflicts, ..carried });
            }
        }
    }
}

/// Carries some changes over, all or nothing.
fn attempt(
    workspace: &WorkspacePath,
    root: BorrowedFd<'_>,
    request: &Request<'_>,
    changes: &[&Alteration],
    judge: &mut dyn FnMut(&[&Alteration]) -> Vec<NeedsYes>,
) -> Result<Carried, ApplyError> {
    let repositories = &*request.manifest.repositories;
    let is_theirs = |path| is_git(path) && !repositories.iter().any(|made| made.has(path));
    if let Some(change) = changes.iter().find(|change| is_theirs(&change.path)) {
        return Err(ApplyError::Git { path: change.path.to_string(), at: change.path.clone() });
    }
    let mut folders = Folders::new(root);
    let plan = Plan::make(&mut folders, changes, repositories, request.umask)?;
    if !plan.conflicts.is_empty() {
        return Err(ApplyError::Conflicts(plan.conflicts));
    }
    let todo: Vec<_> = plan.todo.iter().map(|todo| todo.change).collect();
    if *request.agreed != Agreed::Everything && !todo.is_empty() {
        let mut needs = judge(&todo);
        // Who has to look again is shown all of it.
        if request.partial || needs.iter().all(|need| request.agreed.covers(need)) {
            needs.retain(|need| !request.agreed.covers(need));
        }
        if !needs.is_empty() {
            return Err(ApplyError::Protected(needs));
        }
    }
    let carried = Carried {
        changed: todo.iter().map(|change| change.path.clone()).collect(),
        already: plan.already.iter().map(|path| (*path).clone()).collect(),
        kept_folders: plan.kept.iter().map(|path| (*path).clone()).collect(),
        linked: plan.todo.iter().filter(|todo| todo.is_linked()).map(Todo::path).collect(),
        mounted: mounted_files(workspace, &plan),
        obeyed: obeyed(&todo),
        beyond: request.keep.map(|keep| undo::beyond(&plan, keep)).unwrap_or_default(),
        ..Carried::default()
    };
    if !request.dry_run && !plan.todo.is_empty() {
        let is_whole = changes.len() == request.manifest.changes.len();
        let commits = request.commits.clone().filter(|_| is_whole);
        carry(workspace, root, (request, commits), &plan, &mut folders)?;
    }
    Ok(carried)
}

/// Returns the files with a new content, or none any more, that something else has mounted.
fn mounted_files(workspace: &WorkspacePath, plan: &Plan<'_>) -> Vec<RelPath> {
    let replaced = plan.todo.iter().filter(|todo| todo.replaces_file());
    let replaced: HashSet<&Path> = replaced.map(|todo| todo.change.path.as_path()).collect();
    let found = mounted::mounted(workspace.path(), &replaced);
    found.into_iter().filter_map(|path| RelPath::new(path).ok()).collect()
}

fn staging(run: &RunId) -> String {
    format!("{STAGING}{run}")
}
