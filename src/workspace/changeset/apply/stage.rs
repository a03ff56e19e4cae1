//! From a plan to steps, with everything new made ready in the staging folder.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};

use super::super::node::{name_of, permissions, regular};
use super::super::store::copy;
use super::super::{Alteration, Blobs, Node, RelPath, StoreError};
use super::error::ApplyError;
use super::fault;
use super::folders::Folders;
use super::journal::{Mark, Step};
use super::like;
use super::plan::{Plan, Todo, is_free};
use super::swap::{folder_of, mark, new};
use crate::workspace::Owner;
use crate::workspace::walk::step;

pub(super) struct Stage<'a, 'b> {
    pub staging: BorrowedFd<'a>,
    pub blobs: &'a Blobs,
    pub owner: Owner,
    /// Takes in those that are new.
    pub folders: &'a mut Folders<'b>,
    pub slots: u64,
    /// As in the request.
    pub umask: Option<u32>,
    /// Whether each content is made to outlive a loss of power by itself. Of many it is faster to do
    /// that for the whole file system.
    pub sync: bool,
}

/// What a folder needs so that its owner can change what is in it.
const OPEN: u32 = 0o700;

impl Stage<'_, '_> {
    /// Makes all that is new, and says what is to be done in which order.
    pub fn steps(&mut self, plan: &Plan<'_>) -> Result<Vec<Step>, ApplyError> {
        let (mut open, mut gone, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        let (mut placed, mut last) = (Vec::new(), Vec::new());
        for path in &plan.missing {
            let Ok(path) = RelPath::new(path.clone()) else { continue };
            let made = self.place(&path, &Node::Folder { mode: 0o755 }, None, None)?;
            placed.push((path, made));
        }
        for Todo { change, stat } in &plan.todo {
            let path = &change.path;
            let mode = stat.as_ref().map_or(0, permissions);
            let was_folder = matches!(change.before, Some(Node::Folder { .. }));
            if let (Some(Node::Folder { .. }), Some(Node::Folder { mode: to })) =
                (&change.before, &change.after)
            {
                // By name alone where it cannot be opened.
                let _ = self.folders.open(path.as_path());
                let between = mode | to | OPEN;
                open.extend(chmod(path, mode, between));
                last.extend(chmod(path, between, *to));
                continue;
            }
            if let (
                Some(Node::File { sha256: before, .. }),
                Some(Node::File { sha256: after, mode: to, .. }),
            ) = (&change.before, &change.after)
                && before == after
            {
                last.extend(chmod(path, mode, *to));
                continue;
            }
            if let (true, Some(stat)) = (was_folder, stat) {
                open.extend(chmod(path, mode, mode | OPEN));
                let (path, mode) = (path.clone(), (stat.st_mode & 0o7000) | mode | OPEN);
                folders.push(Step::RemoveFolder { path, mode, uid: stat.st_uid, gid: stat.st_gid });
            }
            let displace = stat.as_ref().filter(|_| !was_folder).map(|stat| {
                let slot = self.slot();
                Step::Displace { path: path.clone(), slot, is: Mark::of(stat) }
            });
            let Some(after) = &change.after else {
                gone.extend(displace);
                continue;
            };
            let old = stat.as_ref().filter(|_| !was_folder);
            let place = self.place(path, after, old, Some(change))?;
            if let Node::Folder { mode } = after
                && !is_free(change, self.umask)
            {
                last.extend(chmod(path, *mode | OPEN, *mode));
            }
            // Side by side, so that a file is away for the shortest time.
            placed.extend(displace.map(|step| (path.clone(), step)));
            placed.push((path.clone(), place));
        }
        let steps = gone.iter().chain(&folders).chain(placed.iter().map(|(_, step)| step));
        for (path, mode) in self.shut(steps, plan) {
            open.extend(chmod(&path, mode, mode | OPEN));
            last.extend(chmod(&path, mode | OPEN, mode));
        }
        // The sort is stable: what is displaced stays in front of what takes its place.
        placed.sort_by(|(one, _), (other, _)| one.cmp(other));
        folders.reverse();
        last.sort_by(|one, other| other.path().cmp(one.path()));
        let placed = placed.into_iter().map(|(_, step)| step);
        Ok(open.into_iter().chain(gone).chain(folders).chain(placed).chain(last).collect())
    }

    fn slot(&mut self) -> u64 {
        self.slots += 1;
        self.slots
    }

    /// Folders that nobody may write to and that the run did not change, with their modes. They are
    /// opened for the moment, as their owner could.
    fn shut<'s>(
        &mut self,
        steps: impl Iterator<Item = &'s Step>,
        plan: &Plan<'_>,
    ) -> Vec<(RelPath, u32)> {
        if rustix::process::geteuid().is_root() {
            return Vec::new();
        }
        let changed: HashSet<_> = plan.todo.iter().map(|todo| todo.change.path.as_path()).collect();
        let mut shut = Vec::new();
        for path in steps.map(|step| folder_of(step.path()).to_owned()).collect::<BTreeSet<_>>() {
            let mode = self.folders.get(&path).and_then(rustix::fs::fstat);
            let mode = mode.map_or(OPEN, |stat| permissions(&stat));
            if mode & OPEN != OPEN && !changed.contains(path.as_path()) {
                shut.extend(RelPath::new(path).ok().map(|path| (path, mode)));
            }
        }
        shut
    }

