//! Finding what tools on the host trust, wherever it lies in a workspace.
//!
//! The same eyes look before a run and after it, at everything: also into ignored folders, which
//! a tool that stands in them does not ignore.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::super::names::{GitMarks, fold, fold_path, is_called};
use super::super::protected_names::why_protected;
use super::super::walk::{Entry, Visitor};

/// Why a place matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It, and all that is in it, is read or executed by tools on the host.
    Trusted,
    /// A `.git` that is no folder, and so leads git to one.
    GitLink,
    /// Settings of a git directory.
    Settings,
    /// The file that leads from one git directory to another.
    Common,
    /// In the folder of hooks of a git directory.
    Hook,
    /// Of a rebase, merge or the like that is to be continued in a git directory.
    Unfinished,
    /// Deeper than anybody looks, where anything of the above can be. A link leads there in one
    /// step.
    Deep,
}

/// What tells one state of a place from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub inode: (u64, u64),
    pub kind: FileType,
    changed: i128,
}

impl Identity {
    pub fn of(stat: &Stat) -> Self {
        Self {
            inode: (stat.st_dev, stat.st_ino),
            kind: FileType::from_raw_mode(stat.st_mode),
            changed: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
        }
    }

    /// As it was written down.
    pub fn again(inode: (u64, u64), kind: FileType, changed: i128) -> Self {
        Self { inode, kind, changed }
    }

    /// When it changed last, in nanoseconds of the epoch.
    pub fn changed(&self) -> i128 {
        self.changed
    }

    /// Whether this is still `before`. A folder is, whatever is in it: its entries are compared
    /// one by one.
    fn is_still(&self, before: &Self) -> bool {
        self.inode == before.inode
            && self.kind == before.kind
            && (self.kind == FileType::Directory || self.changed == before.changed)
    }

    /// Whether something of unknown past has changed since a time, by the kernel's own clock,
    /// which no program can set back. It is up to a few ticks late.
    pub fn is_newer(&self, time: i128) -> bool {
        const LATE: i128 = 20_000_000;
        self.changed + LATE >= time
    }
}

/// How the workspace was.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub places: HashMap<PathBuf, Identity>,
    /// When the look began, in nanoseconds of the epoch.
    pub taken: i128,
    /// When the run was over, if that is long ago: what changed later is the user's own.
    pub until: Option<i128>,
    /// Folders that could not be looked into.
    pub closed: HashSet<PathBuf>,
    pub complete: bool,
}

impl Known {
    fn is_unchanged(&self, path: &Path, now: &Identity) -> bool {
        if self.until.is_some_and(|until| now.changed > until) {
            return true;
        }
        if let Some(before) = self.places.get(path) {
            return now.is_still(before);
        }
        let seen = self.complete
            && (self.closed.is_empty()
                || !path.ancestors().any(|folder| self.closed.contains(folder)));
        !seen && !now.is_newer(self.taken)
    }
}

/// Something to be swept, or to be looked into.
#[derive(Clone, Debug)]
pub(super) struct Find {
    pub path: PathBuf,
    pub role: Role,
    pub identity: Identity,
    /// Whether something was there before.
    pub known: bool,
}

/// Whatever else should not be in a workspace.
#[derive(Clone, Debug)]
pub(super) struct Oddity {
    pub path: PathBuf,
    pub what: &'static str,
}

/// One look.
pub(super) struct Look<'a> {
    /// The configured places, folded.
    extra: &'a HashSet<String>,
    /// Nothing for the first look.
    before: Option<&'a Known>,
    /// What a first look collects.
    pub seen: HashMap<PathBuf, Identity>,
    pub finds: Vec<Find>,
    pub odd: Vec<Oddity>,
    pub odd_more: u64,
    pub closed: Vec<PathBuf>,
    /// How many finds to stop at.
    pub most: usize,
    /// Folders in trusted places, each of whose entries counts.
    inside: HashMap<PathBuf, Role>,
    /// Folders that were recognised as git directories.
    pub git: HashSet<PathBuf>,
    /// Whether we may look into everything.
    root: bool,
    marks: GitMarks,
    /// What matters in this folder if it turns out to be a git directory.
    parts: Vec<(PathBuf, Role, Identity)>,
}

impl<'a> Look<'a> {
    pub fn new(extra: &'a HashSet<String>, before: Option<&'a Known>, most: usize) -> Self {
        Self {
            extra,
            before,
            seen: HashMap::new(),
            finds: Vec::new(),
            odd: Vec::new(),
            odd_more: 0,
            closed: Vec::new(),
            most,
            inside: HashMap::new(),
            git: HashSet::new(),
            root: rustix::process::geteuid().is_root(),
            marks: GitMarks::default(),
            parts: Vec::new(),
        }
    }

    /// Notes a place; answers whether what is in it has to be looked at one by one.
    fn place(&mut self, path: PathBuf, role: Role, identity: Identity) -> bool {
        let folder = identity.kind == FileType::Directory;
        let Some(before) = self.before else {
            if folder {
                self.inside.insert(path.clone(), role);
            }
            self.seen.insert(path, identity);
            return true;
        };
        if before.is_unchanged(&path, &identity) {
            if folder {
                self.inside.insert(path, role);
            }
            return true;
        }
        let known = before.places.contains_key(&path);
        self.finds.push(Find { path, role, identity, known });
        // What goes as a whole needs no further look.
        false
    }

