//! What an application replaces or removes, kept in the run's record, and put back from there.
//!
//! The list of it is written when everything is in its place, before that is final, and is good when
//! it is renamed. Old contents move into the record when what was replaced would be removed. An
//! undoing is an application of its own: of the same list, the other way round.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Stat};
use serde::{Deserialize, Serialize};

use super::super::node::{name_of, permissions, regular};
use super::super::store::{read_small, write_json};
use super::super::{
    Alteration, Blobs, Manifest, NewRepository, Node, RelPath, StoreError, VERSION,
};
use super::error::ApplyError;
use super::fault;
use super::folders::Folders;
use super::journal::{Journal, Step};
use super::plan::{Plan, Todo};
use super::swap::{folder_of, old};

const LARGEST: u64 = 256 << 20;

/// Where an application keeps what it replaces, and how much of it.
#[derive(Clone, Copy, Debug)]
pub struct Keep<'a> {
    /// In the run's record.
    pub folder: &'a Path,
    pub bytes: u64,
}

/// One application, as it is kept: `before` and `after` are what was and what it left.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    workspace: PathBuf,
    changes: Vec<Alteration>,
    #[serde(default)]
    beyond_bounds: Vec<RelPath>,
    /// Git directories that were made.
    #[serde(default)]
    repositories: Vec<RelPath>,
}

/// The files whose old content is too much to be kept, in the order of paths.
pub(super) fn beyond(plan: &Plan<'_>, keep: Keep<'_>) -> Vec<RelPath> {
    let mut left = keep.bytes.saturating_sub(taken(keep.folder));
    let mut beyond_bounds = Vec::new();
    for todo in &plan.todo {
        let Some(size) = replaced(todo) else { continue };
        if size > left {
            beyond_bounds.push(todo.path());
        } else {
            left -= size;
        }
    }
    beyond_bounds
}

fn taken(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

/// The size of a content that is not there any more afterwards.
fn replaced(todo: &Todo<'_>) -> Option<u64> {
    match (&todo.change.before, &todo.change.after) {
        (Some(Node::File { sha256, .. }), Some(Node::File { sha256: after, .. }))
            if sha256 == after =>
        {
            None
        }
        (Some(Node::File { size, .. }), _) => Some(*size),
        _ => None,
    }
}

/// Copies what cannot be moved into the record later, being on another file system.
pub(super) fn copy_across(
    plan: &Plan<'_>,
    keep: Keep<'_>,
    beyond_bounds: &[RelPath],
    folders: &mut Folders<'_>,
) -> Result<(), ApplyError> {
    make(keep.folder)?;
    let device = keep.folder.metadata().map(|found| found.dev());
    if device.ok() == folders.device() {
        return Ok(());
    }
    for todo in plan.todo.iter().filter(|todo| replaced(todo).is_some()) {
        let path = &todo.change.path;
        if beyond_bounds.contains(path) {
            continue;
        }
        let failed = || ApplyError::io("keep", path);
        let folder = folders.get(folder_of(path)).map_err(|errno| failed()(errno.into()))?;
        if let Some((mut file, _)) = regular(folder, name_of(path)).map_err(failed())? {
            Blobs::new(keep.folder).put(&mut file).map_err(ApplyError::content(path))?;
        }
    }
    Ok(())
}

fn make(folder: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StoreError::Io { what: "make", path: folder.to_owned(), source })
}

