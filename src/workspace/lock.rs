//! One apply at a time writes to a workspace, over all processes of this machine.
//!
//! The lock is the kernel's, on the folder itself: whoever keeps records in another place finds it
//! too, and it ends with the process that holds it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FlockOperation;

use super::walk::open_root;
use super::{GuardError, WorkspacePath};
use crate::files::try_lock;

/// The right to write to a workspace, with its folder opened; dropping it gives it back.
#[derive(Debug)]
pub struct FolderLock {
    root: OwnedFd,
    identity: (u64, u64),
}

impl FolderLock {
    /// Takes the lock, or nothing where another process has it.
    pub fn try_lock(workspace: &WorkspacePath) -> Result<Option<Self>, GuardError> {
        let path = workspace.path();
        let root = open_root(path).map_err(|errno| GuardError::io("open", path, errno))?;
        let stat = rustix::fs::fstat(&root).map_err(|errno| GuardError::io("open", path, errno))?;
        let identity = (stat.st_dev, stat.st_ino);
        if identity != workspace.identity() {
            workspace.recheck()?;
        }
        let locked = try_lock(&root, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| GuardError::io("lock", path, error))?;
        Ok(locked.then_some(Self { root, identity }))
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(super) fn is_of(&self, workspace: &WorkspacePath) -> bool {
        self.identity == workspace.identity()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn one_at_a_time_has_it_wherever_the_folder_is_moved() {
        let folder = tempfile::tempdir().expect("temp");
        let at = |name: &str| {
            let path = folder.path().join(name);
            WorkspacePath::check(Some(&path), folder.path(), &[]).expect("checked")
        };
        let lock = |name: &str| FolderLock::try_lock(&at(name)).expect("no trouble");
        fs::create_dir_all(folder.path().join("a/b")).expect("made");
        let first = lock("a").expect("free");
        assert!(lock("a").is_none());
        assert!(first.is_of(&at("a")) && !first.is_of(&at("a/b")));
        fs::rename(folder.path().join("a"), folder.path().join("moved")).expect("moved");
        assert!(lock("moved").is_none());
        drop(first);
        assert!(lock("moved").is_some());
    }

    #[test]
    fn a_folder_that_was_exchanged_is_not_locked() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("a");
        fs::create_dir(&path).expect("made");
        let workspace = WorkspacePath::check(Some(&path), folder.path(), &[]).expect("checked");
        fs::rename(&path, folder.path().join("other")).expect("moved");
        fs::create_dir(&path).expect("made");
        assert!(FolderLock::try_lock(&workspace).is_err());
    }
}
