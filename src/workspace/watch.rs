//! How much a run may let its workspace grow.
//!
//! A quota would need root on most file systems, so the growth is looked at, everything included:
//! also what the project ignores. A look costs a walk, so it is not repeated before ten times what
//! the last one took, unless the file system's free space says that something large was written.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Stat};
use serde::{Deserialize, Serialize};

use super::GuardError;
use super::walk::{BOTTOM, Entry, Limits, Visitor, open_root, walk_to};

/// How far the first look goes.
const FIRST: Limits = Limits { entries: 5_000_000, time: Duration::from_secs(30) };

/// How long any other one takes at most.
const LONGEST: Duration = Duration::from_secs(60);

/// How long to rest after a look, in times of what it took.
const REST: u32 = 10;

/// Below this, a file system is close to being full; or below a twentieth of it, if that is less.
const SCARCE: u64 = 512 << 20;

/// How much a workspace may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// As allocated on the disk.
    pub bytes: u64,
    /// Files, folders and everything else that has a name.
    pub files: u64,
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Bytes,
    Files,
    /// Folders within each other; `grown` and `allowed` are how deep. What is deeper cannot be
    /// counted, and is there to not be.
    Depth,
    /// Space on the disk that went where it cannot be seen, such as to files that are deleted and
    /// still open, and most probably by the run.
    FreeSpace,
}

/// A workspace has grown more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub what: What,
    /// At least; counting ends where the bound is passed.
    pub grown: u64,
    pub allowed: u64,
}

impl Exceeded {
    /// In words, of a folder that people call `name`.
    pub fn of(&self, name: &str) -> String {
        let Self { what, grown, allowed } = self;
        match what {
            What::Bytes => format!(
                "{name} grew by {} MiB or more, allowed are {} MiB",
                grown >> 20,
                allowed >> 20
            ),
            What::Files => {
                format!("{name} grew by {grown} files or more, allowed are {allowed}")
            }
            What::Depth => {
                format!("folders in {name} are {grown} deep or more, allowed are {allowed}")
            }
            What::FreeSpace => format!(
                "the disk of {name} lost {} MiB to what cannot be seen, allowed are {} MiB",
                grown >> 20,
                allowed >> 20
            ),
        }
    }
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of("the workspace"))
    }
}

/// The growth of one workspace.
#[derive(Debug)]
pub struct Watch {
    root: OwnedFd,
    bounds: Bounds,
    start: Count,
    /// Of the file system at the start; nothing if it does not tell.
    space: Option<Space>,
    last: Last,
}

#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    all: u64,
    free_files: u64,
}

#[derive(Debug)]
struct Last {
    ended: Instant,
    took: Duration,
    free: Option<u64>,
    /// What the last look saw.
    grown: u64,
    /// Whether there is something that it could not see.
    blind: bool,
}

impl Watch {
    /// Counts what is in a folder that a run writes to. Blocking.
    pub fn start(folder: &Path, bounds: Bounds) -> Result<Self, GuardError> {
        let root = open_root(folder)
            .map_err(|errno| GuardError::io("open the workspace", folder, errno))?;
        let space = space(root.as_fd());
        let began = Instant::now();
        let start = Count::of(root.as_fd(), FIRST, (u64::MAX, u64::MAX));
        let free = space.map(|space| space.free);
        let last =
            Last { ended: Instant::now(), took: began.elapsed(), free, grown: 0, blind: false };
        Ok(Self { root, bounds, start, space, last })
    }

    /// Whether the workspace has grown too much. Blocking; cheap most of the times, so it may be
    /// asked every second.
    pub fn look(&mut self) -> Option<Exceeded> {
        let now = space(self.root.as_fd());
        if self.is_due(now) {
            let began = Instant::now();
            let exceeded = self.count();
            self.last.took = began.elapsed();
            self.last.ended = Instant::now();
            self.last.free = now.map(|space| space.free);
            if exceeded.is_some() {
                return exceeded;
            }
        }
        self.unseen(now)
    }

    fn is_due(&self, now: Option<Space>) -> bool {
        let rested = self.last.ended.elapsed();
        let fell = match (self.last.free, now) {
            (Some(before), Some(now)) => before.saturating_sub(now.free),
            _ => 0,
        };
        // Others write to the disk too: even then, not more than half of the time.
        rested >= self.last.took * REST
            || (fell > self.bounds.bytes / 8 && rested >= self.last.took)
    }

