//! What all runs of one process share.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use super::host::Host;
use super::queue::Queue;
use crate::config::{Config, LoadOptions, Trust};

#[derive(Debug)]
pub struct Shared {
    /// Of the program; a run in a project has its own.
    pub config: Arc<Config>,
    pub options: LoadOptions,
    pub trust: Trust,
    /// Where records are kept.
    pub state: PathBuf,
    /// Where sockets are kept.
    pub runtime: PathBuf,
    /// The folder that the program was started in.
    pub started_in: PathBuf,
    /// The host's own folders, where the program was started in no project.
    pub told: RwLock<Vec<PathBuf>>,
    pub host: Host,
    pub queue: Queue,
}

impl Shared {
    /// The folder that is meant where none is named, and in which relative names begin.
    pub fn folder(&self) -> PathBuf {
        self.told().first().unwrap_or(&self.started_in).clone()
    }

    /// The other folders that tasks may work in.
    pub fn roots(&self) -> Vec<PathBuf> {
        let mut roots = self.config.workspace.roots.clone();
        let told = self.told();
        if !told.is_empty() {
            roots.extend(told.into_iter().skip(1).chain([self.started_in.clone()]));
        }
        roots
    }

    fn told(&self) -> Vec<PathBuf> {
        self.told.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where it is written what is being carried over into workspaces.
    pub fn journals(&self) -> PathBuf {
        self.state.join("applying")
    }
}
