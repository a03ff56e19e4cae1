//! Telling what a run changed in its view of a workspace, when its container is gone.
//!
//! What lies in a layer was made by an agent and is hostile: nothing is followed, nothing but
//! regular files is opened, everything is bounded. What lies in the workspace may change meanwhile.
//! The time this takes grows with what changed; for a copy also with what was copied.

mod base;
mod blobs;
mod copied;
mod gone;
#[cfg(test)]
mod ground;
mod list;
mod overlay;
mod renames;
mod repair;
mod repository;
mod steps;
mod summary;
mod survey;
mod tree;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Stat};

use base::{Base, Inodes, Seen};
use blobs::{Blobs, Not, Source, open_written};

use list::listed;

pub use repository::add_repository;
pub use steps::{Moment, Steps};
pub use survey::{Merged, Survey};

use super::Live;
use super::apply::LARGEST_MERGED;
use super::manifest::{Alteration, Manifest, Node, Skipped};
use crate::workspace::changes::nanoseconds;
use crate::workspace::layer::{Layer, View};
use crate::workspace::walk::{Limits, open_root};
use crate::workspace::{ChangeSummary, LayerError};

/// How long a look may take: long enough for every content that the bounds allow.
const LONGEST: Duration = Duration::from_secs(900);

/// The same while the run waits for it.
const LONGEST_LIVE: Duration = Duration::from_secs(60);

/// A run can pass its bounds between two looks at it; its files are listed up to so many times of
/// them. Contents are not: they take room again in the record.
const ROOM: u64 = 2;

/// What the list may take as JSON, less than is read of one. A path can be 64 KiB long and stand for
/// half a million files, so this is also the bound of our memory.
const LIST: usize = if cfg!(test) { 8 << 20 } else { 224 << 20 };

/// What a change takes in the list besides its names.
const CHANGE: usize = 256;

/// Most entries of what is left out.
const SKIPPED: usize = 200;

/// Why a result could not be kept. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error("keep the run's changes: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("keep the run's changes: nobody has told yet how its view looks")]
    NotListed,
}

/// What a run changed.
#[derive(Debug)]
pub struct Collected {
    pub manifest: Manifest,
    /// The same for the report.
    pub summary: ChangeSummary,
    /// Git directories in which commits or branches were made, and which do not come back.
    pub repositories: Vec<PathBuf>,
    /// For a person to know.
    pub remarks: Vec<String>,
    /// A folder of the workspace has another name in the view, which reads it from its old place.
    pub has_moved_folder: bool,
}

/// Knowledge of a view besides its layer.
#[derive(Debug, Default)]
pub struct Known<'a> {
    /// An overlay as it looks.
    pub merged: Option<&'a Merged>,
    /// Moments that tell what a check did.
    pub steps: Option<&'a Steps>,
    /// Changes that the workspace has already.
    pub live: Live,
    /// The container is gone, so that nobody writes to the layer.
    pub is_over: bool,
}

/// Tells what is changed in a layer, and keeps the new contents in `blobs`. The container must be
/// gone, or paused. The layer stays as it is, so that this can be done again.
pub fn collect(
    layer: &Layer,
    Known { merged, steps, live, is_over }: Known<'_>,
    blobs: &Path,
) -> Result<Collected, CollectError> {
    let note = layer.note();
    let limits = Limits {
        entries: usize::try_from(note.bounds.files.saturating_mul(ROOM)).unwrap_or(usize::MAX),
        time: if is_over { LONGEST } else { LONGEST_LIVE },
    };
    let mut collector = Collector {
        base: Base::open(&note.workspace, note.identity, note.began, &note.bounds).with(live),
        blobs: Blobs::new(blobs, note.bounds.bytes, is_over),
        steps: None,
        of_check: Vec::new(),
        both: Vec::new(),
        covered: note.empty().into_iter().map(Path::to_owned).collect(),
        limits,
        found: BTreeMap::new(),
        skipped: BTreeMap::new(),
        gone: HashMap::new(),
        inodes: Inodes::default(),
        repositories: BTreeMap::new(),
        complete: true,
        room: LIST,
        remarks: Vec::new(),
        has_moved_folder: false,
        is_over,
        failed: None,
    };
    // Without a base nothing can be compared, and nothing could be applied.
    collector.complete &= collector.base.is_there();
    let written = layer.written();
    // Before anything is read: that can change modes for a moment.
    let now = steps.map(|steps| (steps, Moment::of(&written, layer.most_entries())));
    match now {
        Some((steps, Some(now))) => collector.steps = Some((steps, now)),
        Some((_, None)) => collector.remarks.push(
            "what `verify` made is among the changes, because they are too many to be told apart"
                .to_owned(),
        ),
        None => {}
    }
    match note.view {
        None => {}
        Some(View::Overlay) => {
            let upper = open_root(&written).map_err(io::Error::from)?;
            collector.inodes = Inodes::of(&upper, collector.base.root());
            let merged = merged.ok_or(CollectError::NotListed)?;
            overlay::collect(&mut collector, &upper, merged);
        }
        Some(View::Reflink | View::Copy) => {
            let copy = open_root(&written).map_err(io::Error::from)?;
            copied::collect(&mut collector, &copy, layer)?;
        }
    }
    if let Some(error) = collector.failed.take() {
        return Err(error.into());
    }
    let repositories = collector.repositories.iter().filter(|(_, commits)| **commits);
    let repositories = repositories.map(|(path, _)| path.clone()).collect();
    collector.tell_of_check();
    let remarks = std::mem::take(&mut collector.remarks);
    let has_moved_folder = collector.has_moved_folder;
    let mut manifest = collector.manifest(&note.workspace);
    manifest.earlier.clone_from(&note.earlier);
    summary::spare_ignored(&mut manifest, &written);
    let summary = summary::summary(&manifest, &written);
    Ok(Collected { manifest, summary, repositories, remarks, has_moved_folder })
}

