//! Copies that an engine which does not see our files keeps from run to run: who may change them, and
//! until when they are of use. Each has a file in `copies/` of the state folder.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use super::Error;
use crate::files::lockable;

const COPIES: &str = "copies";

/// Time for which copies are kept that no run needs.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Waits until nobody else changes what a volume keeps, and notes that it is of use.
pub async fn take(state: &Path, volume: &str) -> Result<File, Error> {
    let folder = state.join(COPIES);
    let path = folder.join(volume);
    let taking = spawn_blocking(move || {
        fs::create_dir_all(&folder)?;
        let file = lockable().create(true).truncate(false).open(&path)?;
        file.lock()?;
        file.set_modified(SystemTime::now())?;
        Ok(file)
    });
    let what = "lock what the engine keeps of the workspace";
    taking.await.map_err(|_| Error::Looking)?.map_err(|source| Error::Io { what, source })
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
