//! Changes that were carried over while their run went on.
//!
//! The list is written before anything is carried over, and holds what may have been: whether it
//! was, the workspace tells. So it is good after a crash at any moment.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::node::{Seen, look, name_of, parent_of, same_content};
use super::{Alteration, Manifest, Node, StoreError, read_manifest, write_manifest};
use crate::workspace::walk::open_root;

/// Most changes in the list.
const MOST: usize = 200_000;

/// Changes that were carried over while their run went on, by path, the first one first.
#[derive(Debug, Default)]
pub struct Live(HashMap<PathBuf, Vec<Alteration>>);

impl Live {
    /// Reads the list; an empty one where there is none.
    pub fn read(list: &Path) -> Result<Self, StoreError> {
        let mut live = Self::default();
        for change in read_manifest(list)?.unwrap_or_default().changes {
            live.0.entry(change.path.as_path().to_owned()).or_default().push(change);
        }
        Ok(live)
    }

    /// Adds what is about to be carried over, as far as it is not listed.
    pub fn add(list: &Path, manifest: &Manifest) -> Result<(), StoreError> {
        let known = Self::read(list)?;
        let new = manifest.changes.iter().filter(|change| !known.has(change)).cloned();
        let earlier = read_manifest(list)?.unwrap_or_default().changes;
        let changes: Vec<_> = earlier.into_iter().chain(new).collect();
        if changes.len() > MOST {
            let why = "too many changes were applied while the run went on".to_owned();
            return Err(StoreError::Nonsense { path: list.to_owned(), why });
        }
        let workspace = manifest.workspace.clone();
        let all = Manifest { version: super::VERSION, workspace, changes, ..Manifest::default() };
        write_manifest(list, &all)
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn has_path(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the first change at a path, where what is `found` there was carried over.
    pub(super) fn first(&self, path: &Path, found: Option<&Node>) -> Option<&Alteration> {
        self.carried(path, found).and_then(|_| self.0.get(path)?.first())
    }

    /// Returns the change that left what is `found` at a path.
    fn carried(&self, path: &Path, found: Option<&Node>) -> Option<&Alteration> {
        let mut changes = self.0.get(path)?.iter().rev();
        changes.find(|change| is_same(found, change.after.as_ref()))
    }

    /// Returns true where the workspace has a change of the run as it is listed.
    pub fn has(&self, change: &Alteration) -> bool {
        let last = self.0.get(change.path.as_path()).and_then(|changes| changes.last());
        last.is_some_and(|last| last.after == change.after)
    }

    /// Returns the list of changes as if the run had found what was carried over before, where that
    /// is still so. Blocking.
    pub fn met(&self, mut manifest: Manifest) -> Manifest {
        let Ok(root) = open_root(&manifest.workspace) else { return manifest };
        for change in &mut manifest.changes {
            let Some(known) = self.0.get(change.path.as_path()) else { continue };
            let Ok(parent) = parent_of(root.as_fd(), &change.path) else { continue };
            let sizes = known.iter().filter_map(|change| match &change.after {
                Some(Node::File { size, .. }) => Some(*size),
                _ => None,
            });
            let sizes: Vec<_> = sizes.collect();
            let Ok(seen) = look(parent.as_fd(), name_of(&change.path), &sizes) else { continue };
            let found = match &seen {
                Seen::Nothing => None,
                Seen::Node(node, _) => Some(node),
                Seen::OtherFile(_) | Seen::Special => continue,
            };
            let Some(carried) = self.carried(change.path.as_path(), found) else { continue };
            if change.after == carried.after {
                continue;
            }
            // A file that was new has the caller's own mode since.
            if mode(change.after.as_ref()) == mode(carried.after.as_ref())
                && let (Some(Node::File { mode: after, .. }), Some(now)) =
                    (&mut change.after, mode(found))
            {
                *after = now;
            }
            change.before = found.cloned();
        }
        manifest
    }
}

fn mode(node: Option<&Node>) -> Option<u32> {
    match node {
        Some(Node::File { mode, .. }) => Some(*mode),
        _ => None,
    }
}

/// Returns true for the same thing, whatever its mode.
fn is_same(one: Option<&Node>, other: Option<&Node>) -> bool {
    let folders = matches!((one, other), (Some(Node::Folder { .. }), Some(Node::Folder { .. })));
    folders || same_content(one, other) || one == other
}
