//! What all runs of one process share.

use std::path::PathBuf;

use super::host::Host;
use super::queue::Queue;
use crate::config::Config;

#[derive(Debug)]
pub struct Shared {
    pub config: Config,
    /// Where records are kept.
    pub state: PathBuf,
    /// Where sockets are kept.
    pub runtime: PathBuf,
    /// The folder that the program was started in.
    pub folder: PathBuf,
    pub host: Host,
    pub queue: Queue,
}
