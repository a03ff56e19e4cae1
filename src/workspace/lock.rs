//! One run at a time may write to a workspace, over all processes of this machine.
//!
//! The lock is the kernel's, on an open file: it ends with whoever holds it, however that ends. A
//! workspace inside of another one is part of it, so a writer takes its own key for itself alone
//! and shares the keys of all folders above. A container can outlive its owner for a moment, so
//! what a crashed run left is to be reaped before a lock is relied upon.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{GuardError, WorkspacePath};
use crate::files::{lockable, open_locked, try_lock};

/// The right to write to a workspace; dropping it gives it back.
#[derive(Debug)]
pub struct WriterLock {
    identity: (u64, u64),
    _keys: Keys,
}

/// Held open: closing them is the unlocking.
#[derive(Debug)]
struct Keys {
    folder: PathBuf,
    files: Vec<File>,
}

impl Drop for Keys {
    /// Gives the keys back and removes all files of the folder that nobody holds.
    fn drop(&mut self) {
        let turn = turn(&self.folder);
        self.files.clear();
        if let Err(error) = turn.and_then(|_turn| tidy(&self.folder)) {
            tracing::debug!("locks stay in {}: {error}", self.folder.display());
        }
    }
}

/// Waits for the turn at making and removing files of locks, a matter of microseconds: a file is
/// never removed between another one's opening and locking it.
fn turn(folder: &Path) -> io::Result<File> {
    let turn = File::open(folder)?;
    rustix::fs::flock(&turn, FlockOperation::LockExclusive)?;
    Ok(turn)
}

fn tidy(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // What cannot be opened is no file of ours.
        if path.extension().is_some_and(|ending| ending == "lock")
            && let Ok(file) = lockable().open(&path)
            && try_lock(&file, FlockOperation::NonBlockingLockExclusive)?
        {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

impl WriterLock {
    /// Takes the lock, or nothing when another run writes to the workspace, to a folder above or
    /// to one below. `folder` must be the same for all processes that are to see each other; its
    /// files are empty, one for each folder that is locked.
    pub fn try_lock(folder: &Path, workspace: &WorkspacePath) -> Result<Option<Self>, GuardError> {
        let lock = Self::try_folder(folder, workspace.path(), workspace.identity())?;
        // What was locked must be what is there now.
        workspace.recheck()?;
        Ok(lock)
    }

    pub(super) fn try_folder(
        folder: &Path,
        path: &Path,
        identity: (u64, u64),
    ) -> Result<Option<Self>, GuardError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| GuardError::io("make the folder of locks", folder, source))?;
        let mut keys = Keys { folder: folder.to_owned(), files: Vec::new() };
        // Ends before the keys do, which wait for it.
        let _turn = turn(folder)
            .map_err(|source| GuardError::io("wait for the folder of locks", folder, source))?;
        // Nobody waits for a key while holding another, so no order could end in a deadlock.
        for above in path.ancestors().skip(1) {
            let found = above
                .symlink_metadata()
                .map_err(|source| GuardError::io("look at the folder", above, source))?;
            let key = (found.dev(), found.ino());
            match hold(folder, key, FlockOperation::NonBlockingLockShared)? {
                Some(file) => keys.files.push(file),
                None => return Ok(None),
            }
        }
        match hold(folder, identity, FlockOperation::NonBlockingLockExclusive)? {
            Some(file) => keys.files.push(file),
            None => return Ok(None),
        }
        Ok(Some(Self { identity, _keys: keys }))
    }

    pub(super) fn is_of(&self, workspace: &WorkspacePath) -> bool {
        self.identity == workspace.identity()
    }
}

