//! The watch over a workspace's growth and its protections, for the time of the work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::workspace::{Exceeded, Watch};

/// How often the workspace is looked at; for its growth, the watch itself decides what to look at.
const LOOK: Duration = Duration::from_millis(500);

/// Why a run cannot go on in its workspace.
#[derive(Debug)]
pub enum Overseen {
    /// The workspace has grown more than it may.
    Overgrown(Exceeded),
    /// What the agent keeps of a conversation has.
    Overremembered(Exceeded),
    /// A protected place, relative to the workspace, was replaced on the host.
    Loosened(PathBuf),
    /// The run made something, relative to the workspace, that git on the host follows at once and
    /// that no mount could keep from being made.
    Planted(PathBuf),
}

fn touch(file: &Path) -> std::io::Result<()> {
    File::options().write(true).open(file)?.set_modified(SystemTime::now())
}

/// Tells when the run cannot go on in its workspace. Dropping it ends the watch.
#[derive(Debug)]
pub struct Overseer {
    seen: oneshot::Receiver<Overseen>,
    _stop: Sender<()>,
}

impl Overseer {
    /// `exceeded` says what it means when there is more than is allowed. `looks` looks after the protections. `alive` is a file to touch, as the
    /// sign of life that whoever comes after us goes by.
    pub fn new(
        mut watch: Watch,
        exceeded: fn(Exceeded) -> Overseen,
        alive: PathBuf,
        looks: impl Fn() -> Option<Overseen> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = channel();
        let (tell, seen) = oneshot::channel();
        spawn_blocking(move || {
            // Ends with who asked for it.
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                if let Err(error) = touch(&alive) {
                    tracing::debug!("{} is not touched: {error}", alive.display());
                }
                let seen = looks();
                if let Some(seen) = seen.or_else(|| watch.look().map(exceeded)) {
                    // Nobody listens when the work has just ended.
                    let _ = tell.send(seen);
                    return;
                }
            }
        });
        Self { seen, _stop: stop }
    }

    pub async fn seen(&mut self) -> Overseen {
        match (&mut self.seen).await {
            Ok(seen) => seen,
            // The watch broke down, which it has said; it must not end the run.
            Err(_) => std::future::pending().await,
        }
    }
}
