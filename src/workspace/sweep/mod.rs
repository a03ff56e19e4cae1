//! What a run left for tools on the host to trust, moved out of the workspace.
//!
//! Mounts protect what was there, and the workspace's own places. Below, a run can make new
//! folders, and in each of them whatever an editor, a shell or git trusts. So when nothing writes
//! any more, everything is looked at once more, and what is of that kind and new goes into the
//! run's record. A repository that the run made stays one, without whatever would run programs.
//!
//! A rebase, merge or the like that the run left unfinished goes too: its commands would run when a
//! person continues it.
//!
//! Not swept are `.gitmodules` and `.gitattributes`, which do nothing by themselves: git takes no
//! commands from the first, and the second only names filters that must be in the settings.

mod find;
pub(super) mod harmless;
mod keep;
pub(super) mod killed;
pub(super) mod remove;
mod repository;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkspacePath;
use super::changes::{now, shown};
use super::gitconfig::{Setting, named};
use super::names::fold_path;
use super::walk::{BOTTOM, Limits, open_folder, open_root, walk_to};
use crate::text::one_line;
use find::{Find, Identity, Known, Look, Role};
use keep::Keeper;

/// Most things that a sweep names. It sweeps the others too.
const LISTED: usize = 200;

/// Of how many repositories the settings are remembered.
const OWN: usize = 1000;

/// How far a sweep goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepLimits {
    /// What lies beyond is not swept, so this must be more than a run may grow a workspace to.
    pub walk: Limits,
    /// For the whole sweep.
    pub time: Duration,
    /// Most bytes, and most files and folders, that go into the record.
    pub kept_bytes: u64,
    pub kept_entries: usize,
}

impl Default for SweepLimits {
    fn default() -> Self {
        Self {
            walk: Limits { entries: 5_000_000, time: Duration::from_secs(60) },
            time: Duration::from_secs(120),
            kept_bytes: 64 << 20,
            kept_entries: 10_000,
        }
    }
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Swept {
    pub moved: Vec<SweptItem>,
    /// Told, and left where they are.
    pub odd: Vec<Odd>,
    /// How many more there were than are listed.
    pub unlisted: u64,
    /// False when something could not be looked at or removed.
    pub complete: bool,
}

/// Something that tools on the host would trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SweptItem {
    /// Relative to the workspace.
    pub path: String,
    pub why: String,
    /// Relative to the record's folder of swept things.
    pub kept_as: Option<String>,
    pub note: Option<String>,
    /// True when it could not be removed and is still in the workspace.
    pub still_there: bool,
}

/// Something that has no business in a workspace, and that the run made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Odd {
    /// Relative to the workspace.
    pub path: String,
    /// `setuid`, `setgid`, `fifo`, `socket`, `device`, `closed folder` or `unknown`.
    pub what: String,
}

/// What tools on the host trusted in a workspace before a run.
#[derive(Debug)]
pub struct Before {
    /// Held open, so that the sweep is of the same folder.
    root: Option<OwnedFd>,
    extra: HashSet<String>,
    known: Known,
    /// The user's own settings of repositories. A host's git can write to such a file during a
    /// run (`git push -u` does), and what it said before is no doing of the run.
    own: HashMap<PathBuf, Vec<Setting>>,
    /// How much is found before it is dealt with, to bound what has to be remembered.
    portion: usize,
}

impl Before {
    /// Looks at everything in the workspace. `extra` are the configured protected places.
    /// Blocking. Where the limits end it early, the sweep goes by the times of what it finds.
    pub fn take(workspace: &WorkspacePath, extra: &[String], limits: Limits) -> Self {
        let extra = extra.iter().filter_map(|place| fold_path(Path::new(place))).collect();
        let (known, own) = (Known::default(), HashMap::new());
        let mut before = Self { root: None, extra, known, own, portion: 10_000 };
        before.known.taken = now();
        if let Ok(root) = open_root(workspace.path()) {
            let named = named(root.as_fd(), workspace.path(), Path::new(".git")).into_iter();
            before.extra.extend(named.filter_map(|(place, _)| fold_path(&place)));
            let mut look = Look::new(&before.extra, None, usize::MAX);
            before.known.complete = walk_to(BOTTOM, root.as_fd(), limits, &mut look);
            before.known.closed = look.closed.into_iter().collect();
            before.known.places = look.seen;
            let files = before.known.places.iter().filter(|(path, identity)| {
                let called = ["config", "config.worktree"];
                identity.kind == FileType::RegularFile
                    && path.file_name().is_some_and(|name| called.iter().any(|one| name == *one))
            });
            before.own = files
                .take(OWN)
                .filter_map(|(path, _)| {
                    Some((path.clone(), repository::own_settings(root.as_fd(), path)?))
                })
                .collect();
            before.root = Some(root);
        }
        before
    }

