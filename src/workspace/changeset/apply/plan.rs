//! What is to be done, and whether it can be: everything is looked at before anything is touched.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, Stat};
use rustix::io::Errno;

use super::super::node::{Seen, look, name_of, parent_of};
use super::super::{Alteration, Manifest, Node, RelPath};
use super::error::{ApplyError, Conflict};
use crate::text::one_line;
use crate::workspace::walk::{open_folder, step};

/// One change to be made.
#[derive(Debug)]
pub(super) struct Todo<'a> {
    pub change: &'a Alteration,
    /// What is there now, if something is.
    pub stat: Option<Stat>,
}

#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// In the order of paths.
    pub todo: Vec<Todo<'a>>,
    /// What is as the run left it.
    pub already: Vec<&'a RelPath>,
    /// Folders that the run deleted and that hold something else now.
    pub kept: Vec<&'a RelPath>,
    /// Folders on the way that are not there, and that the list does not have.
    pub missing: Vec<PathBuf>,
    pub conflicts: Vec<Conflict>,
}

/// The changes that are asked for: all, or those at and below some paths, with what belongs to
/// them.
pub(super) fn select<'a>(
    manifest: &'a Manifest,
    only: &[String],
) -> Result<Vec<&'a Alteration>, ApplyError> {
    if only.is_empty() {
        return Ok(manifest.changes.iter().collect());
    }
    let by_path: HashMap<&Path, &Alteration> =
        manifest.changes.iter().map(|change| (change.path.as_path(), change)).collect();
    let mut to: HashMap<&Path, Vec<&Alteration>> = HashMap::new();
    for change in &manifest.changes {
        if let Some(from) = &change.from {
            to.entry(from.as_path()).or_default().push(change);
        }
    }
    let mut open: Vec<&Alteration> = Vec::new();
    for given in only {
        let path = Path::new(given);
        let path = path.strip_prefix(&manifest.workspace).unwrap_or(path);
        let path: PathBuf = path.components().collect();
        let path = path.strip_prefix(".").unwrap_or(&path);
        let found =
            manifest.changes.iter().filter(|change| change.path.as_path().starts_with(path));
        let before = open.len();
        if !path.as_os_str().is_empty() {
            open.extend(found);
        }
        if open.len() == before {
            return Err(ApplyError::UnknownPath {
                given: one_line(given, 200),
                nearest: nearest(manifest, path),
            });
        }
    }
    let mut chosen = HashSet::new();
    while let Some(change) = open.pop() {
        if !chosen.insert(change.path.as_path()) {
            continue;
        }
        // Both ends of a name that changed.
        open.extend(change.from.as_ref().and_then(|from| by_path.get(from.as_path())));
        open.extend(to.get(change.path.as_path()).into_iter().flatten());
        // New folders on the way, and what was in a folder that is none any more.
        if change.after.is_some() {
            let above = change.path.as_path().ancestors().skip(1);
            let made = above.filter_map(|path| by_path.get(path));
            open.extend(made.filter(|above| matches!(above.after, Some(Node::Folder { .. }))));
        }
        if matches!(change.before, Some(Node::Folder { .. }))
            && matches!(change.after, Some(Node::File { .. } | Node::Link { .. }))
        {
            let path = change.path.as_path();
            open.extend(manifest.changes.iter().filter(|c| c.path.as_path().starts_with(path)));
        }
    }
    let chosen = manifest.changes.iter().filter(|change| chosen.contains(change.path.as_path()));
    Ok(chosen.collect())
}

fn nearest(manifest: &Manifest, path: &Path) -> Option<String> {
    const LOOKED_AT: usize = 10_000;
    let wanted = path.to_string_lossy();
    let likeness = |change: &Alteration| {
        strsim::jaro_winkler(&change.path.as_path().to_string_lossy(), &wanted)
    };
    let known = manifest.changes.iter().take(LOOKED_AT);
    let near = known.map(|change| (likeness(change), change));
    near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, change)| change.path.to_string())
}

