//! What a run has made outside itself, and the undoing of it: socket folder, gateway, container.

use super::Error;
use crate::engine::Engine;
use crate::gateway::{Gateway, Record as Traffic};
use crate::ids::RunId;
use crate::sandbox::{RUN_LABEL, RunFolder, Sandbox};

/// Everything that has to be gone when the run is over. Each part also undoes itself when it is
/// dropped, as far as that is possible without waiting.
#[derive(Debug, Default)]
pub struct Room {
    pub folder: Option<RunFolder>,
    pub gateway: Option<Gateway>,
    pub sandbox: Option<Sandbox>,
    /// Whether the engine was asked to make anything.
    pub engine: Option<Engine>,
}

impl Room {
    /// Undoes everything, the container first, and returns what passed through the gateway.
    /// The first failure is returned after all was tried.
    pub async fn clear(mut self, run: &RunId) -> (Option<Traffic>, Result<(), Error>) {
        let mut failed = None;
        let mut note = |result: Result<(), Error>| {
            if let Err(error) = result {
                tracing::error!("clean-up of run {run}: {error}");
                failed.get_or_insert(error);
            }
        };
        let had_sandbox = self.sandbox.is_some();
        if let Some(sandbox) = self.sandbox.take() {
            note(sandbox.remove().await.map_err(Error::from));
        }
        // A container whose making was interrupted is known by its label alone.
        if let (false, Some(engine)) = (had_sandbox, &self.engine) {
            note(remove_all(engine, run).await);
        }
        let mut traffic = None;
        if let Some(gateway) = self.gateway.take() {
            traffic = Some(gateway.record());
            note(gateway.close().await.map(drop).map_err(Error::from));
        }
        drop(self.folder.take());
        (traffic, failed.map_or(Ok(()), Err))
    }
}

/// Removes every container that carries the run's label.
pub async fn remove_all(engine: &Engine, run: &RunId) -> Result<(), Error> {
    for found in engine.find(&format!("{RUN_LABEL}={run}")).await? {
        engine.remove(&found.id).await?;
    }
    Ok(())
}
