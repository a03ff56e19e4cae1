//! The engine and what is left on it and in workspaces from others, met once a process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::{Error, kept};
use crate::engine::{Engine, Facts};
use crate::ids::RunId;
use crate::workspace::{Killed, Placeholders, Reaped, SweepLimits, sweep_killed};
use crate::{history, sandbox};

/// The file in a run's private folder that tells of what was made in the workspace.
pub const JOURNAL: &str = "placeholders";
/// The file there that tells how the workspace was.
pub const MEMORY: &str = "before";

/// The engine, once it has been found.
#[derive(Debug)]
pub struct Host {
    runtime: PathBuf,
    state: PathBuf,
    met: OnceCell<(Engine, Facts)>,
    /// What our client knows of the engine, which it has also cleaned up on.
    told: OnceLock<Facts>,
    /// What the next run is to tell.
    news: Mutex<Vec<String>>,
}

impl Host {
    pub fn new(runtime: &Path, state: &Path) -> Self {
        let (runtime, state) = (runtime.to_owned(), state.to_owned());
        Self { runtime, state, met: OnceCell::new(), told: OnceLock::new(), news: Mutex::default() }
    }

    /// The engine, if it has been met.
    pub fn known(&self) -> Option<&(Engine, Facts)> {
        self.met.get()
    }

    /// Takes over what another process of ours knows, which saves a run most of the meeting.
    pub fn hear(&self, facts: Facts) {
        // Said once, before anybody asks.
        let _ = self.told.set(facts);
    }

    /// The engine and its facts. The first to ask finds it and removes what dead owners left on
    /// it; a failure is not kept, so that an engine started later is found.
    pub async fn meet(&self, configured: Option<&str>) -> Result<&(Engine, Facts), Error> {
        self.met
            .get_or_try_init(|| async {
                let engine = Engine::connect(configured).await?;
                if let Some(facts) = self.told.get().filter(|facts| facts.host == engine.host()) {
                    return Ok((engine, facts.clone()));
                }
                let facts = engine.facts().await?;
                self.clean_up_after_others(&engine).await;
                Ok((engine, facts))
            })
            .await
    }

    /// Cleans up after those that died since the engine was met. A run calls it before it takes its
    /// lock: a dead run's placeholders in the same workspace would be taken for the user's own.
    pub async fn look_again(&self, configured: Option<&str>) {
        let met = self.known().is_some() || self.told.get().is_some();
        match self.meet(configured).await {
            Ok((engine, _)) if met => self.clean_up_after_others(engine).await,
            // Met just now, which cleans up; or not met, which the run is about to say.
            Ok(_) | Err(_) => {}
        }
    }

    /// What was found out while cleaning up, told once.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where the locks of all runs of this user are: not in the runtime folder, which a shell, a
    /// desktop and a service each may name otherwise.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }

    /// What cannot be removed now is somebody's to see, but no reason to refuse work.
    async fn clean_up_after_others(&self, engine: &Engine) {
        if let Err(error) = sandbox::reap(engine).await {
            // Their folders may tell of mounts in a container that still runs.
            tracing::warn!("containers of dead owners may remain: {error}");
            return;
        }
        let running = match sandbox::reap_volumes(engine).await {
            Ok(running) => running,
            Err(error) => {
                tracing::warn!("volumes of dead owners may remain: {error}");
                return;
            }
        };
        let (runtime, settling) = (self.runtime.clone(), self.settling());
        // A workspace can be large, and a sweep long.
        let settled = spawn_blocking(move || {
            let mut news = Vec::new();
            let reaped =
                sandbox::reap_folders(&runtime, |folder| settling.settle(folder, &mut news));
            (reaped, news)
        });
        let settled = settled.await;
        let kept = kept::settle_abandoned(engine, &self.state, &running).await;
        self.news.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
        match settled {
            Ok((reaped, news)) => {
                self.news.lock().unwrap_or_else(PoisonError::into_inner).extend(news);
                if let Err(error) = reaped {
                    tracing::warn!("socket folders of dead owners may remain: {error}");
                }
            }
            Err(error) => tracing::error!("cleaning up after others broke down: {error}"),
        }
    }

    fn settling(&self) -> Settling {
        Settling { locks: self.locks(), state: self.state.clone() }
    }
}

/// Where what dead runs left is settled from.
struct Settling {
    locks: PathBuf,
    state: PathBuf,
}

impl Settling {
    /// Takes a dead run's placeholders out of its workspace, and what it left for tools on the host
    /// to trust. False when that has to wait.
    /// What a person should know of it goes to `news`.
    fn settle(&self, folder: &Path, news: &mut Vec<String>) -> bool {
        match Placeholders::remove_journaled(&folder.join(JOURNAL), &self.locks) {
            Ok(Reaped::Done(left)) => {
                for left in left {
                    tracing::warn!("{} stays in a workspace: {}", left.path.display(), left.why);
                }
            }
            Ok(Reaped::Busy) => return false,
            Err(error) => {
                tracing::warn!(
                    "what a dead run left in its workspace may remain: failed to {error}"
                );
                return false;
            }
        }
        let Some(run) = folder.file_name().and_then(|name| name.to_str()?.parse::<RunId>().ok())
        else {
            return true;
        };
        let into = history::swept(&self.state, &run);
        match sweep_killed(&folder.join(MEMORY), &self.locks, &into, SweepLimits::default()) {
            Ok(Killed::Nothing) => true,
            Ok(Killed::Busy) => false,
            Ok(Killed::Swept(workspace, swept)) => {
                let count = swept.moved.len() as u64 + swept.unlisted;
                if count > 0 {
                    let told = format!(
                        "run {run} was killed in {}; {count} things that it left for tools on the \
                         host to trust were taken out and are in {}",
                        workspace.display(),
                        into.display()
                    );
                    tracing::warn!("{told}");
                    news.push(told);
                }
                true
            }
            Err(error) => {
                tracing::warn!("a dead run's workspace was not swept: failed to {error}");
                false
            }
        }
    }
}
