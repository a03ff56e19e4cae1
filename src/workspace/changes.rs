//! What a run changed in its workspace, told from a cheap look before and one after.
//!
//! The look is at names and metadata only. It never fails: what vanishes, cannot be read or is
//! too much is left out, and the summary says that it is not complete.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkspacePath;
use super::ignores::Ignores;
use super::walk::{Entry, Limits, Visitor, open_folder, walk};
use crate::text;

/// Most files that a summary names.
pub(super) const LISTED: usize = 200;

/// Files that a run added, changed or removed. Ignored files and the inside of `.git` are left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChangeSummary {
    pub files: Vec<Change>,
    /// True when there may be more changes than are listed.
    pub truncated: bool,
    /// Whether the changes of a run in the mode isolated are in the workspace too. Absent where
    /// they were made there, or where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    // What of them was not applied when the rest was. Not in the schema, where every word is on the
    // wire in each conversation: the result itself names its parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub pending: Option<Pending>,
    // What came back to the user's repository, which the schema leaves out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub commits: Option<Commits>,
}

/// Commits, branches and stash entries of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commits {
    /// The number of new commits; those that are listed may be fewer.
    pub count: usize,
    pub list: Vec<String>,
    /// A prefix of the references that have them in the user's repository.
    pub refs: String,
    /// The branch that is to have them, or has them.
    pub branch: Option<String>,
    /// The branch has them.
    pub moved: bool,
}

/// Changes that wait for a decision, after the others were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// The number of them.
    pub count: u64,
    /// The number of those that tools on this machine trust or execute.
    pub protected: u64,
    /// The number of changes that were applied.
    pub applied: u64,
    /// The first of them.
    pub files: Vec<PendingFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingFile {
    pub path: String,
    /// Why it was not applied.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Relative to the workspace; ends in `/` where a whole folder is meant.
    pub path: String,
    pub change: ChangeKind,
    /// The old name of what was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
    /// Only in the mode isolated; elsewhere it is a deletion and an addition.
    Renamed,
}

/// The workspace as it was before a run.
#[derive(Debug)]
pub struct Baseline {
    /// Held open, so that the second look is at the same folder. Nothing when it was gone already.
    root: Option<OwnedFd>,
    taken: i128,
    limits: Limits,
    complete: bool,
    folders: HashMap<PathBuf, Folder>,
    /// The project's rules as they were. A rule that the run itself writes hides nothing.
    ignores: Ignores,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Folder {
    /// A keyed hash of each file's metadata, which takes a fraction of its room.
    files: HashMap<OsString, u64>,
    /// Whether every entry was seen.
    whole: bool,
    /// Whether it could not be looked into.
    closed: bool,
}

impl Baseline {
    /// Looks at everything in the workspace. Blocking; a second or less where there are not
    /// hundreds of thousands of files, and never much longer than the limits say.
    pub fn take(workspace: &WorkspacePath, limits: Limits) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(workspace.path(), flags, Mode::empty()).ok();
        let mut baseline = Self {
            taken: now(),
            limits,
            complete: false,
            folders: HashMap::new(),
            ignores: Ignores::around(workspace.path()),
            hasher: RandomState::new(),
            root: None,
        };
        if let Some(root) = root {
            baseline.complete = walk(root.as_fd(), limits, &mut Before(&mut baseline));
            baseline.root = Some(root);
        }
        baseline
    }

    /// Looks again and tells the difference. Blocking, like [`Self::take`].
    pub fn changes(&self) -> ChangeSummary {
        let Some(root) = &self.root else {
            return ChangeSummary { truncated: true, ..ChangeSummary::default() };
        };
        let mut after = After {
            before: self,
            ignores: Ignores::default(),
            seen: HashSet::new(),
            missing: HashSet::new(),
            found: BTreeMap::new(),
            complete: true,
        };
        after.complete &= walk(root.as_fd(), self.limits, &mut after) && self.complete;
        after.delete_vanished_folders(root.as_fd());
        after.summary()
    }

    /// What tells one state of a file from another. Of a repository's `.git` only whether it is
    /// there: its inside changes with every command.
    fn fingerprint(&self, name: &OsStr, stat: &Stat) -> u64 {
        let kind = stat.st_mode & 0o170_000;
        if name == ".git" {
            return self.hasher.hash_one(kind);
        }
        self.hasher.hash_one((
            stat.st_mode,
            stat.st_size,
            stat.st_ino,
            (stat.st_mtime, stat.st_mtime_nsec),
            (stat.st_ctime, stat.st_ctime_nsec),
        ))
    }

    /// Whether a file of unknown past has changed since the baseline, by the kernel's own clock.
    fn is_newer(&self, stat: &Stat) -> bool {
        changed_since(stat, self.taken)
    }
}

/// The first look.
struct Before<'a>(&'a mut Baseline);

impl Visitor for Before<'_> {
    fn enter(&mut self, folder: &Path, opened: BorrowedFd<'_>) {
        self.0.ignores.read(folder, opened);
        self.0.folders.insert(folder.to_owned(), Folder::default());
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let is_dir = entry.is_dir();
        if self.0.ignores.hides(&folder.join(entry.name), is_dir) {
            return false;
        }
        if is_dir && entry.name != ".git" {
            // Known from now on, even if the walk stops before it gets there.
            self.0.folders.insert(folder.join(entry.name), Folder::default());
            return true;
        }
        if let Some(stat) = entry.stat() {
            let fingerprint = self.0.fingerprint(entry.name, &stat);
            if let Some(folder) = self.0.folders.get_mut(folder) {
                folder.files.insert(entry.name.to_owned(), fingerprint);
            }
        }
        false
    }

    fn leave(&mut self, folder: &Path, whole: bool) {
        if let Some(folder) = self.0.folders.get_mut(folder) {
            folder.whole = whole;
        }
    }

    fn closed(&mut self, folder: &Path) {
        let closed = Folder { closed: true, ..Folder::default() };
        self.0.folders.insert(folder.to_owned(), closed);
    }
}