    /// Moves what is new and trusted into the folder `into`, which is made when it is needed.
    /// Blocking. To be called when nothing writes to the workspace any more, and after the
    /// placeholders were removed.
    pub fn sweep(self, into: &Path, limits: SweepLimits) -> Swept {
        let Some(root) = self.root else { return Swept::default() };
        let started = Instant::now();
        let keeper = Keeper::new(into, limits.kept_bytes, limits.kept_entries);
        let mut sweep = Sweep {
            root: root.as_fd(),
            own: &self.own,
            keeper,
            swept: Swept { complete: true, ..Swept::default() },
        };
        let mut known = self.known;
        let mut tried = HashSet::new();
        loop {
            let mut look = Look::new(&self.extra, Some(&known), self.portion);
            let whole = walk_to(BOTTOM, root.as_fd(), limits.walk, &mut look);
            let (finds, closed) =
                (std::mem::take(&mut look.finds), std::mem::take(&mut look.closed));
            let more = finds.len() >= self.portion;
            let (odd, odd_more, git) = (look.odd, look.odd_more, look.git);
            // What was too deep made the walk end early; without it, it can be a whole one.
            let mut shallower = false;
            for find in finds {
                match sweep.act(&find, &git) {
                    Some(stays) => drop(known.places.insert(find.path, stays)),
                    None => shallower |= find.role == Role::Deep,
                }
            }
            let closed: Vec<_> =
                closed.into_iter().filter(|path| tried.insert(path.clone())).collect();
            let opened = sweep.open_up(&closed, known.taken);
            if (more || opened || shallower) && started.elapsed() < limits.time {
                continue;
            }
            sweep.swept.complete &= whole && !more && !opened && !shallower;
            sweep.swept.unlisted += odd_more;
            sweep.swept.odd.extend(
                odd.into_iter()
                    .map(|odd| Odd { path: shown(&odd.path, false), what: odd.what.to_owned() }),
            );
            return sweep.swept;
        }
    }
}

struct Sweep<'a> {
    root: BorrowedFd<'a>,
    own: &'a HashMap<PathBuf, Vec<Setting>>,
    keeper: Keeper<'a>,
    swept: Swept,
}

impl Sweep<'_> {
    /// Deals with one find; answers what is there now if it is to stay.
    fn act(&mut self, find: &Find, git: &HashSet<PathBuf>) -> Option<Identity> {
        let parent = find.path.parent().and_then(|folder| open_folder(self.root, folder).ok());
        let Some((parent, name)) = parent.zip(find.path.file_name()) else {
            self.swept.complete = false;
            return None;
        };
        let parent = parent.as_fd();
        let Ok(found) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return None;
        };
        let file = find.identity.kind == FileType::RegularFile;
        match find.role {
            Role::GitLink if file && repository::is_link_within(self.root, &find.path, git) => {
                return Some(Identity::of(&found));
            }
            Role::Common if file && repository::is_worktree_of(self.root, &find.path, git) => {
                return Some(Identity::of(&found));
            }
            Role::Settings if file => {
                let own = self.own.get(&find.path).map_or(&[][..], Vec::as_slice);
                if let Ok(settings) = repository::read_settings(parent, name, own) {
                    // What a person wrote is not only its settings.
                    let kept = if settings.dropped.is_empty() && !find.known {
                        None
                    } else {
                        Some(self.keeper.keep(parent, &find.path))
                    };
                    if repository::write_fresh(parent, name, &settings.text, &found).is_ok() {
                        if let Some(kept) = kept {
                            let dropped = one_line(&settings.dropped.join(", "), 300);
                            let note = match dropped.as_str() {
                                "" => "written anew, nothing dropped".to_owned(),
                                dropped => format!("dropped: {dropped}"),
                            };
                            self.tell(find, kept, vec![note], false);
                        }
                        let now = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok();
                        return now.map(|now| Identity::of(&now));
                    }
                }
            }
            _ => {}
        }
        let kept = self.keeper.keep(parent, &find.path);
        let removed = remove::remove(parent, name);
        let mut notes = Vec::new();
        if let Err(errno) = removed {
            notes.push(format!("it could not be removed: {errno}"));
        }
        self.tell(find, kept, notes, removed.is_err());
        self.swept.complete &= removed.is_ok();
        removed.is_err().then(|| Identity::of(&found))
    }

    fn tell(&mut self, find: &Find, kept: keep::Kept, mut notes: Vec<String>, still_there: bool) {
        if self.swept.moved.len() >= LISTED {
            self.swept.unlisted += 1;
            return;
        }
        let what = match find.identity.kind {
            FileType::Directory | FileType::RegularFile => None,
            FileType::Symlink => Some("a symbolic link"),
            _ => Some("neither a file nor a folder"),
        };
        notes.extend(what.map(str::to_owned));
        if find.known {
            notes.push("it was there before and was changed".to_owned());
        }
        notes.extend(kept.missing.map(str::to_owned));
        let why = match find.role {
            Role::Trusted => "tools on the host trust it",
            Role::GitLink => "it leads git to another folder",
            Role::Settings => "git on the host would do what it says",
            Role::Common => "it leads git to other settings",
            Role::Hook => "git on the host would run it",
            Role::Unfinished => "git on the host would go on with it",
            Role::Deep => "it lies too deep to be looked into",
        };
        self.swept.moved.push(SweptItem {
            path: shown(&find.path, find.identity.kind == FileType::Directory),
            why: why.to_owned(),
            kept_as: kept.at.map(|at| at.display().to_string()),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            still_there,
        });
    }

    /// Opens folders that the run has shut: a tool can enter one that nobody can list. Answers
    /// whether there is more to see now.
    fn open_up(&mut self, closed: &[PathBuf], since: i128) -> bool {
        let mut opened = false;
        for path in closed {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                self.swept.complete = false;
                continue;
            };
            let Ok(parent) = open_folder(self.root, folder) else {
                self.swept.complete = false;
                continue;
            };
            let shut_now = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|found| Identity::of(&found).is_newer(since));
            if !shut_now {
                continue;
            }
            match remove::open_anyway(parent.as_fd(), name) {
                Ok(_) => opened = true,
                Err(_) => self.swept.complete = false,
            }
            if self.swept.odd.len() < LISTED {
                let what = "closed folder".to_owned();
                self.swept.odd.push(Odd { path: shown(path, true), what });
            } else {
                self.swept.unlisted += 1;
            }
        }
        opened
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;
