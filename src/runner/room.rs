//! Things that a run has made outside itself, and their undoing: socket folder, gateway, container.

use super::Error;
use crate::engine::Engine;
use crate::gateway::{Gateway, Record as Traffic};
use crate::ids::RunId;
use crate::sandbox::image::InUse;
use crate::sandbox::{RUN_LABEL, RunFolder, Sandbox};
use crate::session::Held;
use crate::workspace::layer::Layer;

/// Everything that has to be gone when the run is over. Each part also undoes itself when it is
/// dropped, as far as that is possible without waiting.
#[derive(Debug, Default)]
pub struct Room {
    pub folder: Option<RunFolder>,
    pub gateway: Option<Gateway>,
    pub sandbox: Option<Sandbox>,
    /// Keeps the image from being removed, until the sandbox does.
    pub image: Option<InUse>,
    /// The layer that the run writes to. It outlives the room: the result is taken from it.
    pub layer: Option<Layer>,
    /// The conversation that the agent goes on with. It outlives the room as well.
    pub session: Option<Held>,
    /// Whether the engine was asked to make anything.
    pub engine: Option<Engine>,
}

/// What is left of a room.
#[derive(Debug)]
pub struct Cleared {
    /// What passed through the gateway.
    pub traffic: Option<Traffic>,
    pub failed: Result<(), Error>,
    pub folder: Option<RunFolder>,
    pub layer: Option<Layer>,
    pub session: Option<Held>,
    /// Whether the container is, for certain.
    pub gone: bool,
}

impl Room {
    /// Undoes everything, the container first. The first failure is returned after all was tried.
    pub async fn clear(mut self, run: &RunId) -> Cleared {
        let mut failed = Ok(());
        let mut note = |result: Result<(), Error>| {
            let succeeded = result.is_ok();
            if let Err(error) = result {
                tracing::error!("clean-up of run {run}: {error}");
                if failed.is_ok() {
                    failed = Err(error);
                }
            }
            succeeded
        };
        let mut gone = true;
        let had_sandbox = self.sandbox.is_some();
        if let Some(sandbox) = self.sandbox.take() {
            gone &= note(sandbox.remove().await.map_err(Error::from));
        }
        // A container whose making was interrupted is known by its label alone.
        if let (false, Some(engine)) = (had_sandbox, &self.engine) {
            gone &= note(remove_all(engine, run).await);
        }
        // It tells whoever comes next that there is something to remove.
        if !gone && let Some(folder) = self.folder.take() {
            folder.leave();
        }
        let mut traffic = None;
        if let Some(gateway) = self.gateway.take() {
            traffic = Some(gateway.record());
            note(gateway.close().await.map(drop).map_err(Error::from));
        }
        let Self { folder, layer, session, .. } = self;
        Cleared { traffic, failed, folder, layer, session, gone }
    }
}

/// Removes every container that carries the run's label, and then every volume.
pub async fn remove_all(engine: &Engine, run: &RunId) -> Result<(), Error> {
    for found in engine.find(&format!("{RUN_LABEL}={run}")).await? {
        engine.remove(&found.id).await?;
    }
    for found in engine.find_volumes(&format!("{RUN_LABEL}={run}")).await? {
        engine.remove_volume(&found.name).await?;
    }
    Ok(())
}
