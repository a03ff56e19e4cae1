//! A list of changes as a report shows it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Alteration, Manifest, Node, Skipped};
use crate::workspace::changes::{LISTED, shown};
use crate::workspace::ignores::Ignores;
use crate::workspace::walk::{open_folder, open_root};
use crate::workspace::{Change, ChangeKind, ChangeSummary};

/// Reasons to leave something out that leave no change untold.
const NOTHING_HIDDEN: [&str; 4] = ["socket", "fifo", "device", "inside .git"];

/// Forgets that a check changed what the project ignores: such files are nobody's work.
pub(super) fn spare_ignored(manifest: &mut Manifest, written: &Path) {
    if manifest.checked.is_empty() {
        return;
    }
    let mut rules = Rules::new(&manifest.workspace, written);
    manifest.checked.retain(|path| !rules.hide(path.as_path()));
}

/// Folders that are only there for what is in them are left out, and what the project ignores
/// takes one line for each folder of it.
pub(super) fn summary(manifest: &Manifest, written: &Path) -> ChangeSummary {
    let mut rules = Rules::new(&manifest.workspace, written);
    let mut parents: HashSet<&Path> = HashSet::new();
    for change in &manifest.changes {
        // What is above one that is known is known as well: paths can be very long.
        change.path.as_path().ancestors().skip(1).all(|above| parents.insert(above));
    }
    let renamed: BTreeSet<_> =
        manifest.changes.iter().filter_map(|change| change.from.as_ref()).collect();
    let mut lines: BTreeMap<(PathBuf, bool), (ChangeKind, Option<String>)> = BTreeMap::new();
    for change in &manifest.changes {
        let path = change.path.as_path();
        let kind = kind(change);
        if let Some(ignored) = rules.ignored_folder(path, is_folder(change)) {
            let line = lines.entry((ignored, true)).or_insert((kind, None));
            if line.0 != kind {
                line.0 = ChangeKind::Modified;
            }
            continue;
        }
        let is_way = is_folder(change) && kind != ChangeKind::Modified && parents.contains(path);
        if is_way || renamed.contains(&change.path) {
            continue;
        }
        let from = change.from.as_ref().map(ToString::to_string);
        lines.insert((path.to_owned(), is_folder(change)), (kind, from));
    }
    let hides = |skipped: &Skipped| !NOTHING_HIDDEN.contains(&skipped.why.as_str());
    let whole = manifest.complete && !manifest.skipped.iter().any(hides);
    let truncated = !whole || lines.len() > LISTED;
    let files = lines.into_iter().take(LISTED).map(|((path, is_folder), (change, from))| Change {
        path: shown(&path, is_folder),
        change,
        from,
    });
    let applied = (!manifest.changes.is_empty()).then_some(false);
    ChangeSummary { files: files.collect(), truncated, applied, pending: None, commits: None }
}

fn kind(change: &Alteration) -> ChangeKind {
    match (&change.before, &change.after, &change.from) {
        (_, _, Some(_)) => ChangeKind::Renamed,
        (None, ..) => ChangeKind::Added,
        (_, None, _) => ChangeKind::Deleted,
        _ => ChangeKind::Modified,
    }
}

fn is_folder(change: &Alteration) -> bool {
    matches!(change.after.as_ref().or(change.before.as_ref()), Some(Node::Folder { .. }))
}

/// The project's rules, and those that the run wrote; read as they are needed.
struct Rules {
    sources: Vec<(Option<OwnedFd>, Ignores)>,
    /// Of each folder that was asked about the highest one, itself or above, that is ignored.
    known: HashMap<PathBuf, Option<PathBuf>>,
}

impl Rules {
    fn new(workspace: &Path, written: &Path) -> Self {
        let mut sources = vec![(open_root(workspace).ok(), Ignores::around(workspace))];
        sources.push((open_root(written).ok(), Ignores::default()));
        Self { sources, known: HashMap::new() }
    }

    fn hide(&mut self, path: &Path) -> bool {
        let folder = self.ignored_folder(path, false);
        folder.is_some() || self.sources.iter().any(|(_, rules)| rules.hides(path, false))
    }

    /// The highest folder on the way to a path that is ignored; the path itself if it is one.
    fn ignored_folder(&mut self, path: &Path, is_folder: bool) -> Option<PathBuf> {
        self.ignored(if is_folder { path } else { path.parent()? })
    }

    fn ignored(&mut self, folder: &Path) -> Option<PathBuf> {
        if let Some(known) = self.known.get(folder) {
            return known.clone();
        }
        let mut found = folder.parent().and_then(|above| self.ignored(above));
        if found.is_none() && !folder.as_os_str().is_empty() {
            let hidden = self.sources.iter().any(|(_, rules)| rules.hides(folder, true));
            found = hidden.then(|| folder.to_owned());
        }
        if found.is_none() {
            for (root, rules) in &mut self.sources {
                let opened = root.as_ref().map(|root| open_folder(root.as_fd(), folder));
                if let Some(Ok(opened)) = opened {
                    rules.read(folder, opened.as_fd());
                }
            }
        }
        self.known.insert(folder.to_owned(), found.clone());
        found
    }
}
