//! Something to mount read-only where a protected place is absent.
//!
//! What is absent at a run's start could be made by the run, so there must be a mount there too,
//! and a mount needs something to lie on. An engine would make that itself, as root, and leave it
//! behind. Ours are empty folders, also where a file would be: git does not see them, and no tool
//! reads or runs one. Only where git itself reads a settings file it is an empty file, because git
//! refuses to work with a folder there.
//!
//! They must stay until the container is gone for certain: whoever removes a folder that something
//! is mounted over in another mount namespace removes that mount as well.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::gitconfig::named;
use super::journal::{self, Journal, Made};
use super::lock::WriterLock;
use super::names::fold;
use super::place::{Found, Kind, look};
use super::protect::default_places;
use super::walk::{open_folder, open_root};
use super::{GuardError, Owner, WorkspacePath};

/// Read by git whenever it is there.
const FILES: &[&str] = &[".git/config", ".git/config.worktree"];

/// The placeholders of one run. Dropping them removes them, as the last resort.
#[derive(Debug)]
pub struct Placeholders {
    root: OwnedFd,
    made: Vec<Made>,
    /// Nothing once it is settled who removes them.
    journal: Option<Journal>,
}

/// A placeholder that was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Relative to the workspace.
    pub path: PathBuf,
    pub why: String,
}

/// How the cleaning up after a killed run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// Nothing of it is left but these, which are not ours any more.
    Done(Vec<Leftover>),
    /// Another run writes to the workspace and relies on what is there; ask again later.
    Busy,
}

impl Placeholders {
    /// Makes what is absent of the default protected places and of `extra`. Ask for
    /// [`protected`](super::protected) after this: it finds them like anything else that exists.
    ///
    /// `journal` must not exist yet, and must be where only we write.
    pub fn make(
        workspace: &WorkspacePath,
        extra: &[String],
        journal: &Path,
        held: &WriterLock,
    ) -> Result<Self, GuardError> {
        if !held.is_of(workspace) {
            return Err(GuardError::NotLocked);
        }
        workspace.recheck()?;
        let root = open_root(workspace.path())
            .map_err(|errno| GuardError::io("open the workspace", workspace.path(), errno))?;
        let plan = plan(root.as_fd(), workspace.path(), extra);
        let mut log = Journal::begin(journal, workspace, &plan)?;
        let mut made = Vec::new();
        let mut failed = None;
        for (path, kind) in plan {
            match make_one(root.as_fd(), &path, kind, workspace.owner()) {
                Ok(identity) => {
                    made.push(Made { path: path.clone(), kind, identity: Some(identity) });
                    failed = log.made(&path, identity).err();
                }
                // Somebody on the host was faster.
                Err(Errno::EXIST) => failed = log.passed(&path).err(),
                Err(errno) => {
                    failed = Some(GuardError::io("make a placeholder for", &path, errno));
                    // It may be there and only not be as it should.
                    made.push(Made { path, kind, identity: None });
                }
            }
            if failed.is_some() {
                break;
            }
        }
        let all = Self { root, made, journal: Some(log) };
        // Dropping it takes back what was made.
        failed.map_or(Ok(all), Err)
    }

    /// The places that have one, relative to the workspace, parents first.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.made.iter().map(|made| made.path.as_path())
    }

    /// Removes them, each only if it is still ours and empty. To be called when the container is
    /// gone, and before the workspace is swept.
    pub fn remove(mut self) -> Vec<Leftover> {
        self.clear()
    }

    /// Leaves them to [`Self::remove_journaled`], because the container may still be there.
    pub fn leave(mut self) {
        self.journal = None;
    }

    fn clear(&mut self) -> Vec<Leftover> {
        let Some(journal) = self.journal.take() else { return Vec::new() };
        let (mut left, sound) = take_away(self.root.as_fd(), &self.made);
        if sound && let Err(error) = journal.end() {
            let why = format!("its journal could not be removed: {error}");
            left.push(Leftover { path: PathBuf::new(), why });
        }
        left
    }

    /// Removes what a killed run left, after its container. `locks` is the folder of the [`WriterLock`]s, because a run
    /// that came after it may have found its placeholders and rely on them.
    pub fn remove_journaled(journal: &Path, locks: &Path) -> Result<Reaped, GuardError> {
        let Some(told) = journal::read(journal)? else { return Ok(Reaped::Done(Vec::new())) };
        let root = open_root(&told.workspace).ok().filter(|root| {
            rustix::fs::fstat(root).is_ok_and(|now| (now.st_dev, now.st_ino) == told.identity)
        });
        let mut left = Vec::new();
        // A workspace that was moved or removed took everything along.
        if let Some(root) = root {
            let lock = WriterLock::try_folder(locks, &told.workspace, told.identity)?;
            let Some(_held) = lock else { return Ok(Reaped::Busy) };
            let sound;
            (left, sound) = take_away(root.as_fd(), &told.made);
            if !sound {
                return Ok(Reaped::Done(left));
            }
        }
        std::fs::remove_file(journal)
            .map_err(|source| GuardError::io("remove the journal", journal, source))?;
        Ok(Reaped::Done(left))
    }
}