/// What has been found so far.
struct Collector<'a> {
    base: Base,
    blobs: Blobs,
    /// Moments that tell whose a change is, where a check ran as well.
    steps: Option<(&'a Steps, Moment)>,
    /// Paths that only the check made, which are left out.
    of_check: Vec<PathBuf>,
    /// Paths that the check changed after the agent.
    both: Vec<PathBuf>,
    /// What mounts of ours hid.
    covered: HashSet<PathBuf>,
    limits: Limits,
    found: BTreeMap<PathBuf, Found>,
    skipped: BTreeMap<PathBuf, &'static str>,
    /// Of the workspace's things that are no longer in their places, by inode.
    gone: HashMap<u64, PathBuf>,
    inodes: Inodes,
    /// Each `.git` that was changed, and whether commits or branches were.
    repositories: BTreeMap<PathBuf, bool>,
    complete: bool,
    /// What is left of [`LIST`].
    room: usize,
    remarks: Vec<String>,
    has_moved_folder: bool,
    /// Modes may be changed: nobody works with them any more.
    is_over: bool,
    failed: Option<io::Error>,
}

#[derive(Debug, Default)]
struct Found {
    before: Option<Node>,
    after: Option<Node>,
    moved: bool,
    written: Option<i64>,
}

/// Whether something was in the workspace when the run began.
#[derive(Clone, Copy)]
enum Past {
    Known(bool),
    /// An overlay does not tell: what was renamed to a place looks the same as what is new there.
    Unknown,
}

/// What a place in a layer is to the collection.
enum Place {
    Ours,
    /// A `.git`.
    Repository,
    Plain,
}

