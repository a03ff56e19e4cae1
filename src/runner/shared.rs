//! What all runs of one process share.

use std::path::PathBuf;
use std::sync::Arc;

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
    pub folder: PathBuf,
    pub host: Host,
    pub queue: Queue,
}

impl Shared {
    /// Where it is written what is being carried over into workspaces.
    pub fn journals(&self) -> PathBuf {
        self.state.join("applying")
    }
}
