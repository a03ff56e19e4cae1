//! JSON-RPC messages, one on each line, between the host's pipe and rmcp.
//!
//! rmcp brings a line transport of its own. This one exists for what that one leaves open: the end
//! of input is known at once, even while the service is busy or the host does not read; frames
//! leave in the order in which they were sent; and a request that rmcp cannot understand is
//! answered under its own id, so that no host waits for ever.

use std::io;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ErrorCode, ErrorData, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::text;

/// Messages that may wait for the service; it takes them as fast as it can spawn handlers.
const INCOMING: usize = 64;

/// Refusals of bad lines that may wait for a host that does not read.
const REFUSALS: usize = 64;

/// A buffer that a huge message has grown beyond this is given back.
const KEEP_BUFFER: usize = 1 << 20;

/// The code of [`no_answer`].
const NO_ANSWER: ErrorCode = ErrorCode(-32800);

/// What a handler returns whose request nobody waits for any more. rmcp wants an answer from every
/// handler; this one ends here.
pub(super) fn no_answer() -> ErrorData {
    ErrorData::new(NO_ANSWER, "the host has left", None)
}

/// The two ends of a session, told apart because answers may follow the end of input.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// Nothing more can be read, or nobody reads what is written.
    pub client_gone: CancellationToken,
    /// Everything has been answered: the service may hear of the end.
    pub release: CancellationToken,
}

/// The transport that rmcp serves.
#[derive(Debug)]
pub(super) struct Lines {
    incoming: mpsc::Receiver<ClientJsonRpcMessage>,
    outgoing: Outgoing,
    ends: Ends,
    reader: Option<AbortOnDropHandle<()>>,
    writer: Option<JoinHandle<()>>,
}

/// Starts to read and to write; a line may have `longest` bytes.
pub(super) fn connect<R, W>(reader: R, writer: W, longest: usize, ends: &Ends) -> Lines
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (frames, queue) = mpsc::unbounded_channel();
    let outgoing = Outgoing { frames, refusals: Arc::new(Semaphore::new(REFUSALS)) };
    let (messages, incoming) = mpsc::channel(INCOMING);
    let read = read_all(BufReader::new(reader), longest, messages, outgoing.clone());
    let write = write_all(writer, queue);
    // The guards speak up whatever the reason for the end, a panic included.
    let (read_guard, write_guard) =
        (ends.client_gone.clone().drop_guard(), ends.client_gone.clone().drop_guard());
    let reader = tokio::spawn(async move {
        let _guard = read_guard;
        read.await;
    });
    let writer = tokio::spawn(async move {
        let _guard = write_guard;
        write.await;
    });
    Lines {
        incoming,
        outgoing,
        ends: ends.clone(),
        reader: Some(AbortOnDropHandle::new(reader)),
        writer: Some(writer),
    }
}

impl Transport<RoleServer> for Lines {
    type Error = io::Error;

    /// Queues the frame at the call itself, not when the future is polled: rmcp spawns these
    /// futures, and spawned tasks may overtake one another.
    fn send(
        &mut self,
        item: ServerJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        let written = self.wanted(&item).then(|| self.outgoing.queue(&item, None));
        async move {
            match written {
                Some(receipt) => receipt?.await.unwrap_or_else(|_| Err(broken())),
                None => Ok(()),
            }
        }
    }

    /// After the end of input this waits for the release: rmcp would give open calls 5 s from the
    /// moment it hears of the end and then drop their answers.
    async fn receive(&mut self) -> Option<ClientJsonRpcMessage> {
        tokio::select! {
            biased;
            message = self.incoming.recv() => {
                if message.is_none() {
                    self.ends.release.cancelled().await;
                }
                message
            }
            () = self.ends.release.cancelled() => None,
        }
    }