impl<'a> Plan<'a> {
    /// Looks at every path that is to change.
    pub fn make(root: BorrowedFd<'_>, changes: &[&'a Alteration]) -> Result<Self, ApplyError> {
        let device = rustix::fs::fstat(root)
            .map_err(|errno| ApplyError::Io {
                what: "look at the workspace",
                path: ".".into(),
                source: errno.into(),
            })?
            .st_dev;
        let by_path: HashMap<&Path, &Alteration> =
            changes.iter().map(|change| (change.path.as_path(), *change)).collect();
        let mut plan = Self::default();
        let mut missing = HashSet::new();
        for change in changes.iter().copied() {
            match here(root, device, change, &by_path) {
                Here::Seen(seen) => plan.judge(change, &seen),
                Here::Conflict(conflict) => plan.conflicts.push(conflict),
            }
            if change.after.is_some() {
                let above = change.path.as_path().ancestors().skip(1);
                let above = above.take_while(|path| !path.as_os_str().is_empty());
                let absent =
                    above.take_while(|path| matches!(open_folder(root, path), Err(Errno::NOENT)));
                missing.extend(absent.filter(|path| !by_path.contains_key(path)));
            }
        }
        plan.missing = missing.into_iter().map(Path::to_owned).collect();
        plan.missing.sort();
        plan.look_into_folders(root);
        Ok(plan)
    }

    fn judge(&mut self, change: &'a Alteration, seen: &Seen) {
        let folders = |one: Option<&Node>, other: Option<&Node>| {
            matches!((one, other), (Some(Node::Folder { .. }), Some(Node::Folder { .. })))
        };
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        // Whether a folder that came or went has the same mode matters to nobody.
        let made = before.is_none() && folders(seen.node(), after);
        let there = after.is_none() && folders(seen.node(), before);
        if seen.is(after) || made {
            self.already.push(&change.path);
        } else if change.base_moved && before.is_some() {
            // What the run added where there is nothing takes nothing from anybody, even if the
            // folder around it has changed.
            self.conflicts.push(Conflict {
                path: change.path.to_string(),
                expected: describe(before),
                found: "a file that somebody else changed while the run went on".into(),
                advice: "compare with `sandbox-mcp diff`, and put the two together by hand",
            });
        } else if seen.is(before) || there {
            self.todo.push(Todo { change, stat: seen.stat().copied() });
        } else {
            let found = match seen {
                Seen::Nothing => describe(None),
                Seen::Node(node, _) => describe(Some(node)),
                Seen::OtherFile(stat) => {
                    format!("another file, of {} bytes", stat.st_size)
                }
                Seen::Special => "neither a file nor a folder".into(),
            };
            self.conflicts.push(Conflict {
                path: change.path.to_string(),
                expected: describe(before),
                found,
                advice: "it changed since the run began; put the two together by hand, or undo \
                         that change and apply again",
            });
        }
    }

    /// Which of the folders that the run deleted will be empty.
    fn look_into_folders(&mut self, root: BorrowedFd<'_>) {
        let mut leaving: HashSet<PathBuf> = HashSet::new();
        let mut stay = HashSet::new();
        // From the deepest to the top: a folder sorts in front of what is in it.
        for todo in self.todo.iter().rev() {
            let change = todo.change;
            let path = change.path.as_path();
            let goes = !matches!(change.after, Some(Node::Folder { .. }));
            if goes && matches!(change.before, Some(Node::Folder { .. })) {
                let empty = open_folder(root, path).and_then(Dir::new).is_ok_and(|entries| {
                    entries.flatten().all(|entry| {
                        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
                        name == "." || name == ".." || leaving.contains(&path.join(name))
                    })
                });
                if !empty {
                    if change.after.is_some() {
                        self.conflicts.push(Conflict {
                            path: change.path.to_string(),
                            expected: "a folder with nothing in it but what the run deleted".into(),
                            found: "a folder with something else in it".into(),
                            advice: "move that to another place and apply again",
                        });
                    }
                    stay.insert(&change.path);
                    continue;
                }
            }
            if change.after.is_none() {
                leaving.insert(path.to_owned());
            }
        }
        self.todo.retain(|todo| !stay.contains(&todo.change.path) || todo.change.after.is_some());
        self.kept.extend(stay);
        self.kept.sort();
    }
}

enum Here {
    Seen(Seen),
    Conflict(Conflict),
}

/// What is at a change's path.
fn here(
    root: BorrowedFd<'_>,
    device: u64,
    change: &Alteration,
    by_path: &HashMap<&Path, &Alteration>,
) -> Here {
    let conflict = |found: &str, advice| {
        Here::Conflict(Conflict {
            path: change.path.to_string(),
            expected: describe(change.before.as_ref()),
            found: found.to_owned(),
            advice,
        })
    };
    let sizes: Vec<u64> = [&change.before, &change.after]
        .into_iter()
        .filter_map(|node| match node {
            Some(Node::File { size, .. }) => Some(*size),
            _ => None,
        })
        .collect();
    let parent = match parent_of(root, &change.path) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Here::Seen(Seen::Nothing),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            // What stands in the way is to be changed itself, and is judged by its own line.
            let odd = first_that_is_no_folder(root, &change.path);
            if odd.is_some_and(|odd| by_path.contains_key(odd.as_path())) {
                return Here::Seen(Seen::Nothing);
            }
            return conflict(
                "a link or a file in the place of a folder on the way",
                "put the folder back and apply again",
            );
        }
        Err(errno) => return conflict(&errno.to_string(), "make its folder accessible"),
    };
    match rustix::fs::fstat(parent.as_fd()) {
        Ok(stat) if stat.st_dev != device => {
            return conflict(
                "a folder on another file system",
                "apply to a workspace in that file system, or take the patch",
            );
        }
        Ok(_) => {}
        Err(errno) => return conflict(&errno.to_string(), "make its folder accessible"),
    }
    match look(parent.as_fd(), name_of(&change.path), &sizes) {
        Ok(seen) => Here::Seen(seen),
        Err(error) => conflict(&error.to_string(), "make it readable and apply again"),
    }
}

fn first_that_is_no_folder(root: BorrowedFd<'_>, path: &RelPath) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    let mut opened = step(root, std::ffi::OsStr::new(".")).ok()?;
    for name in path.as_path().parent()? {
        at.push(name);
        match step(opened.as_fd(), name) {
            Ok(next) => opened = next,
            Err(_) => return Some(at),
        }
    }
    None
}

pub(super) fn describe(node: Option<&Node>) -> String {
    match node {
        None => "nothing".to_owned(),
        Some(Node::File { sha256, size, mode }) => {
            let hash = crate::text::prefix(sha256, 12);
            format!("a file of {size} bytes, mode {mode:o}, SHA-256 {}…", one_line(hash, 12))
        }
        Some(Node::Link { target }) => {
            let target = String::from_utf8_lossy(&target.0);
            format!("a link to {}", one_line(&target, 100))
        }
        Some(Node::Folder { mode }) => format!("a folder, mode {mode:o}"),
    }
}
