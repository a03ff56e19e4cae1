//! The watch over the growth of what a run writes, for the time of the work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::workspace::{Exceeded, Watch};

/// The time between two looks; the watch itself decides which of them counts.
const LOOK: Duration = Duration::from_millis(500);

/// A reason to end a run.
#[derive(Debug)]
pub enum Overseen {
    /// The workspace has grown more than it may.
    Overgrown(Exceeded),
    /// What the agent keeps of a conversation has.
    Overremembered(Exceeded),
}

fn touch(file: &Path) -> std::io::Result<()> {
    File::options().write(true).open(file)?.set_modified(SystemTime::now())
}

/// Tells when something has grown too much. Dropping it ends the watch.
#[derive(Debug)]
pub struct Overseer {
    seen: oneshot::Receiver<Overseen>,
    _stop: Sender<()>,
}

impl Overseer {
    /// Begins to watch. `exceeded` names what has grown, and `alive` is a file to touch: the sign of
    /// life that other processes go by.
    pub fn new(mut watch: Watch, exceeded: fn(Exceeded) -> Overseen, alive: PathBuf) -> Self {
        let (stop, stopped) = channel();
        let (tell, seen) = oneshot::channel();
        spawn_blocking(move || {
            // Ends with who asked for it.
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                if let Err(error) = touch(&alive) {
                    tracing::debug!("{} is not touched: {error}", alive.display());
                }
                if let Some(seen) = watch.look().map(exceeded) {
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
