//! Removes what a dead owner left behind, and never a live one's.

use std::path::Path;

use super::labels::{FILES_LABEL, KEEPER_LABEL, KEPT_LABEL, is_abandoned, is_left, keeper};
use super::{Error, RUN_LABEL};
use crate::engine::{Engine, FoundVolume};
use crate::ids::{Owner, RunId, uptime};

/// The file in a run's private folder that names the folder's owner.
const OWNER_FILE: &str = "owner";

/// Removes abandoned containers. Returns how many.
pub async fn reap(engine: &Engine) -> Result<usize, Error> {
    let now = uptime();
    let mut removed = 0;
    for found in engine.find(RUN_LABEL).await? {
        if is_abandoned(&found.labels, now) {
            tracing::info!(id = found.id, "removing a container whose owner is gone");
            engine.remove(&found.id).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Removes abandoned volumes, after the containers that used them. Returns the runs that still have
/// a container: whatever else is known of them, they may be going on.
pub async fn reap_volumes(engine: &Engine) -> Result<Vec<String>, Error> {
    let now = uptime();
    let containers = engine.find(RUN_LABEL).await?;
    let running: Vec<_> =
        containers.into_iter().filter_map(|mut found| found.labels.remove(RUN_LABEL)).collect();
    remove_volumes(engine, RUN_LABEL, |found| {
        let in_use = found.labels.get(RUN_LABEL).is_some_and(|run| running.contains(run));
        Ok(!in_use && is_abandoned(&found.labels, now))
    })
    .await?;
    Ok(running)
}

/// Removes the volumes with a label that nobody needs.
async fn remove_volumes(
    engine: &Engine,
    label: &str,
    is_needless: impl Fn(&FoundVolume) -> Result<bool, Error>,
) -> Result<(), Error> {
    for found in engine.find_volumes(label).await? {
        if is_needless(&found)? {
            tracing::info!(name = found.name, "removing a volume that nobody needs any more");
            engine.remove_volume(&found.name).await?;
        }
    }
    Ok(())
}

/// Removes abandoned volumes of files whose run left nothing to be taken from them. `is_wanted` tells
/// whether a run did, of those that have their layers in the folder `state`.
pub async fn reap_files(
    engine: &Engine,
    state: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let is_needless = |found: &FoundVolume| {
        let labels = &found.labels;
        if !is_own(found, state)? {
            return Ok(is_left(labels));
        }
        let is_wanted = labels.get(FILES_LABEL).is_some_and(|run| is_wanted(run));
        Ok(!is_wanted && is_abandoned(labels, uptime()))
    };
    remove_volumes(engine, FILES_LABEL, is_needless).await
}

/// Removes volumes that keep copies from run to run for the folder `state` and are not `in_use` any
/// more.
pub async fn reap_kept(
    engine: &Engine,
    state: &Path,
    in_use: impl Fn(&str) -> bool,
) -> Result<(), Error> {
    let is_needless = |found: &FoundVolume| Ok(is_own(found, state)? && !in_use(&found.name));
    remove_volumes(engine, KEPT_LABEL, is_needless).await
}

/// Returns true where a volume is kept for who has the folder `state`.
fn is_own(found: &FoundVolume, state: &Path) -> Result<bool, Error> {
    let what = "read whose the copies on the engine's machine are".to_owned();
    let own = keeper(state).map_err(|source| Error::Io { what, source })?;
    Ok(found.labels.get(KEEPER_LABEL) == Some(&own))
}

/// A run's private folder on the host: made for it, and removed with it.
#[derive(Debug)]
pub struct RunFolder {
    path: std::path::PathBuf,
    left: bool,
}

impl RunFolder {
    /// Makes `<runtime>/<run id>`, for us alone, and notes who we are.
    pub fn create(runtime: &Path, run: &RunId, owner: &Owner) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = runtime.join(run.as_str());
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let folder = Self { path, left: false };
        std::fs::write(folder.path.join(OWNER_FILE), owner.to_string())?;
        Ok(folder)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it to the reaper, because it tells of something that could not be undone.
    pub fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!("{} was not removed: {error}", self.path.display());
        }
    }
}

/// Whether there is a private folder of a dead owner.
pub fn has_abandoned(runtime: &Path) -> bool {
    let entries = std::fs::read_dir(runtime).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| is_dead(&path))
}

fn is_dead(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join(OWNER_FILE))
        .ok()
        .and_then(|owner| owner.trim().parse::<Owner>().ok())
        .is_some_and(|owner| !owner.is_alive())
}

/// Removes the private folders of dead owners. Folders that do not say whose they are stay, and
/// so do those that `settle` cannot bring to an end.
pub fn reap_folders(runtime: &Path) -> std::io::Result<usize> {
    let mut removed = 0;
    for entry in std::fs::read_dir(runtime)? {
        let path = entry?.path();
        if is_dead(&path) {
            std::fs::remove_dir_all(&path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_owners_folder_is_removed() {
        let runtime = tempfile::tempdir().expect("temp dir");
        let me = Owner::current().expect("proc");
        let live = RunFolder::create(runtime.path(), &RunId::new(), &me).expect("folder");
        let dead = runtime.path().join("dead");
        std::fs::create_dir(&dead).expect("folder");
        std::fs::write(dead.join(OWNER_FILE), "1.1.00000000-0000-0000-0000-000000000000")
            .expect("owner");
        let foreign = runtime.path().join("foreign");
        std::fs::create_dir(&foreign).expect("folder");
        assert_eq!(reap_folders(runtime.path()).expect("reaped"), 1);
        assert!(live.path().exists() && foreign.exists() && !dead.exists());
        let path = live.path().to_owned();
        drop(live);
        assert!(!path.exists());
    }
}