fn hold(
    folder: &Path,
    (device, inode): (u64, u64),
    how: FlockOperation,
) -> Result<Option<File>, GuardError> {
    let path = folder.join(format!("{device:x}-{inode:x}.lock"));
    open_locked(&path, how).map_err(|source| GuardError::io("take the lock", &path, source))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Ground {
        _keep: tempfile::TempDir,
        locks: tempfile::TempDir,
        root: std::path::PathBuf,
    }

    impl Ground {
        fn new() -> Self {
            let keep = tempfile::tempdir().expect("temp");
            let root = keep.path().canonicalize().expect("real");
            fs::create_dir_all(root.join("a/b/c")).expect("make");
            fs::create_dir_all(root.join("a/other")).expect("make");
            Self { _keep: keep, locks: tempfile::tempdir().expect("temp"), root }
        }

        fn workspace(&self, path: &str) -> WorkspacePath {
            WorkspacePath::check(Some(&self.root.join(path)), &self.root, &[]).expect("checked")
        }

        fn lock(&self, path: &str) -> Option<WriterLock> {
            WriterLock::try_lock(&self.locks.path().join("new"), &self.workspace(path))
                .expect("no trouble")
        }
    }

    #[test]
    fn one_writer_at_a_time_and_the_next_one_after_it() {
        let ground = Ground::new();
        let first = ground.lock("a").expect("free");
        assert!(ground.lock("a").is_none());
        assert!(first.is_of(&ground.workspace("a")) && !first.is_of(&ground.workspace("a/b")));
        drop(first);
        assert!(ground.lock("a").is_some());
    }

    #[test]
    fn a_workspace_inside_of_another_is_part_of_it() {
        let ground = Ground::new();
        let outer = ground.lock("a").expect("free");
        for inner in ["a/b", "a/b/c", "a/other"] {
            assert!(ground.lock(inner).is_none(), "{inner}");
        }
        drop(outer);
        let inner = ground.lock("a/b/c").expect("free");
        assert!(ground.lock("a").is_none());
        assert!(ground.lock("a/b").is_none());
        let sibling = ground.lock("a/other").expect("siblings are apart");
        drop(inner);
        assert!(ground.lock("a").is_none(), "the sibling still writes");
        drop(sibling);
        assert!(ground.lock("a").is_some());
    }

    #[test]
    fn a_failed_attempt_leaves_nothing_locked() {
        let ground = Ground::new();
        let held = ground.lock("a/b").expect("free");
        assert!(ground.lock("a/b/c").is_none());
        drop(held);
        assert!(ground.lock("a").is_some());
    }

    #[test]
    fn renaming_a_workspace_does_not_free_it() {
        let ground = Ground::new();
        let _held = ground.lock("a/b").expect("free");
        fs::rename(ground.root.join("a/b"), ground.root.join("a/moved")).expect("rename");
        assert!(ground.lock("a/moved").is_none());
    }

    #[test]
    fn files_of_locks_go_with_the_last_who_holds_them_and_are_never_links() {
        let ground = Ground::new();
        let locks = ground.locks.path().join("new");
        let files = || fs::read_dir(&locks).expect("list").count();
        let above = ground.root.join("a").ancestors().count();
        let held = ground.lock("a/b").expect("free");
        assert_eq!(files(), above + 1);
        // What a killed process left, and an attempt that got nowhere.
        fs::write(locks.join("1-2.lock"), "").expect("write");
        assert!(ground.lock("a/b/c").is_none() && ground.lock("a").is_none());
        assert_eq!(files(), above + 1);
        let sibling = ground.lock("a/other").expect("siblings are apart");
        drop(held);
        assert_eq!(files(), above + 1);
        drop(sibling);
        assert_eq!(files(), 0);

        let identity = ground.workspace("a").identity();
        let link = locks.join(format!("{:x}-{:x}.lock", identity.0, identity.1));
        std::os::unix::fs::symlink("/dev/null", link).expect("link");
        let refused = WriterLock::try_lock(&locks, &ground.workspace("a")).expect_err("a link");
        assert!(refused.to_string().starts_with("take the lock `"), "{refused}");
    }

    #[test]
    fn two_never_hold_a_lock_at_once_while_its_file_comes_and_goes() {
        let ground = Ground::new();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let taken = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        if let Some(_held) = ground.lock("a") {
                            assert_eq!(inside.fetch_add(1, order), 0, "two at once");
                            taken.fetch_add(1, order);
                            std::thread::yield_now();
                            inside.fetch_sub(1, order);
                        }
                    }
                });
            }
        });
        assert!(taken.load(order) > 0);
    }

    #[test]
    fn a_killed_process_frees_its_lock() {
        const HOLDER: &str = "SANDBOX_MCP_TEST_LOCK";
        let name = "workspace::lock::tests::a_killed_process_frees_its_lock";
        if let Some(folders) = std::env::var_os(HOLDER) {
            let folders = folders.into_string().expect("utf-8");
            let (locks, path) = folders.split_once(':').expect("two");
            let path = Path::new(path);
            let workspace = WorkspacePath::check(None, path, &[]).expect("checked");
            let _held =
                WriterLock::try_lock(Path::new(locks), &workspace).expect("ok").expect("free");
            fs::write(path.join("held"), "").expect("write");
            std::thread::sleep(std::time::Duration::from_secs(30));
            panic!("nobody killed the holder");
        }
        let ground = Ground::new();
        let locks = ground.locks.path().join("new");
        let place = ground.root.join("a");
        let mut holder = std::process::Command::new(std::env::current_exe().expect("a binary"))
            .args(["--exact", name])
            .env(HOLDER, format!("{}:{}", locks.display(), place.display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts");
        let waited = std::time::Instant::now();
        while !place.join("held").exists() {
            assert!(waited.elapsed().as_secs() < 20, "the holder never came up");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(ground.lock("a").is_none());
        holder.kill().expect("kill");
        holder.wait().expect("gone");
        assert!(ground.lock("a").is_some());
    }
}
