//! The engine and what is left on it from others, met once a process.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::{Error, kept, kept_there};
use crate::engine::{Engine, Facts};
use crate::sandbox;
use crate::workspace::layer;

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
    /// True where the engine was found not to see our files.
    is_apart: AtomicBool,
}

impl Host {
    pub fn new(runtime: &Path, state: &Path) -> Self {
        let (runtime, state) = (runtime.to_owned(), state.to_owned());
        Self {
            runtime,
            state,
            met: OnceCell::new(),
            told: OnceLock::new(),
            news: Mutex::default(),
            is_apart: AtomicBool::new(false),
        }
    }

    /// Returns true where the engine was found not to see our files.
    pub fn is_apart(&self) -> bool {
        self.is_apart.load(Ordering::Relaxed)
    }

    pub fn note_apart(&self) {
        self.is_apart.store(true, Ordering::Relaxed);
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
                Box::pin(self.clean_up_after_others(&engine)).await;
                Ok((engine, facts))
            })
            .await
    }

    /// Cleans up after those that died since the engine was met.
    pub async fn look_again(&self, configured: Option<&str>) {
        let met = self.known().is_some() || self.told.get().is_some();
        match self.meet(configured).await {
            Ok((engine, _)) if met => Box::pin(self.clean_up_after_others(engine)).await,
            // Met just now, which cleans up; or not met, which the run is about to say.
            Ok(_) | Err(_) => {}
        }
    }

    /// What was found out while cleaning up, told once.
    pub fn news(&self) -> Vec<String> {
        std::mem::take(&mut *self.news.lock().unwrap_or_else(PoisonError::into_inner))
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
        let kept = kept::settle_abandoned(engine, &self.state, &running).await;
        self.news.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
        let state = &self.state;
        if let Err(error) =
            sandbox::reap_files(engine, state, |run| layer::is_there(state, run)).await
        {
            tracing::warn!("volumes of files may remain: {error}");
        }
        let in_use = |volume: &str| kept_there::is_of_use(state, volume);
        if let Err(error) = sandbox::reap_kept(engine, state, in_use).await {
            tracing::warn!("copies that are not needed may remain: {error}");
        }
        // Last, because they tell other processes that something is unsettled.
        let runtime = self.runtime.clone();
        match spawn_blocking(move || sandbox::reap_folders(&runtime)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!("socket folders of dead owners may remain: {error}"),
            Err(error) => tracing::error!("cleaning up after others broke down: {error}"),
        }
    }
}
