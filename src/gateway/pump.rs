//! A streamed answer on its way to the agent: each piece goes on at once and is read in passing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use super::ledger::Ledger;
use super::respond;
use crate::model::{Chunks, Endpoint, Fault, Reader, Redactor, ToolCall, sse};

pub struct Pump {
    pub body: Chunks,
    pub reader: Reader,
    pub redactor: Redactor,
    pub number: u64,
    pub stall_timeout: Duration,
    pub endpoint: Arc<Endpoint>,
    pub ledger: Arc<Ledger>,
    /// The answer has been entered into the ledger; nothing more follows.
    pub ended: bool,
}

impl Pump {
    /// The pieces for the agent. Dropping the stream, as happens when the agent hangs up, drops the
    /// connection to the server, which then stops computing.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        stream::unfold(self, |mut pump| async move { Some((pump.next().await?, pump)) })
    }

    /// The next piece, or `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let piece = tokio::time::timeout(self.stall_timeout, self.body.next()).await;
        let outcome = match piece {
            Ok(Some(Ok(piece))) => self.read(piece).map(Some),
            // The model has finished; how the connection ends is of no interest then.
            _ if self.reader.answer().is_complete() => self.finish(),
            Ok(Some(Err(fault))) => Err(fault),
            Ok(None) => self.finish(),
            Err(_) => Err(Fault::stalled(self.stall_timeout)),
        };
        outcome.unwrap_or_else(|fault| Some(self.fail(fault)))
    }

    /// Looks at a piece before it goes on, and returns what goes on. The key is out of it before
    /// anything else sees it.
    pub fn read(&mut self, piece: Bytes) -> Result<Bytes, Fault> {
        self.ledger.received(piece.len());
        let piece = self.redactor.pass(piece);
        let mut calls = Vec::new();
        let outcome = self.reader.push(&piece, &mut calls);
        self.tell(calls);
        outcome?;
        if !self.reader.answer().is_done() {
            return Ok(piece);
        }
        self.settle();
        Ok([piece, self.redactor.rest()].concat().into())
    }

    fn finish(&mut self) -> Result<Option<Bytes>, Fault> {
        let rest = self.redactor.rest();
        let mut calls = Vec::new();
        let outcome =
            self.reader.push(&rest, &mut calls).and_then(|()| self.reader.finish(&mut calls));
        self.tell(calls);
        outcome?;
        self.settle();
        Ok(Some(rest))
    }

    fn tell(&self, calls: Vec<ToolCall>) {
        for call in calls {
            self.ledger.tool_call(self.number, call);
        }
    }

    fn settle(&mut self) {
        self.ended = true;
        let answer = self.reader.answer();
        self.ledger.answered(self.number, answer);
    }

    /// The agent has the head of the answer already, so the fault goes into the stream, as an event
    /// that clients take for an error of the model. The line breaks before it close whatever line
    /// was cut.
    fn fail(&mut self, fault: Fault) -> Bytes {
        self.ended = true;
        self.ledger.partial(self.reader.answer().usage());
        let fault = record_fault(&self.ledger, &self.endpoint, fault);
        let mut out = BytesMut::from(&b"\n\n"[..]);
        out.extend_from_slice(&sse::encode(&respond::fault_object(&fault)));
        out.extend_from_slice(&sse::encode_done());
        out.freeze()
    }
}

impl Drop for Pump {
    /// The agent hung up, which is its right and no fault. What was computed until then counts.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.reader.answer().is_complete() {
            self.settle();
        } else {
            self.ledger.partial(self.reader.answer().usage());
        }
    }
}

/// Enters a fault into the ledger, without the key that a server may have said back.
pub fn record_fault(ledger: &Ledger, endpoint: &Endpoint, mut fault: Fault) -> Fault {
    if let Some(key) = &endpoint.api_key {
        fault.message = key.redact(&fault.message);
    }
    tracing::debug!(kind = fault.kind.as_str(), message = fault.message, "model fault");
    ledger.fault(&fault);
    fault
}