    fn count(&mut self) -> Option<Exceeded> {
        let Bounds { bytes, files } = self.bounds;
        // Where the first look did not get to its end, there is nothing to compare with but what
        // the disk has lost.
        if !self.start.whole {
            self.last.blind = true;
            return None;
        }
        let most = (self.start.bytes.saturating_add(bytes), self.start.files.saturating_add(files));
        // Whoever makes more than that has passed the bound, so the walk needs no other end.
        let entries = usize::try_from(most.1).unwrap_or(usize::MAX).saturating_add(1);
        let now = Count::of(self.root.as_fd(), Limits { entries, time: LONGEST }, most);
        let grown = now.bytes.saturating_sub(self.start.bytes);
        let more = now.files.saturating_sub(self.start.files);
        if more > files {
            return Some(Exceeded { what: What::Files, grown: more, allowed: files });
        }
        if grown > bytes {
            return Some(Exceeded { what: What::Bytes, grown, allowed: bytes });
        }
        if now.deep && !self.start.deep {
            let deepest = BOTTOM as u64;
            return Some(Exceeded { what: What::Depth, grown: deepest + 1, allowed: deepest });
        }
        self.last.grown = grown;
        // What a run has shut is not opened while it runs.
        self.last.blind = !now.whole || now.deep || now.hidden > self.start.hidden;
        None
    }

    /// Whether the disk has lost more than the bound to something that was not counted. Others
    /// write to it as well, so this is an answer only where counting cannot give one, or where
    /// there is hardly anything left.
    fn unseen(&self, now: Option<Space>) -> Option<Exceeded> {
        let (before, now) = (self.space?, now?);
        let lost = before.free.saturating_sub(now.free);
        let allowed = self.bounds.bytes;
        let scarce = now.free < SCARCE.min(now.all / 20);
        let unseen = lost.saturating_sub(self.last.grown);
        if (scarce || self.last.blind) && unseen > allowed {
            return Some(Exceeded { what: What::FreeSpace, grown: lost, allowed });
        }
        let grown = before.free_files.saturating_sub(now.free_files);
        let allowed = self.bounds.files;
        (self.last.blind && grown > allowed).then_some(Exceeded {
            what: What::Files,
            grown,
            allowed,
        })
    }
}

fn space(root: BorrowedFd<'_>) -> Option<Space> {
    let found = rustix::fs::fstatvfs(root).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(Space {
        free: bytes(found.f_bavail),
        all: bytes(found.f_blocks),
        free_files: found.f_ffree,
    })
}

/// How much there is.
#[derive(Debug, Default)]
struct Count {
    bytes: u64,
    files: u64,
    /// Whether there was something too deep to be counted.
    deep: bool,
    /// How much there was that could not be looked at.
    hidden: u64,
    /// Whether everything else was counted.
    whole: bool,
    /// Where to stop.
    most: (u64, u64),
    /// Files with several names, which count once.
    linked: HashSet<(u64, u64)>,
}

impl Count {
    fn of(root: BorrowedFd<'_>, limits: Limits, most: (u64, u64)) -> Self {
        let mut count = Self { most, whole: true, ..Self::default() };
        walk_to(BOTTOM, root, limits, &mut count);
        count.linked = HashSet::new();
        count
    }

    fn add(&mut self, stat: &Stat) {
        const UNIT: u64 = 512;
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(0);
        self.bytes = self.bytes.saturating_add(blocks.saturating_mul(UNIT));
    }
}

impl Visitor for Count {
    fn entry(&mut self, _folder: &Path, entry: &Entry<'_>) -> bool {
        self.files += 1;
        match entry.stat() {
            Some(stat) => self.add(&stat),
            // Or it has just been removed, and the next look is another one.
            None => self.hidden += 1,
        }
        true
    }

    fn leave(&mut self, _folder: &Path, whole: bool) {
        self.whole &= whole;
    }

    fn closed(&mut self, _folder: &Path) {
        self.hidden += 1;
    }

    fn too_deep(&mut self, _folder: &Path, _entry: &Entry<'_>) {
        self.deep = true;
    }

    fn enough(&self) -> bool {
        self.bytes > self.most.0 || self.files > self.most.1
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
