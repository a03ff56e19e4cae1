//! Copies that an engine which does not see our files keeps from run to run: who may change them, and
//! until when they are of use. Each has a file in `copies/` of the state folder.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;

use super::Error;
use crate::files::open_locked;

const COPIES: &str = "copies";

/// The time between two tries for a lock.
const AGAIN: Duration = Duration::from_millis(100);

/// Time for which copies are kept that no run needs.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Waits until nobody else changes what a volume keeps, and notes that it is of use. Safe to drop.
pub async fn take(state: &Path, volume: &str) -> Result<File, Error> {
    let what = "lock what the engine keeps of the workspace";
    let failed = |source| Error::Io { what, source };
    let folder = state.join(COPIES);
    fs::create_dir_all(&folder).map_err(failed)?;
    let path = folder.join(volume);
    loop {
        let taken = open_locked(&path, FlockOperation::NonBlockingLockExclusive);
        if let Some(file) = taken.map_err(failed)? {
            file.set_modified(SystemTime::now()).map_err(failed)?;
            return Ok(file);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns true where a run has needed what a volume keeps, not long ago.
pub fn is_of_use(state: &Path, volume: &str) -> bool {
    let path = state.join(COPIES).join(volume);
    let used = path.metadata().and_then(|meta| meta.modified());
    let is_new = used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age < LONGEST));
    if !is_new {
        // Of a volume that goes; where it is missing already, so much the better.
        let _ = fs::remove_file(&path);
    }
    is_new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn copies_are_of_use_for_a_month_after_a_run() {
        let state = tempfile::tempdir().expect("a folder");
        assert!(!is_of_use(state.path(), "v"));
        let taken = take(state.path(), "v").await.expect("taken");
        assert!(is_of_use(state.path(), "v"));
        taken.set_modified(SystemTime::now() - LONGEST).expect("a time");
        assert!(!is_of_use(state.path(), "v"));
        assert!(!state.path().join(COPIES).join("v").exists());
    }
}
