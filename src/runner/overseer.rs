//! The watch over a workspace's growth, for the time of the work.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::workspace::{Exceeded, Watch};

/// How often the growth is asked for; the watch itself decides what to look at.
const LOOK: Duration = Duration::from_millis(500);

/// Tells when the workspace has grown too much. Dropping it ends the watch.
#[derive(Debug)]
pub struct Overseer {
    exceeded: oneshot::Receiver<Exceeded>,
    _stop: Sender<()>,
}

impl Overseer {
    pub fn new(mut watch: Watch) -> Self {
        let (stop, stopped) = channel();
        let (tell, exceeded) = oneshot::channel();
        spawn_blocking(move || {
            // Ends with who asked for it.
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(LOOK) {
                if let Some(much) = watch.look() {
                    // Nobody listens when the work has just ended.
                    let _ = tell.send(much);
                    return;
                }
            }
        });
        Self { exceeded, _stop: stop }
    }

    pub async fn exceeded(&mut self) -> Exceeded {
        match (&mut self.exceeded).await {
            Ok(exceeded) => exceeded,
            // The watch broke down, which it has said; it must not end the run.
            Err(_) => std::future::pending().await,
        }
    }
}