    /// An entry of a folder of hooks: what git never runs may come and go.
    fn is_inert(role: Role, entry: &Entry<'_>, identity: &Identity) -> bool {
        role == Role::Hook
            && identity.kind == FileType::RegularFile
            && entry.name.as_encoded_bytes().ends_with(b".sample")
    }

    fn look_for_odd(&mut self, folder: &Path, entry: &Entry<'_>, kind: FileType) {
        const MOST: usize = 50;
        let Some(before) = self.before else { return };
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            return;
        }
        let Some(stat) = entry.stat() else { return };
        let what = match kind {
            FileType::RegularFile if stat.st_mode & 0o4000 != 0 => "setuid",
            FileType::RegularFile if stat.st_mode & 0o2000 != 0 => "setgid",
            FileType::RegularFile => return,
            FileType::Fifo => "fifo",
            FileType::Socket => "socket",
            FileType::CharacterDevice | FileType::BlockDevice => "device",
            _ => "unknown",
        };
        if !Identity::of(&stat).is_newer(before.taken) {
            return;
        }
        if self.odd.len() < MOST {
            self.odd.push(Oddity { path: folder.join(entry.name), what });
        } else {
            self.odd_more += 1;
        }
    }

    fn is_extra(&self, folder: &Path, entry: &Entry<'_>) -> bool {
        !self.extra.is_empty()
            && fold_path(&folder.join(entry.name)).is_some_and(|path| self.extra.contains(&path))
    }
}

/// Whether this is state of git's that `--continue` goes by. A rebase's may name commands.
fn is_unfinished(folded: &str) -> bool {
    const NAMES: &[&str] = &[
        "cherry_pick_head",
        "merge_autostash",
        "merge_head",
        "merge_mode",
        "rebase-apply",
        "rebase-merge",
        "rebase_head",
        "revert_head",
        "sequencer",
    ];
    NAMES.contains(&folded) || folded.starts_with("bisect_")
}

impl Visitor for Look<'_> {
    fn enter(&mut self, folder: &Path, opened: BorrowedFd<'_>) {
        // A folder that can be listed and not entered shows names and hides everything else.
        let shut = |stat: Stat| stat.st_mode & 0o100 == 0;
        if !self.root && rustix::fs::fstat(opened).is_ok_and(shut) {
            self.closed.push(folder.to_owned());
        }
        self.marks = GitMarks::default();
        self.parts.clear();
        if is_called(folder, ".git") {
            self.git.insert(folder.to_owned());
        }
        // Its parent was left before, so that it is known by now.
        if is_called(folder, "hooks") && folder.parent().is_some_and(|up| self.git.contains(up)) {
            self.inside.entry(folder.to_owned()).or_insert(Role::Hook);
        }
    }

    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let kind = entry.kind();
        let name = fold(entry.name);
        self.marks.note(&name);
        let identity = || entry.stat().map(|stat| Identity::of(&stat));
        let role = if let Some(role) = self.inside.get(folder) {
            Some(*role)
        } else if why_protected(folder, &name).is_some()
            || (name == ".github" && kind == FileType::Symlink)
            || self.is_extra(folder, entry)
        {
            Some(Role::Trusted)
        } else {
            (name == ".git" && kind != FileType::Directory).then_some(Role::GitLink)
        };
        if let Some(role) = role {
            // What vanished meanwhile does no harm.
            let Some(identity) = identity() else { return false };
            let path = folder.join(entry.name);
            if !Self::is_inert(role, entry, &identity) && !self.place(path, role, identity) {
                return false;
            }
        } else {
            let part = match name.as_str() {
                "config" | "config.worktree" => Some(Role::Settings),
                "commondir" => Some(Role::Common),
                "hooks" | "modules" | "worktrees" if kind != FileType::Directory => {
                    Some(Role::GitLink)
                }
                name if is_unfinished(name) => Some(Role::Unfinished),
                _ => None,
            };
            if let Some(role) = part
                && let Some(identity) = identity()
            {
                self.parts.push((folder.join(entry.name), role, identity));
            }
        }
        self.look_for_odd(folder, entry, kind);
        true
    }

    fn leave(&mut self, folder: &Path, _whole: bool) {
        let parts = std::mem::take(&mut self.parts);
        if self.marks.is_git() {
            self.git.insert(folder.to_owned());
        }
        if self.git.contains(folder) {
            for (path, role, identity) in parts {
                self.place(path, role, identity);
            }
        }
    }

    fn too_deep(&mut self, folder: &Path, entry: &Entry<'_>) {
        if let Some(stat) = entry.stat() {
            self.place(folder.join(entry.name), Role::Deep, Identity::of(&stat));
        }
    }

    fn closed(&mut self, folder: &Path) {
        self.closed.push(folder.to_owned());
    }

    fn enough(&self) -> bool {
        self.finds.len() >= self.most
    }
}