/// Writes down what was done; answers where, for the journal. It counts when it is [`kept`].
pub(super) fn note(
    workspace: &Path,
    (plan, made): (&Plan<'_>, &[NewRepository]),
    list: &Path,
    beyond_bounds: Vec<RelPath>,
    folders: &mut Folders<'_>,
) -> Result<(), ApplyError> {
    let mut changes = Vec::new();
    for path in &plan.missing {
        let Ok(path) = RelPath::new(path.clone()) else { continue };
        let after = now(&path, &Node::Folder { mode: 0 }, folders)?;
        changes.push(alteration(path, None, Some(after), None));
    }
    for Todo { change, stat } in &plan.todo {
        let after =
            change.after.as_ref().map(|node| now(&change.path, node, folders)).transpose()?;
        let before = change.before.clone().map(|node| with_mode(node, stat.as_ref()));
        let written = stat.as_ref().map(|stat| {
            // The types differ from target to target.
            let (seconds, more) = (i128::from(stat.st_mtime), i128::from(stat.st_mtime_nsec));
            i64::try_from(seconds * 1_000_000_000 + more).unwrap_or_default()
        });
        changes.push(alteration(change.path.clone(), before, after, written));
    }
    let made = made.iter().filter(|made| changes.iter().any(|change| made.has(&change.path)));
    let repositories = made.map(|made| made.git.clone()).collect();
    let workspace = workspace.to_owned();
    let kept = Kept { version: VERSION, workspace, changes, beyond_bounds, repositories };
    Ok(write_json(&pending(list), &kept)?)
}

fn alteration(
    path: RelPath,
    before: Option<Node>,
    after: Option<Node>,
    written: Option<i64>,
) -> Alteration {
    Alteration { path, before, after, from: None, base_moved: false, written }
}

fn pending(list: &Path) -> PathBuf {
    list.with_extension("pending")
}

/// A node with the mode that it has now.
fn now(path: &RelPath, node: &Node, folders: &mut Folders<'_>) -> Result<Node, ApplyError> {
    let stat = folders
        .get(folder_of(path))
        .and_then(|folder| rustix::fs::statat(folder, name_of(path), AtFlags::SYMLINK_NOFOLLOW));
    let stat = stat.map_err(|errno| ApplyError::io("look at", path)(errno.into()))?;
    Ok(with_mode(node.clone(), Some(&stat)))
}

fn with_mode(mut node: Node, stat: Option<&Stat>) -> Node {
    if let (Node::File { mode, .. } | Node::Folder { mode }, Some(stat)) = (&mut node, stat) {
        *mode = permissions(stat);
    }
    node
}

/// Moves what was replaced into the record, when an application is done for good. Again and again
/// is once.
pub(super) fn kept(journal: &Journal, staging: BorrowedFd<'_>) -> io::Result<()> {
    let Some(list) = &journal.undo else { return Ok(()) };
    let Some(folder) = list.parent().filter(|folder| folder.is_dir()) else { return Ok(()) };
    let path = pending(list);
    let Ok(Some(text)) = read_small(&path, LARGEST) else { return Ok(()) };
    let kept: Kept = serde_json::from_slice(&text)?;
    let beyond_bounds: HashSet<_> = kept.beyond_bounds.iter().collect();
    let contents: HashMap<_, _> = kept
        .changes
        .iter()
        .filter(|change| !beyond_bounds.contains(&change.path))
        .filter_map(|change| match &change.before {
            Some(Node::File { sha256, .. }) => Some((&change.path, sha256)),
            _ => None,
        })
        .collect();
    for step in &journal.steps {
        let Step::Displace { path, slot, .. } = step else { continue };
        let Some(sha256) = contents.get(path) else { continue };
        let (name, into) = (old(*slot), folder.join(sha256));
        if into.exists() {
            continue;
        }
        fault::crash_point();
        match rustix::fs::renameat(staging, OsStr::new(&name), CWD, &into) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            // One file system by two mounts.
            Err(rustix::io::Errno::XDEV) => {
                if let Some((mut file, _)) = regular(staging, OsStr::new(&name))? {
                    Blobs::new(folder).put(&mut file).map_err(io::Error::other)?;
                }
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    File::open(folder)?.sync_all()?;
    fault::crash_point();
    fs::rename(&path, list)
}

/// Nothing was done, so there is nothing to keep.
pub(super) fn forget(journal: &Journal) {
    if let Some(list) = &journal.undo {
        // What stays is no list, and goes with the record.
        let _ = fs::remove_file(pending(list));
    }
}

/// A place for the list of one more application.
pub(super) fn next(folder: &Path) -> PathBuf {
    let number = lists(folder).last().and_then(|list| list.file_stem()?.to_str()?.parse().ok());
    folder.join(format!("{:06}.json", number.unwrap_or(0_u32) + 1))
}

fn lists(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut lists: Vec<_> =
        entries.filter(|path| path.extension() == Some(OsStr::new("json"))).collect();
    lists.sort();
    lists
}

/// What puts everything back that applications of a run have replaced; nothing where there was none.
pub fn reversed(folder: &Path) -> Result<Option<(Manifest, Vec<RelPath>)>, StoreError> {
    let (mut workspace, mut beyond_bounds, mut made) = (None, Vec::new(), Vec::new());
    let mut all: HashMap<RelPath, Alteration> = HashMap::new();
    for list in lists(folder) {
        let nonsense = |why: String| StoreError::Nonsense { path: list.clone(), why };
        let Some(text) = read_small(&list, LARGEST)? else { continue };
        let kept: Kept =
            serde_json::from_slice(&text).map_err(|error| nonsense(error.to_string()))?;
        if kept.version > VERSION {
            return Err(StoreError::Newer { path: list, version: kept.version });
        }
        workspace = Some(kept.workspace);
        beyond_bounds.extend(kept.beyond_bounds);
        made.extend(kept.repositories);
        for change in kept.changes {
            let Alteration { before, after, written, .. } = change;
            // Of two times the first one is gone back to, from what the last one left.
            let back = all.entry(change.path.clone());
            let back = back.or_insert(alteration(change.path, None, before, written));
            back.before = after;
        }
    }
    let Some(workspace) = workspace else { return Ok(None) };
    let mut changes: Vec<_> = all.into_values().filter(|one| one.before != one.after).collect();
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    made.sort();
    made.dedup();
    let repositories = made.into_iter().map(|git| NewRepository { git, files: None }).collect();
    Ok(Some((
        Manifest {
            version: VERSION,
            workspace,
            changes,
            repositories,
            complete: true,
            ..Manifest::default()
        },
        beyond_bounds,
    )))
}

/// Removes what was kept, when it is back in its place.
pub fn forget_all(folder: &Path) -> io::Result<()> {
    // The lists first: without one there is nothing to undo.
    for list in lists(folder) {
        fs::remove_file(list)?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
