//! Carrying over what can be carried over, where some of it cannot: what is left out, what must be
//! left out with it, and why.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;

use super::super::{Alteration, NewRepository, Node, RelPath};
use super::error::{ApplyError, Conflict, NeedsYes};
use super::plan::describe;

/// More paths than fail one by one, each for reasons of its own.
const MOST_FAILED: usize = 32;

/// What is left out of an application.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    paths: HashSet<RelPath>,
    pub conflicts: Vec<Conflict>,
    pub protected: Vec<NeedsYes>,
    failed: usize,
}

impl LeftOut {
    /// Leaves out what an attempt has failed for, or gives the error back where leaving something
    /// out does not help.
    pub fn note(&mut self, error: ApplyError, changes: &[&Alteration]) -> Result<(), ApplyError> {
        let before = self.paths.len();
        match error {
            ApplyError::Conflicts(conflicts) => {
                self.paths.extend(conflicts.iter().map(|conflict| conflict.at.clone()));
                self.conflicts.extend(conflicts);
            }
            ApplyError::Protected(needs) => {
                self.paths.extend(needs.iter().map(|need| need.change.path.clone()));
                self.protected.extend(needs);
            }
            ApplyError::Git { path, at } => {
                self.paths.insert(at.clone());
                self.conflicts.push(Conflict {
                    at,
                    path,
                    expected: "nothing of git's own".to_owned(),
                    found: "a change of it, which is never carried over".to_owned(),
                    advice: "the run's commits come back by another way",
                });
            }
            error => {
                let Some(change) = self.failed_for(&error, changes) else { return Err(error) };
                self.failed += 1;
                if self.failed > MOST_FAILED {
                    return Err(error);
                }
                self.paths.insert(change.path.clone());
                self.conflicts.push(Conflict {
                    at: change.path.clone(),
                    path: change.path.to_string(),
                    expected: describe(change.before.as_ref()),
                    found: format!("it failed to {error}"),
                    advice: "put that right and apply again",
                });
            }
        }
        // Without anything new the next attempt would end like this one.
        if self.paths.len() == before {
            let path = "the changes".to_owned();
            let source = ErrorKind::Other.into();
            return Err(ApplyError::Io { what: "leave something out of", path, source });
        }
        Ok(())
    }

    /// The change that an error is about, if it is about one and not about the whole disk.
    fn failed_for<'a>(
        &self,
        error: &ApplyError,
        changes: &[&'a Alteration],
    ) -> Option<&'a Alteration> {
        let path = match error {
            ApplyError::Content { path, .. } => path,
            ApplyError::Io { path, source, .. } => {
                let everywhere = [
                    ErrorKind::StorageFull,
                    ErrorKind::QuotaExceeded,
                    ErrorKind::ReadOnlyFilesystem,
                    ErrorKind::OutOfMemory,
                ];
                if everywhere.contains(&source.kind()) {
                    return None;
                }
                path
            }
            _ => return None,
        };
        let left = |change: &&&Alteration| !self.paths.contains(&change.path);
        changes.iter().filter(left).find(|change| change.path.to_string() == *path).copied()
    }

    /// Which changes remain, in their order: all but what is left out, and what belongs to that.
    pub fn rest<'a>(
        &self,
        changes: &[&'a Alteration],
        repositories: &[NewRepository],
    ) -> Vec<&'a Alteration> {
        if self.paths.is_empty() {
            return changes.to_vec();
        }
        let tree = Tree::of(changes);
        let mut out: HashSet<&Path> = HashSet::new();
        let known =
            |path: &RelPath| tree.by_path.get_key_value(path.as_path()).map(|found| *found.1);
        let mut open: Vec<&Alteration> = self.paths.iter().filter_map(known).collect();
        // Half of a repository is none.
        let broken =
            repositories.iter().filter(|made| self.paths.iter().any(|path| made.has(path)));
        for made in broken {
            open.extend(changes.iter().filter(|change| made.has(&change.path)));
        }
        loop {
            while let Some(change) = open.pop() {
                if out.insert(change.path.as_path()) {
                    open.extend(tree.bound_to(change));
                }
            }
            // A new folder in which nothing is made.
            open.extend(tree.new_folders_without(&out));
            if open.is_empty() {
                break;
            }
        }
        changes.iter().filter(|change| !out.contains(change.path.as_path())).copied().collect()
    }
}

/// Conflicts of paths that a check changed after the agent: whose they are, a person decides.
pub(super) fn of_check(paths: &[RelPath]) -> Vec<Conflict> {
    let conflict = |path: &RelPath| Conflict {
        at: path.clone(),
        path: path.to_string(),
        expected: "what the agent had left".to_owned(),
        found: "what `verify` made of it".to_owned(),
        advice: "look at it and apply it by its name",
    };
    paths.iter().map(conflict).collect()
}

/// Changes by their places.
struct Tree<'a> {
    by_path: BTreeMap<&'a Path, &'a Alteration>,
    /// The additions that have the content of a deletion.
    to: HashMap<&'a Path, Vec<&'a Alteration>>,
}

impl<'a> Tree<'a> {
    fn of(changes: &[&'a Alteration]) -> Self {
        let by_path = changes.iter().map(|change| (change.path.as_path(), *change)).collect();
        let mut to: HashMap<&Path, Vec<&Alteration>> = HashMap::new();
        for change in changes {
            if let Some(from) = &change.from {
                to.entry(from.as_path()).or_default().push(change);
            }
        }
        Self { by_path, to }
    }

    fn below(&self, path: &'a Path) -> impl Iterator<Item = &'a Alteration> {
        let further = self.by_path.range(path..);
        further.take_while(move |(other, _)| other.starts_with(path)).skip(1).map(|(_, c)| *c)
    }

    /// What cannot or must not be done without a change.
    fn bound_to(&self, change: &'a Alteration) -> Vec<&'a Alteration> {
        let is_folder = |node: &Option<Node>| matches!(node, Some(Node::Folder { .. }));
        let path = change.path.as_path();
        // Both ends of a name that changed.
        let from = change.from.as_ref().and_then(|from| self.by_path.get(from.as_path()));
        let to = self.to.get(path).into_iter().flatten();
        let mut bound: Vec<_> = from.into_iter().chain(to).copied().collect();
        let made = is_folder(&change.after) && !is_folder(&change.before);
        let replaced = is_folder(&change.before) && change.after.is_some();
        if made || (replaced && !is_folder(&change.after)) {
            bound.extend(self.below(path));
        }
        // A folder that does not become empty stays.
        let above = path.ancestors().skip(1).filter_map(|path| self.by_path.get(path));
        bound.extend(above.filter(|above| is_folder(&above.before) && !is_folder(&above.after)));
        bound
    }

    fn new_folders_without(&self, out: &HashSet<&Path>) -> Vec<&'a Alteration> {
        let is_new_folder = |change: &&&Alteration| {
            change.before.is_none() && matches!(change.after, Some(Node::Folder { .. }))
        };
        let folders = self.by_path.values().filter(is_new_folder);
        let left = folders.filter(|change| {
            let path = change.path.as_path();
            !out.contains(path)
                && self.below(path).next().is_some()
                && self.below(path).all(|below| out.contains(below.path.as_path()))
        });
        left.copied().collect()
    }
}
