//! JSON-RPC messages, one on each line, between the host's pipe and rmcp.
//!
//! rmcp brings a line transport of its own. This one exists for what that one leaves open: the end
//! of input is known at once, even while the service is busy; frames leave in the order in which
//! they were sent; a request that rmcp cannot understand is answered under its own id, so that no
//! host waits for ever; and a host that does not read its answers is held back.

mod outgoing;

use std::io;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ErrorCode, ErrorData, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage,
};
use rmcp::transport::Transport;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use self::outgoing::{Backlog, Outgoing, broken, write_all};
use super::incoming;
use crate::text;

/// Messages that may wait for the service; it takes them as fast as it can spawn handlers.
const INCOMING: usize = 64;

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
    let backlog = Arc::new(Backlog::default());
    let (outgoing, queue) = Outgoing::new(backlog.clone());
    let (messages, incoming) = mpsc::channel(INCOMING);
    let read = read_all(BufReader::new(reader), longest, messages, outgoing.clone());
    let write = write_all(writer, queue, backlog);
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
        self.outgoing.backlog.answered(&item);
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
        self.outgoing.hang_up();
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
                outgoing.refuse(ErrorData::invalid_request(message, None), None).await;
                continue;
            }
            Ok(Line::End) => return,
            Err(error) => {
                tracing::warn!(%error, "failed to read from the host");
                return;
            }
        }
        for understood in understand(&line) {
            let mut message = match understood {
                Ok(message) => message,
                Err(Refusal { error, id }) => {
                    outgoing.refuse(error, id).await;
                    continue;
                }
            };
            match &mut message {
                JsonRpcMessage::Request(request) => {
                    outgoing.has_room().await;
                    outgoing.backlog.open.enter(&request.id);
                }
                JsonRpcMessage::Notification(notification) => {
                    if let ClientNotification::CancelledNotification(cancelled) =
                        &mut notification.notification
                    {
                        outgoing.backlog.cancelled(&mut cancelled.params);
                    }
                }
                _ => {}
            }
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

/// A message that is answered here, under its id where it has one.
struct Refusal {
    error: ErrorData,
    id: Option<RequestId>,
}

/// The messages on a line: one, or several for the batches of protocol 2025-03-26.
fn understand(line: &[u8]) -> Vec<Result<ClientJsonRpcMessage, Refusal>> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line).trim_ascii();
    if line.is_empty() {
        return Vec::new();
    }
    let parts = match incoming::read(line) {
        Ok((Value::Array(batch), _)) => batch,
        Ok((other, _)) => vec![other],
        Err(error) => {
            // No answer, as in the other SDKs: the line has no id, and a peer that echoes would
            // start a storm.
            let start = text::one_line(&String::from_utf8_lossy(&line[..line.len().min(200)]), 80);
            tracing::warn!(%error, start, "ignored a line that is not JSON");
            return Vec::new();
        }
    };
    parts.into_iter().filter_map(understand_one).collect()
}

/// Nothing where there is nobody to be answered.
fn understand_one(mut part: Value) -> Option<Result<ClientJsonRpcMessage, Refusal>> {
    incoming::mend(&mut part);
    let id = part.get("id").cloned();
    let method =
        part.get("method").and_then(Value::as_str).map(|method| text::one_line(method, 80));
    if let Ok(message) = serde_json::from_value(part) {
        return Some(Ok(message));
    }
    let (error, id) = match (id, method) {
        (Some(id), Some(method)) => {
            let message = format!("the params of `{method}` do not have its shape");
            (ErrorData::invalid_params(message, None), serde_json::from_value(id).ok())
        }
        // Notifications have no answer, and an odd answer of the host's is its own affair.
        (None, Some(method)) => {
            tracing::debug!(method, "ignored a notification");
            return None;
        }
        (Some(_), None) => {
            tracing::debug!("ignored an answer to nothing");
            return None;
        }
        (None, None) => (ErrorData::invalid_request("this is not a JSON-RPC message", None), None),
    };
    Some(Err(Refusal { error, id }))
}

#[cfg(test)]
mod tests;