impl Collector<'_> {
    fn place(&self, path: &Path) -> Place {
        if self.covered.contains(path) {
            Place::Ours
        } else if path.file_name().is_some_and(is_git) {
            Place::Repository
        } else {
            Place::Plain
        }
    }

    /// Whether there is room to keep this path, and so to go on.
    fn affords(&mut self, path: &Path) -> bool {
        self.spend(listed(path))
    }

    fn spend(&mut self, cost: usize) -> bool {
        let left = self.room.checked_sub(cost);
        self.complete &= left.is_some();
        self.room = left.unwrap_or(0);
        left.is_some()
    }

    /// Nothing more can be kept.
    fn is_full(&self) -> bool {
        self.failed.is_some() || self.room == 0
    }

    fn find(&mut self, path: &Path, found: Found) {
        // Its name may come a second time: as what another one was called before.
        if self.spend(CHANGE + listed(path)) {
            self.found.insert(path.to_owned(), found);
        }
    }

    fn skip(&mut self, path: &Path, why: &'static str) {
        if self.skipped.len() < SKIPPED {
            self.skipped.insert(path.to_owned(), why);
        }
    }

    fn incomplete(&mut self, path: &Path, why: &'static str) {
        self.complete = false;
        self.skip(path, why);
    }

    /// Compares one thing of the layer with the workspace's.
    fn compare(
        &mut self,
        path: &Path,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        stat: &Stat,
        past: Past,
    ) {
        let Ok(base) = self.base.node(path) else {
            return self.skip(path, "unreadable in the workspace");
        };
        let mode = stat.st_mode & 0o777;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A folder comes into a layer with what is written in it.
        let is_way = kind == FileType::Directory && base.node == Some(Node::Folder { mode });
        if !is_way && self.is_of_check(path) {
            return;
        }
        let after = match kind {
            FileType::Directory => Some(Node::Folder { mode }),
            FileType::Symlink => tree::link(folder, name),
            FileType::RegularFile => {
                // What was carried over may have to be put back to what was there before.
                let same = base.node.as_ref().filter(|_| base.live.is_none());
                let kept = open_written(folder, name).and_then(|(mut file, stat)| {
                    self.blobs.keep(&mut file, (&stat, Source::Layer), same)
                });
                match kept {
                    Ok(node) => {
                        let live = base.live.as_ref().map(|now| now.node.as_ref());
                        let there = live.unwrap_or(base.node.as_ref());
                        let is_same = Some(&node) == there;
                        Some(if is_same { node } else { self.repaired(path, there, node) })
                    }
                    Err(Not::Kept(why)) => return self.skip(path, why),
                    Err(Not::Failed(error)) => {
                        self.failed = Some(error);
                        return;
                    }
                }
            }
            FileType::Socket => return self.left_out(path, "socket"),
            FileType::Fifo => return self.left_out(path, "fifo"),
            _ => return self.left_out(path, "device"),
        };
        let Some(after) = after else { return self.skip(path, "unreadable") };
        // A folder that gave way to something else took everything below along.
        if matches!(base.node, Some(Node::Folder { .. })) && kind != FileType::Directory {
            self.delete_below(path);
        }
        if base.node.as_ref() != Some(&after) && !base.moved && base.live.is_none() {
            self.keep_base(path, base.node.as_ref());
        }
        let written = (kind == FileType::RegularFile).then(|| written(stat));
        self.changed(path, base, after, written, past);
    }

    /// Returns true for a folder that the workspace has got since the run began. One that the run
    /// made in the same place is the same, and its mode is the user's.
    fn is_made_meanwhile(&mut self, folder: &Path) -> bool {
        let base = self.base.node(folder);
        base.is_ok_and(|base| base.moved && matches!(base.node, Some(Node::Folder { .. })))
    }

    /// Keeps the old content of a small file, by which both versions can be put together one day.
    /// Without it they are a conflict, as they were.
    fn keep_base(&mut self, path: &Path, node: Option<&Node>) {
        let Some(Node::File { size, .. }) = node else { return };
        if *size > LARGEST_MERGED {
            return;
        }
        let Some((folder, name)) = self.base.parent(path) else { return };
        if let Ok((mut file, stat)) = tree::open_file(folder.as_fd(), &name)
            && let Err(Not::Failed(error)) =
                self.blobs.keep(&mut file, (&stat, Source::Workspace), None)
        {
            tracing::debug!("an old content is not kept: {error}");
        }
    }

    /// Enters a change, if it is one.
    fn changed(&mut self, path: &Path, base: Seen, after: Node, written: Option<i64>, past: Past) {
        let after = Some(after);
        if after == base.node {
            // It was carried over, and the run has put it back.
            if let Some(now) = base.live.filter(|now| now.node != after) {
                self.find(path, Found { before: now.node, after, moved: false, written });
            }
            return;
        }
        let lost = || match past {
            _ if base.live.is_some() => false,
            Past::Known(there) => there,
            Past::Unknown => self.base.may_have_lost(path),
        };
        let moved = base.moved || (base.node.is_none() && lost());
        self.find(path, Found { before: base.node, after, moved, written });
    }
}

/// Other spellings are the same place on some file systems.
fn is_git(name: &OsStr) -> bool {
    name.eq_ignore_ascii_case(".git")
}

/// When a file was written, in nanoseconds of the epoch.
fn written(stat: &Stat) -> i64 {
    let nanoseconds = nanoseconds(stat.st_mtime.into(), stat.st_mtime_nsec.into());
    i64::try_from(nanoseconds).unwrap_or(i64::MAX)
}

/// Whether a place inside of a `.git` says where branches are.
fn is_of_a_branch(inside: &Path) -> bool {
    inside.starts_with("refs")
        || ["HEAD", "packed-refs"].iter().any(|name| inside == Path::new(name))
}

/// The depth to which layers are looked at.
fn walk_all(
    root: BorrowedFd<'_>,
    limits: Limits,
    visitor: &mut impl crate::workspace::walk::Visitor,
) -> bool {
    crate::workspace::walk::walk_to(crate::workspace::walk::BOTTOM, root, limits, visitor)
}

#[cfg(test)]
mod tests;
