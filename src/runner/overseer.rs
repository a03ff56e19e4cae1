//! The watch over the growth of what a run writes, for the time of the work.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::sandbox::Usage;
use crate::workspace::{Bounds, Exceeded, Watch, What};

/// The time between two looks; the watch itself decides which of them counts.
const LOOK: Duration = Duration::from_millis(500);

/// The time between two looks at copies on the engine's machine.
const REST_OF_COPIES: Duration = Duration::from_secs(2);

/// The longest of these.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A reason to end a run.
#[derive(Debug)]
pub enum Overseen {
    /// The workspace has grown more than it may.
    Overgrown(Exceeded),
    /// What the agent keeps of a conversation has.
    Overremembered(Exceeded),
    /// Nobody can tell any more how much the run writes.
    Unwatched(String),
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

    /// Begins to watch copies on the engine's machine. `start` is what they took before the run.
    pub fn of_copies(usage: Usage, start: (u64, u64), bounds: Bounds) -> Self {
        let (stop, stopped) = channel();
        let (tell, seen) = oneshot::channel();
        tokio::spawn(async move {
            let mut rest = Duration::ZERO;
            while let Err(TryRecvError::Empty) = stopped.try_recv() {
                // In steps, so that the copies are not held by a watch that is over.
                tokio::time::sleep(LOOK).await;
                rest = rest.saturating_sub(LOOK);
                if !rest.is_zero() {
                    continue;
                }
                let began = Instant::now();
                let now = match usage.look().await {
                    Ok(Some(now)) => now,
                    Ok(None) => return,
                    Err(error) => {
                        let _ = tell.send(Overseen::Unwatched(error.to_string()));
                        return;
                    }
                };
                rest = (began.elapsed() * 10).clamp(REST_OF_COPIES, LONGEST_REST);
                let grown = (now.0.saturating_sub(start.0), now.1.saturating_sub(start.1));
                let exceeded = if grown.0 > bounds.bytes {
                    Exceeded { what: What::Bytes, grown: grown.0, allowed: bounds.bytes }
                } else if grown.1 > bounds.files {
                    Exceeded { what: What::Files, grown: grown.1, allowed: bounds.files }
                } else {
                    continue;
                };
                // Nobody listens when the work has just ended.
                let _ = tell.send(Overseen::Overgrown(exceeded));
                return;
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