/// The second look.
struct After<'a> {
    before: &'a Baseline,
    /// The rules as they are now; they only shorten the listing of folders made by the run.
    ignores: Ignores,
    seen: HashSet<PathBuf>,
    /// Files of the folder being walked that have not turned up yet.
    missing: HashSet<&'a OsStr>,
    found: BTreeMap<PathBuf, (ChangeKind, bool)>,
    complete: bool,
}

impl After<'_> {
    fn report(&mut self, path: PathBuf, change: ChangeKind, is_folder: bool) {
        self.found.insert(path, (change, is_folder));
    }

    /// What an entry without a past is. Only where the first look stopped early can it be old.
    fn newcomer(&self, folder: &Path, entry: &Entry<'_>) -> Option<ChangeKind> {
        let nearest = folder.ancestors().find_map(|dir| self.before.folders.get(dir));
        if nearest.is_some_and(|folder| folder.whole) {
            return Some(ChangeKind::Added);
        }
        entry.stat().filter(|stat| self.before.is_newer(stat)).map(|_| ChangeKind::Modified)
    }

    /// The walk does not come by what is gone. Each folder is asked for, because one that the walk
    /// did not reach can still be there.
    fn delete_vanished_folders(&mut self, root: BorrowedFd<'_>) {
        let started = Instant::now();
        for (path, folder) in &self.before.folders {
            if folder.files.is_empty() || self.seen.contains(path) {
                continue;
            }
            if started.elapsed() >= self.before.limits.time {
                self.complete = false;
                return;
            }
            if matches!(open_folder(root, path), Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) {
                for name in folder.files.keys() {
                    self.found.entry(path.join(name)).or_insert((ChangeKind::Deleted, false));
                }
            }
        }
    }

    fn summary(self) -> ChangeSummary {
        let truncated = !self.complete || self.found.len() > LISTED;
        let files = self.found.into_iter().take(LISTED);
        let files = files.map(|(path, (change, is_folder))| Change {
            path: shown(&path, is_folder),
            change,
            from: None,
        });
        ChangeSummary { files: files.collect(), truncated, ..ChangeSummary::default() }
    }
}

impl Visitor for After<'_> {
    fn enter(&mut self, folder: &Path, opened: BorrowedFd<'_>) {
        self.seen.insert(folder.to_owned());
        self.ignores.read(folder, opened);
        self.missing.clear();
        if let Some(before) = self.before.folders.get(folder) {
            self.missing.extend(before.files.keys().map(OsString::as_os_str));
        }
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = folder.join(entry.name);
        let is_dir = entry.is_dir();
        if self.before.ignores.hides(&path, is_dir) {
            return false;
        }
        if is_dir && entry.name != ".git" {
            let made =
                !self.before.folders.contains_key(&path) && self.newcomer(folder, entry).is_some();
            // One line for what the run made and then called unimportant, such as dependencies it
            // installed: not hidden, but not thousands of lines either.
            if made && self.ignores.hides(&path, true) {
                self.report(path, ChangeKind::Added, true);
                return false;
            }
            return true;
        }
        self.missing.remove(entry.name);
        let Some(stat) = entry.stat() else { return false };
        let before = self.before.folders.get(folder).and_then(|dir| dir.files.get(entry.name));
        let change = match before {
            Some(before) if *before == self.before.fingerprint(entry.name, &stat) => None,
            Some(_) => Some(ChangeKind::Modified),
            None => self.newcomer(folder, entry),
        };
        if let Some(change) = change {
            self.report(path, change, is_dir);
        }
        false
    }

    fn leave(&mut self, folder: &Path, whole: bool) {
        if whole {
            for name in std::mem::take(&mut self.missing) {
                self.report(folder.join(name), ChangeKind::Deleted, false);
            }
        }
    }

    fn closed(&mut self, folder: &Path) {
        self.seen.insert(folder.to_owned());
        match self.before.folders.get(folder) {
            Some(before) if before.closed => {}
            // The run shut it, or made it shut: whatever is in there cannot be told.
            before => {
                let change =
                    if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                self.report(folder.to_owned(), change, true);
                self.complete = false;
            }
        }
    }
}

/// A path as one line of plain text. It was made up by an agent: a newline in it must not look
/// like the end of an entry.
pub(super) fn shown(path: &Path, is_folder: bool) -> String {
    const LONGEST: usize = 500;
    let lossy = path.to_string_lossy().replace('\n', "\\n").replace('\r', "\\r");
    let clean = text::clean(&lossy).replace('\t', "\\t");
    let mut shown = text::prefix(&clean, LONGEST).to_owned();
    if shown.len() < clean.len() {
        shown.push('…');
    }
    if is_folder {
        shown.push('/');
    }
    shown
}

pub(super) fn now() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i128::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

/// When the kernel changed this last, content or anything else.
pub(super) fn changed(stat: &Stat) -> i128 {
    nanoseconds(stat.st_ctime.into(), stat.st_ctime_nsec.into())
}

/// Whether this was changed after `taken`, by the kernel's own clock.
pub(super) fn changed_since(stat: &Stat, taken: i128) -> bool {
    // The kernel stamps files with a clock that is up to a few ticks late.
    const LATE: i128 = 20_000_000;
    changed(stat) + LATE >= taken
}

pub(super) fn nanoseconds(seconds: i128, rest: i128) -> i128 {
    seconds * 1_000_000_000 + rest
}

#[cfg(test)]
#[path = "changes_tests.rs"]
mod tests;