impl Drop for Placeholders {
    fn drop(&mut self) {
        for left in self.clear() {
            tracing::warn!(path = %left.path.display(), why = left.why, "a placeholder stays");
        }
    }
}

/// What is to be made, parents first.
fn plan(root: BorrowedFd<'_>, workspace: &Path, extra: &[String]) -> Vec<(PathBuf, Kind)> {
    let mut plan: Vec<(PathBuf, Kind)> = Vec::new();
    // Of what the settings name only the hooks: an absent file of settings would have to be an
    // empty one, and git would add that to a commit. It is left to the sweep.
    let named = named(root, workspace, Path::new(".git"));
    let hooks = named.iter().filter(|(_, kind)| *kind == Kind::Dir).map(|(path, _)| path.as_path());
    let places = default_places().chain(extra.iter().map(String::as_str)).map(Path::new);
    for place in places.chain(hooks) {
        let parts: Option<Vec<_>> = place
            .components()
            .filter(|part| *part != Component::CurDir)
            .map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
            .collect();
        // What leads out of the workspace is passed over, as when protecting.
        let Some(parts) = parts.filter(|parts| !parts.is_empty()) else { continue };
        // Git would take a `.git` with nothing but this in it for a broken repository.
        let git = fold(parts[0]) == ".git";
        if git && !matches!(look(root, Path::new(parts[0])), Found::Real(Kind::Dir, _)) {
            continue;
        }
        let mut path = PathBuf::new();
        let mut fresh = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            path.push(part);
            let last = at + 1 == parts.len();
            match look(root, &path) {
                Found::Real(Kind::Dir, _) => {}
                Found::Nothing => {
                    let file = last && FILES.iter().any(|file| path == Path::new(file));
                    fresh.push((path.clone(), if file { Kind::File } else { Kind::Dir }));
                }
                // Protected itself, or an obstacle that ends the run.
                Found::Real(Kind::File, _) | Found::Odd { .. } => break,
            }
        }
        for step in fresh {
            if !plan.iter().any(|(known, _)| *known == step.0) {
                plan.push(step);
            }
        }
    }
    plan
}

/// Makes one empty folder or file and answers its device and inode.
fn make_one(
    root: BorrowedFd<'_>,
    path: &Path,
    kind: Kind,
    owner: Owner,
) -> Result<(u64, u64), Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = open_folder(root, parent)?;
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (opened, mode) = match kind {
        Kind::Dir => {
            rustix::fs::mkdirat(&parent, name, Mode::from(0o755))?;
            let flags = open | OFlags::RDONLY | OFlags::DIRECTORY;
            (rustix::fs::openat(&parent, name, flags, Mode::empty())?, 0o755)
        }
        Kind::File => {
            let flags = open | OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            (rustix::fs::openat(&parent, name, flags, Mode::from(0o644))?, 0o644)
        }
    };
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&opened, Some(uid), Some(gid))?;
    }
    // Whatever the umask says.
    rustix::fs::fchmod(&opened, Mode::from(mode))?;
    let stat = rustix::fs::fstat(&opened)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Removes what is still as it was made, children first; answers what stays, and whether asking
/// again would be no use.
fn take_away(root: BorrowedFd<'_>, made: &[Made]) -> (Vec<Leftover>, bool) {
    let mut left = Vec::new();
    let mut sound = true;
    for one in made.iter().rev() {
        let why = match take_one(root, one) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {
                continue;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => "it is not empty any more".to_owned(),
            Err(Errno::STALE) => "something else has taken its place".to_owned(),
            Err(errno) => {
                sound = false;
                format!("it cannot be removed: {errno}")
            }
        };
        left.push(Leftover { path: one.path.clone(), why });
    }
    (left, sound)
}

fn take_one(root: BorrowedFd<'_>, one: &Made) -> Result<(), Errno> {
    let (Some(parent), Some(name)) = (one.path.parent(), one.path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let parent = open_folder(root, parent)?;
    let now = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(now.st_mode);
    if one.identity.is_some_and(|identity| identity != (now.st_dev, now.st_ino)) {
        return Err(Errno::STALE);
    }
    match (one.kind, kind) {
        (Kind::Dir, FileType::Directory) => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
        (Kind::File, FileType::RegularFile) if now.st_size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty())
        }
        (Kind::File, FileType::RegularFile) => Err(Errno::NOTEMPTY),
        _ => Err(Errno::STALE),
    }
}

#[cfg(test)]
#[path = "placeholders_tests.rs"]
mod tests;
