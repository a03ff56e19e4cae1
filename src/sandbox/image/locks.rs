//! Locks around images: one build at a time, and no removal between a run's look and its container.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::sandbox::Error;

/// Longest wait of a removal for runs that begin. Making a container takes moments, and copying a
/// large workspace before it longer than anybody waits.
const PATIENCE: Duration = Duration::from_secs(5);

/// Held from the choice of an image until a container is made from it, which holds it from then on.
#[derive(Debug)]
pub struct InUse(#[expect(dead_code, reason = "held, not read")] File);

/// Held while an image is built, so that two processes do not build the same one.
#[derive(Debug)]
pub struct Building(#[expect(dead_code, reason = "held, not read")] File);

/// Held while images are removed: no run has chosen one that it has no container of.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "held, not read")] File);

pub async fn use_images(state: &Path) -> Result<InUse, Error> {
    held(state, "images.lock", File::lock_shared).await.map(InUse)
}

pub async fn build(state: &Path) -> Result<Building, Error> {
    held(state, "build.lock", File::lock).await.map(Building)
}

/// Returns none where runs go on beginning.
pub async fn remove_images(state: &Path) -> Result<Option<Alone>, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match held(state, "images.lock", try_alone).await {
            Ok(file) => return Ok(Some(Alone(file))),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > until {
            return Ok(None);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn try_alone(file: &File) -> std::io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::Error(error) => error,
        TryLockError::WouldBlock => std::io::ErrorKind::WouldBlock.into(),
    })
}

async fn held(
    state: &Path,
    name: &str,
    lock: fn(&File) -> std::io::Result<()>,
) -> Result<File, Error> {
    use std::os::unix::fs::DirBuilderExt;
    let path = state.join(name);
    let io = |source| Error::Io { what: format!("lock {}", path.display()), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(io)?;
    let file = File::create(&path).map_err(io)?;
    let held = spawn_blocking(move || lock(&file).map(|()| file)).await;
    held.map_err(|error| io(std::io::Error::other(error)))?.map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_is_removed_while_a_run_begins() {
        let state = tempfile::tempdir().expect("temp");
        let first = use_images(state.path()).await.expect("a lock");
        let second = use_images(state.path()).await.expect("runs begin at the same time");
        assert!(remove_images(state.path()).await.expect("asked").is_none());
        drop((first, second));
        let alone = remove_images(state.path()).await.expect("asked");
        assert!(alone.is_some());
    }
}