    /// Waits until everything queued is written. The reader holds a sender too, so it ends first.
    async fn close(&mut self) -> io::Result<()> {
        if let Some(reader) = self.reader.take() {
            reader.abort();
            let _ = reader.await;
        }
        let (nowhere, _) = mpsc::unbounded_channel();
        self.outgoing.frames = nowhere;
        match self.writer.take() {
            Some(writer) => writer.await.map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

impl Lines {
    /// A host that has closed its end waits for no news, and the Python SDK fails over it.
    fn wanted(&self, message: &ServerJsonRpcMessage) -> bool {
        match message {
            JsonRpcMessage::Notification(_) => !self.ends.client_gone.is_cancelled(),
            JsonRpcMessage::Error(answer) => answer.error.code != NO_ANSWER,
            _ => true,
        }
    }
}

fn broken() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// The way to the writer. Never waits, so that a host that does not read stops nothing but itself.
#[derive(Clone, Debug)]
struct Outgoing {
    frames: mpsc::UnboundedSender<Frame>,
    refusals: Arc<Semaphore>,
}

struct Frame {
    line: Vec<u8>,
    written: oneshot::Sender<io::Result<()>>,
    /// Given back when the frame is written; bounds what a flood of bad lines can pile up.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    fn queue(
        &self,
        message: &ServerJsonRpcMessage,
        permit: Option<OwnedSemaphorePermit>,
    ) -> io::Result<oneshot::Receiver<io::Result<()>>> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let (written, receipt) = oneshot::channel();
        self.frames.send(Frame { line, written, _permit: permit }).map_err(|_| broken())?;
        Ok(receipt)
    }

    fn refuse(&self, error: ErrorData, id: Option<RequestId>) {
        tracing::debug!(?id, message = %error.message, "refused a message");
        let Ok(permit) = self.refusals.clone().try_acquire_owned() else { return };
        // Nobody waits for this frame; a broken pipe is noticed by the writer.
        let _ = self.queue(&ServerJsonRpcMessage::error(error, id), Some(permit));
    }
}

async fn write_all<W>(mut writer: W, mut queue: mpsc::UnboundedReceiver<Frame>)
where
    W: AsyncWrite + Unpin,
{
    while let Some(frame) = queue.recv().await {
        let result = match writer.write_all(&frame.line).await {
            Ok(()) => writer.flush().await,
            Err(error) => Err(error),
        };
        let broken = result.as_ref().err().map(ToString::to_string);
        let _ = frame.written.send(result);
        if let Some(error) = broken {
            tracing::warn!(%error, "the host no longer reads");
            return;
        }
    }
}

async fn read_all<R>(
    mut reader: R,
    longest: usize,
    messages: mpsc::Sender<ClientJsonRpcMessage>,
    outgoing: Outgoing,
) where
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    let mut greeted = false;
    loop {
        match next_line(&mut reader, &mut line, longest).await {
            Ok(Line::Whole) => {}
            Ok(Line::TooLong) => {
                let message = format!("a message may have at most {longest} bytes");
                outgoing.refuse(ErrorData::invalid_request(message, None), None);
                continue;
            }
            Ok(Line::End) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to read from the host");
                return;
            }
        }
        for message in understand(&line, &outgoing) {
            // rmcp ends the session over anything but a request at its beginning; some clients
            // send notifications of their own first.
            greeted |= matches!(message, JsonRpcMessage::Request(_));
            if greeted && messages.send(message).await.is_err() {
                return;
            }
        }
        if line.capacity() > KEEP_BUFFER {
            line = Vec::new();
        }
    }
}

enum Line {
    Whole,
    /// Dropped up to its end.
    TooLong,
    End,
}

/// Reads one line without ever holding more than `longest` bytes of it. A last line that lacks its
/// newline counts: `printf` in a script leaves it out.
async fn next_line<R>(reader: &mut R, line: &mut Vec<u8>, longest: usize) -> io::Result<Line>
where
    R: AsyncBufRead + Unpin,
{
    line.clear();
    let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    if (&mut *reader).take(most).read_until(b'\n', line).await? == 0 {
        return Ok(Line::End);
    }
    if line.len() <= longest || line.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    loop {
        let part = reader.fill_buf().await?;
        let (taken, ends) = match part.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (part.len(), part.is_empty()),
        };
        reader.consume(taken);
        if ends {
            return Ok(Line::TooLong);
        }
    }
}

/// The messages on a line: one, or several for the batches of protocol 2025-03-26.
fn understand(line: &[u8], outgoing: &Outgoing) -> Vec<ClientJsonRpcMessage> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Vec::new();
    }
    if line[0] != b'['
        && let Ok(message) = serde_json::from_slice(line)
    {
        return vec![message];
    }
    // Only what failed is parsed a second time.
    let parts = match serde_json::from_slice(line) {
        Ok(Value::Array(batch)) => batch,
        Ok(other) => vec![other],
        Err(error) => {
            // No answer, as in the other SDKs: the line has no id, and a peer that echoes would
            // start a storm.
            let start = text::one_line(&String::from_utf8_lossy(&line[..line.len().min(200)]), 80);
            tracing::warn!(%error, start, "ignored a line that is not JSON");
            return Vec::new();
        }
    };
    let mut messages = Vec::with_capacity(parts.len());
    for part in parts {
        let (id, method) = (part.get("id").cloned(), method_of(&part));
        match serde_json::from_value(part) {
            Ok(message) => messages.push(message),
            Err(_) => refuse(id, method.as_deref(), outgoing),
        }
    }
    messages
}

fn method_of(message: &Value) -> Option<String> {
    message.get("method").and_then(Value::as_str).map(|method| text::one_line(method, 80))
}

/// Answers a message of the wrong shape, under its id where it has one.
fn refuse(id: Option<Value>, method: Option<&str>, outgoing: &Outgoing) {
    match (id, method) {
        (Some(id), Some(method)) => {
            let message = format!("the params of `{method}` do not have its shape");
            let id = serde_json::from_value(id).ok();
            outgoing.refuse(ErrorData::invalid_params(message, None), id);
        }
        // Notifications have no answer, and an odd answer of the host's is its own affair.
        (None, Some(method)) => tracing::debug!(method, "ignored a notification"),
        (Some(_), None) => tracing::debug!("ignored an answer to nothing"),
        (None, None) => {
            let message = "this is not a JSON-RPC message";
            outgoing.refuse(ErrorData::invalid_request(message, None), None);
        }
    }
}

#[cfg(test)]
mod tests;