    /// Makes one new thing, in the place of an old one if there is that.
    fn place(
        &mut self,
        path: &RelPath,
        node: &Node,
        old: Option<&Stat>,
        change: Option<&Alteration>,
    ) -> Result<Step, ApplyError> {
        fault::point().map_err(ApplyError::io("prepare", path))?;
        let slot = self.slot();
        let name = new(slot);
        // What replaces a file belongs to whom that belonged.
        let owner = old.map(|stat| Owner { uid: stat.st_uid, gid: stat.st_gid });
        let owner = owner.unwrap_or(self.owner);
        let failed = || ApplyError::io("prepare", path);
        // Folders on the way are as free as any.
        let free = change.is_none_or(|change| is_free(change, self.umask));
        let folder = self.folders.get(folder_of(path)).map_err(|errno| failed()(errno.into()))?;
        match node {
            Node::File { sha256, size, mode } => {
                let mut content =
                    self.blobs.open(sha256, *size).map_err(ApplyError::content(path))?;
                let file =
                    |stat: &&Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                let replaced = old.filter(file).map(|_| regular(folder, name_of(path))).transpose();
                let file = if let Some((old, _)) = replaced.map_err(failed())?.flatten() {
                    like::replacing_file(self.staging, &name, &old)
                } else {
                    let all = if mode & 0o100 == 0 { 0o666 } else { 0o777 };
                    like::new_file(self.staging, &name, folder, owner, all)
                };
                let file = file.map_err(failed())?;
                let mut into = Sparse(&file);
                let copied = copy(&mut content, &mut into)
                    .and_then(|copied| file.set_len(*size).map(|()| copied))
                    .map_err(failed())?;
                if copied != (sha256.to_ascii_lowercase(), *size) {
                    let damaged = StoreError::Damaged { sha256: sha256.clone() };
                    return Err(ApplyError::content(path)(damaged));
                }
                if !free {
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
                        .map_err(|errno| failed()(errno.into()))?;
                }
                keep_time(&file, change.and_then(|change| change.written)).map_err(failed())?;
                if self.sync {
                    file.sync_all().map_err(failed())?;
                }
            }
            Node::Link { target } => {
                let target = OsStr::from_bytes(&target.0);
                let made = rustix::fs::symlinkat(target, self.staging, &name).and_then(|()| {
                    if !rustix::process::geteuid().is_root() {
                        return Ok(());
                    }
                    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(self.staging, &name, Some(uid), Some(gid), flags)
                });
                made.map_err(|errno| failed()(errno.into()))?;
            }
            Node::Folder { mode } => {
                let all = Mode::from_raw_mode(0o777);
                let fresh = rustix::fs::mkdirat(self.staging, &name, all)
                    .and_then(|()| step(self.staging, OsStr::new(&name)))
                    .and_then(|fresh| Ok((permissions(&rustix::fs::fstat(&fresh)?), fresh)));
                let (masked, fresh) = fresh.map_err(|errno| failed()(errno.into()))?;
                let mode = if free { masked } else { mode & 0o777 } | OPEN;
                like::inherit(fresh.as_fd(), folder, owner, mode).map_err(failed())?;
                let known = self.folders.add(path.as_path(), fresh);
                known.map_err(|errno| failed()(errno.into()))?;
            }
        }
        let is = mark(self.staging, OsStr::new(&name)).map_err(failed())?;
        let Some(is) = is else { return Err(failed()(io::ErrorKind::NotFound.into())) };
        let folder = matches!(node, Node::Folder { .. });
        Ok(Step::Place { path: path.clone(), slot, folder, is })
    }
}

/// A file that is written from its beginning to its end, and that keeps holes.
struct Sparse<'a>(&'a File);

impl Write for Sparse<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.iter().any(|byte| *byte != 0) {
            return self.0.write(bytes);
        }
        self.0.seek(SeekFrom::Current(i64::try_from(bytes.len()).unwrap_or(i64::MAX)))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Leaves a file as old as it is in the run's view, so that what was made of it is not out of date.
/// Nothing is newer than now.
fn keep_time(file: &File, written: Option<i64>) -> io::Result<()> {
    const SECOND: i64 = 1_000_000_000;
    let now = SystemTime::UNIX_EPOCH.elapsed().map_err(io::Error::other)?.as_nanos();
    let Some(written) = written.filter(|written| i128::from(*written) <= now.cast_signed()) else {
        return Ok(());
    };
    let time = Timespec { tv_sec: written.div_euclid(SECOND), tv_nsec: written.rem_euclid(SECOND) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification: time })?)
}

fn chmod(path: &RelPath, from: u32, to: u32) -> Option<Step> {
    let to = to & 0o777;
    (from != to).then(|| Step::Chmod { path: path.clone(), from, to })
}
