//! From a plan to steps, with everything new made ready in the staging folder.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use super::super::node::permissions;
use super::super::store::copy;
use super::super::{Blobs, Node, RelPath, StoreError};
use super::error::ApplyError;
use super::fault;
use super::journal::{Mark, Step};
use super::plan::{Plan, Todo};
use super::swap::{mark, new, own};
use crate::workspace::Owner;

pub(super) struct Stage<'a> {
    pub staging: BorrowedFd<'a>,
    pub blobs: &'a Blobs,
    pub owner: Owner,
    slots: u64,
}

/// What a folder needs so that its owner can change what is in it.
const OPEN: u32 = 0o700;

impl<'a> Stage<'a> {
    pub fn new(staging: BorrowedFd<'a>, blobs: &'a Blobs, owner: Owner) -> Self {
        Self { staging, blobs, owner, slots: 0 }
    }

    /// Makes all that is new, and says what is to be done in which order.
    pub fn steps(&mut self, plan: &Plan<'_>) -> Result<Vec<Step>, ApplyError> {
        let (mut open, mut gone, mut folders) = (Vec::new(), Vec::new(), Vec::new());
        let (mut placed, mut last) = (Vec::new(), Vec::new());
        for path in &plan.missing {
            let Ok(path) = RelPath::new(path.clone()) else { continue };
            placed.push((path.clone(), self.place(&path, &Node::Folder { mode: 0o755 }, None)?));
        }
        for Todo { change, stat } in &plan.todo {
            let path = &change.path;
            let mode = stat.as_ref().map_or(0, permissions);
            let was_folder = matches!(change.before, Some(Node::Folder { .. }));
            if let (Some(Node::Folder { .. }), Some(Node::Folder { mode: to })) =
                (&change.before, &change.after)
            {
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
            // What replaces a file belongs to whom that belonged.
            let owner = stat.as_ref().filter(|_| !was_folder);
            let owner = owner.map(|stat| Owner { uid: stat.st_uid, gid: stat.st_gid });
            let place = self.place(path, after, owner)?;
            if let Node::Folder { mode } = after {
                last.extend(chmod(path, *mode | OPEN, *mode));
            }
            // Side by side, so that a file is away for the shortest time.
            placed.extend(displace.map(|step| (path.clone(), step)));
            placed.push((path.clone(), place));
        }
        // The sort is stable: what is displaced stays in front of what takes its place.
        placed.sort_by(|(one, _), (other, _)| one.cmp(other));
        folders.reverse();
        last.reverse();
        let placed = placed.into_iter().map(|(_, step)| step);
        Ok(open.into_iter().chain(gone).chain(folders).chain(placed).chain(last).collect())
    }

    fn slot(&mut self) -> u64 {
        self.slots += 1;
        self.slots
    }

    /// Makes one new thing.
    fn place(
        &mut self,
        path: &RelPath,
        node: &Node,
        owner: Option<Owner>,
    ) -> Result<Step, ApplyError> {
        fault::point().map_err(ApplyError::io("prepare", path))?;
        let slot = self.slot();
        let name = new(slot);
        let Owner { uid, gid } = owner.unwrap_or(self.owner);
        let failed = || ApplyError::io("prepare", path);
        match node {
            Node::File { sha256, size, mode } => {
                let mut content = self.blobs.open(sha256, *size)?;
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let opened =
                    rustix::fs::openat(self.staging, &name, flags, Mode::RUSR | Mode::WUSR)
                        .map_err(|errno| failed()(errno.into()))?;
                let mut file = File::from(opened);
                let copied = copy(&mut content, &mut file).map_err(failed())?;
                if copied != (sha256.to_ascii_lowercase(), *size) {
                    return Err(StoreError::Damaged { sha256: sha256.clone() }.into());
                }
                own(file.as_fd(), uid, gid).map_err(failed())?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
                    .map_err(|errno| failed()(errno.into()))?;
                file.sync_all().map_err(failed())?;
            }
            Node::Link { target } => {
                let target = OsStr::from_bytes(&target.0);
                let made = rustix::fs::symlinkat(target, self.staging, &name).and_then(|()| {
                    if !rustix::process::geteuid().is_root() {
                        return Ok(());
                    }
                    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                    let flags = AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::chownat(self.staging, &name, Some(uid), Some(gid), flags)
                });
                made.map_err(|errno| failed()(errno.into()))?;
            }
            Node::Folder { mode } => {
                let made = rustix::fs::mkdirat(self.staging, &name, Mode::RWXU).and_then(|()| {
                    let opened: OwnedFd =
                        crate::workspace::walk::step(self.staging, OsStr::new(&name))?;
                    Ok(opened)
                });
                let opened = made.map_err(|errno| failed()(errno.into()))?;
                own(opened.as_fd(), uid, gid).map_err(failed())?;
                rustix::fs::fchmod(&opened, Mode::from_raw_mode((mode & 0o777) | OPEN))
                    .map_err(|errno| failed()(errno.into()))?;
            }
        }
        let is = mark(self.staging, OsStr::new(&name)).map_err(failed())?;
        let Some(is) = is else { return Err(failed()(std::io::ErrorKind::NotFound.into())) };
        let folder = matches!(node, Node::Folder { .. });
        Ok(Step::Place { path: path.clone(), slot, folder, is })
    }
}

fn chmod(path: &RelPath, from: u32, to: u32) -> Option<Step> {
    let to = to & 0o777;
    (from != to).then(|| Step::Chmod { path: path.clone(), from, to })
}
