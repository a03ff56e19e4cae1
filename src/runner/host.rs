//! The engine and what is left on it from others, met once a process.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;

use super::Error;
use crate::engine::{Engine, Facts};
use crate::sandbox;
use crate::workspace::{Placeholders, Reaped};

/// The file in a run's private folder that tells of what was made in the workspace.
pub const JOURNAL: &str = "placeholders";

/// The engine, once it has been found.
#[derive(Debug, Default)]
pub struct Host {
    met: OnceCell<(Engine, Facts)>,
}

impl Host {
    /// The engine, if it has been met.
    pub fn known(&self) -> Option<&(Engine, Facts)> {
        self.met.get()
    }

    /// The engine and its facts. The first to ask finds it and removes what dead owners left on
    /// it; a failure is not kept, so that an engine started later is found.
    pub async fn meet(
        &self,
        configured: Option<&str>,
        runtime: &Path,
    ) -> Result<&(Engine, Facts), Error> {
        self.met
            .get_or_try_init(|| async {
                let engine = Engine::connect(configured).await?;
                let facts = engine.facts().await?;
                clean_up_after_others(&engine, runtime).await;
                Ok((engine, facts))
            })
            .await
    }
}

/// Cleans up after those that died since the engine was met. A run calls it before it takes its
/// lock: a dead run's placeholders in the same workspace would be taken for the user's own.
pub async fn look_again(host: &Host, configured: Option<&str>, runtime: &Path) {
    let met = host.known().is_some();
    match host.meet(configured, runtime).await {
        Ok((engine, _)) if met => clean_up_after_others(engine, runtime).await,
        // Met just now, which cleans up; or not met, which the run is about to say.
        Ok(_) | Err(_) => {}
    }
}

/// Where the locks of all runs of this user are.
pub fn locks(runtime: &Path) -> PathBuf {
    runtime.join("locks")
}

/// What cannot be removed now is somebody's to see, but no reason to refuse work.
async fn clean_up_after_others(engine: &Engine, runtime: &Path) {
    if let Err(error) = sandbox::reap(engine).await {
        // Their folders may tell of mounts in a container that still runs.
        tracing::warn!("containers of dead owners may remain: {error}");
        return;
    }
    let locks = locks(runtime);
    if let Err(error) = sandbox::reap_folders(runtime, |folder| settle(folder, &locks)) {
        tracing::warn!("socket folders of dead owners may remain: {error}");
    }
}

/// Takes a dead run's placeholders out of its workspace. False when that has to wait.
fn settle(folder: &Path, locks: &Path) -> bool {
    match Placeholders::remove_journaled(&folder.join(JOURNAL), locks) {
        Ok(Reaped::Done(left)) => {
            for left in left {
                tracing::warn!("{} stays in a workspace: {}", left.path.display(), left.why);
            }
            true
        }
        Ok(Reaped::Busy) => false,
        Err(error) => {
            tracing::warn!("what a dead run left in its workspace may remain: failed to {error}");
            false
        }
    }
}
