//! The frames that wait to be written for the host, and their bound.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rmcp::model::{CancelledNotificationParam, ErrorData, RequestId, ServerJsonRpcMessage};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::mcp::incoming::Open;

/// Refusals of lines without an id that may wait for a host that does not read.
const REFUSALS: usize = 64;

/// Bytes that may wait for a host that does not read before it is held back, and requests that may
/// be open before the next one is taken. What is open when the first bound is reached comes on top.
const UNSENT: usize = 8 << 20;
const OPEN: usize = 512;

pub(super) fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// The way to the writer. Never waits, so that a host that does not read stops nothing but itself.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    frames: mpsc::UnboundedSender<Frame>,
    refusals: Arc<Semaphore>,
    pub backlog: Arc<Backlog>,
}

#[derive(Debug)]
pub(super) struct Frame {
    line: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
    /// Given back when the frame is written; bounds what a flood of bad lines can pile up.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    pub fn new(backlog: Arc<Backlog>) -> (Self, mpsc::UnboundedReceiver<Frame>) {
        let (frames, queue) = mpsc::unbounded_channel();
        (Self { frames, refusals: Arc::new(Semaphore::new(REFUSALS)), backlog }, queue)
    }

    /// Lets the writer see the end, as far as it hears from here.
    pub fn hang_up(&mut self) {
        (self.frames, _) = mpsc::unbounded_channel();
    }

    pub fn queue(
        &self,
        message: &ServerJsonRpcMessage,
        permit: Option<OwnedSemaphorePermit>,
    ) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let (written, receipt) = oneshot::channel();
        self.backlog.unsent.fetch_add(line.len(), Ordering::Relaxed);
        self.frames.send(Frame { line, written, _permit: permit }).map_err(|_| broken())?;
        Ok(receipt)
    }

    /// A request has its answer, whatever it takes; other refusals only as far as there is room.
    pub async fn refuse(&self, error: ErrorData, id: Option<RequestId>) {
        tracing::debug!(?id, message = %error.message, "refused a message");
        let permit = if id.is_some() {
            self.has_room().await;
            None
        } else {
            let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
            Some(permit)
        };
        // Nobody waits for this frame; a broken pipe is noticed by the writer.
        let _ = self.queue(&ServerJsonRpcMessage::error(error, id), permit);
    }

    /// Waits until the host has taken enough of its answers, or nobody writes any more.
    pub async fn has_room(&self) {
        tokio::select! {
            () = self.backlog.has_room() => {}
            () = self.frames.closed() => {}
        }
    }
}

/// The distance that a host is behind.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes that are not written yet.
    unsent: AtomicUsize,
    pub open: Open,
    less: Notify,
}

impl Backlog {
    async fn has_room(&self) {
        loop {
            let mut less = std::pin::pin!(self.less.notified());
            // From here on, what becomes less while we look is not missed.
            less.as_mut().enable();
            if self.unsent.load(Ordering::Relaxed) < UNSENT && self.open.count() < OPEN {
                return;
            }
            less.await;
        }
    }

    fn written(&self, bytes: usize) {
        self.unsent.fetch_sub(bytes, Ordering::Relaxed);
        self.less.notify_waiters();
    }

    pub fn answered(&self, message: &ServerJsonRpcMessage) {
        self.open.answered(message);
        self.less.notify_waiters();
    }

    pub fn cancelled(&self, cancelled: &mut CancelledNotificationParam) {
        self.open.cancelled(cancelled);
        self.less.notify_waiters();
    }
}

pub(super) async fn write_all<W>(
    mut writer: W,
    mut queue: mpsc::UnboundedReceiver<Frame>,
    backlog: Arc<Backlog>,
) where
    W: AsyncWrite + Unpin,
{
    while let Some(frame) = queue.recv().await {
        let result = match writer.write_all(&frame.line).await {
            Ok(()) => writer.flush().await,
            Err(error) => Err(error),
        };
        backlog.written(frame.line.len());
        let broken = result.as_ref().err().map(ToString::to_string);
        let _ = frame.written.send(result);
        if let Some(error) = broken {
            tracing::warn!(%error, "the host no longer reads");
            return;
        }
    }
}
