//! An answer on its way to the agent: each piece is read, written anew in one form, and goes on at
//! once.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tokio::time::Instant;

use super::canonical::Writer;
use super::ledger::Ledger;
use super::respond;
use crate::model::{Chunks, Ending, Endpoint, Fault, FaultKind, Piece, Reader, sse, written_call};

/// How long a server that has ended its answer may take to count it, or to close the stream.
const AFTER_END: Duration = Duration::from_secs(2);
/// Likewise, once it has counted.
const AFTER_USAGE: Duration = Duration::from_millis(200);
/// An agent that hears nothing for five minutes hangs up, so it hears something sooner.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// A comment in an event stream, which every client passes over.
pub fn heartbeat() -> Bytes {
    Bytes::from_static(b": waiting for the model\n\n")
}

/// What one request asks for, as far as it matters for its answer.
#[derive(Clone, Debug)]
pub struct Question {
    pub number: u64,
    /// The tools that the agent offers.
    pub tools: Vec<String>,
    /// The most tokens that it wants.
    pub max_tokens: Option<u64>,
    /// For `/v1/completions`.
    pub plain: bool,
}

/// Who answers, and who counts.
#[derive(Clone, Debug)]
pub struct Parties {
    pub endpoint: Arc<Endpoint>,
    pub ledger: Arc<Ledger>,
}

impl Parties {
    /// Enters a fault into the ledger, without the secrets that a server may have said back.
    pub fn record_fault(&self, fault: Fault) -> Fault {
        let mut fault = self.endpoint.explain(fault);
        if fault.kind == FaultKind::ContextOverflow {
            self.ledger.explain_overflow(&self.endpoint, &mut fault);
        }
        tracing::debug!(kind = fault.kind.as_str(), message = fault.message, "model fault");
        self.ledger.fault(&fault);
        fault
    }
}

#[derive(Debug)]
pub struct Pump {
    body: Stream,
    reader: Reader,
    writer: Writer,
    question: Question,
    parties: Parties,
    stall_timeout: Duration,
    /// What was written before anybody asked for it.
    ready: BytesMut,
    /// When the server last said something of the answer; comments do not count.
    spoke: Instant,
    /// Since when it is waited for. The time that an agent takes to ask for more is none of it.
    quiet_since: Option<Instant>,
    /// Until when the model may read the prompt, which some servers do behind the first event.
    first_by: Instant,
    /// The answer has been entered into the ledger; nothing more follows.
    ended: bool,
}

/// The body of the server's answer.
struct Stream(Chunks);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Pump {
    pub fn new(
        body: Chunks,
        question: Question,
        parties: Parties,
        stall_timeout: Duration,
        first_by: Instant,
    ) -> Self {
        Self {
            body: Stream(body),
            reader: Reader::new(&parties.endpoint.secrets()),
            writer: Writer::new(&parties.endpoint.model, question.plain),
            question,
            parties,
            stall_timeout,
            ready: BytesMut::new(),
            spoke: Instant::now(),
            quiet_since: None,
            first_by,
            ended: false,
        }
    }

    /// Reads until the model has really begun: until then a fault can be told with a status of its
    /// own.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        while !self.ended && !self.reader.answer().has_begun() {
            match self.body.0.next().await {
                Some(piece) => self.read(&piece?)?,
                None => self.finish()?,
            }
        }
        Ok(())
    }

    /// Reads a whole answer, for an agent that does not want a stream.
    pub async fn whole(mut self) -> Result<Bytes, Fault> {
        let mut pieces = Vec::new();
        while !self.reader.answer().is_done() {
            match self.body.0.next().await {
                Some(bytes) => {
                    let bytes = bytes?;
                    self.parties.ledger.received(bytes.len());
                    self.reader.push(&bytes, &mut pieces)?;
                }
                None => break,
            }
        }
        self.reader.finish(&mut pieces)?;
        self.tell(&pieces)?;
        self.settle()?;
        Ok(self.writer.whole(&pieces, self.reader.answer()))
    }

    /// The next bytes for the agent, or `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.ready.split().freeze());
            }
            if self.ended {
                return None;
            }
            let complete = self.reader.answer().is_complete();
            let quiet_since = *self.quiet_since.get_or_insert_with(Instant::now);
            let stalled = quiet_since + self.stall_timeout;
            let until = match self.reader.answer() {
                answer if answer.is_complete() => self.spoke + self.grace(),
                answer if answer.says_anything() => stalled,
                _ => stalled.max(self.first_by),
            };
            let beat = Instant::now() + HEARTBEAT;
            let read = match tokio::time::timeout_at(until.min(beat), self.body.0.next()).await {
                Ok(Some(Ok(bytes))) => self.read(&bytes),
                // The model has finished; how the connection ends is of no interest then.
                _ if complete => self.finish(),
                Ok(Some(Err(fault))) => Err(fault),
                Ok(None) => self.finish(),
                Err(_) if beat < until => return Some(heartbeat()),
                Err(_) => Err(Fault::stalled(self.stall_timeout)),
            };
            if let Err(fault) = read {
                self.fail(fault);
            }
        }
    }

    fn grace(&self) -> Duration {
        if self.reader.answer().is_counted() { AFTER_USAGE } else { AFTER_END }
    }

    /// Reads bytes, and writes what they say. A server that says that it is done is not waited for.
    fn read(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.parties.ledger.received(bytes.len());
        self.quiet_since = None;
        let mut pieces = Vec::new();
        let before = self.reader.answer().events();
        let read = self.reader.push(bytes, &mut pieces);
        if self.reader.answer().events() > before {
            self.spoke = Instant::now();
        }
        self.write(&pieces)?;
        read?;
        if self.reader.answer().is_done() { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), Fault> {
        let mut pieces = Vec::new();
        let finished = self.reader.finish(&mut pieces);
        self.write(&pieces)?;
        finished?;
        self.settle()?;
        self.writer.end(self.reader.answer(), &mut self.ready);
        Ok(())
    }

    fn write(&mut self, pieces: &[Piece]) -> Result<(), Fault> {
        for piece in pieces {
            self.writer.piece(piece, &mut self.ready);
        }
        self.tell(pieces)
    }

    /// Tells of the calls among `pieces`, and fails when the model has not made a good one for long.
    fn tell(&self, pieces: &[Piece]) -> Result<(), Fault> {
        for piece in pieces {
            if let Piece::Called(call) = piece {
                let offered = self.question.tools.contains(&call.name);
                self.parties.ledger.tool_call(
                    self.question.number,
                    call,
                    offered,
                    &self.parties.endpoint,
                )?;
            }
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Fault> {
        let answer = self.reader.answer();
        if answer.ending() == Some(Ending::Length) && self.is_context_full() {
            let usage = answer.usage();
            let message = format!(
                "the answer ended because the context is full: {} tokens were read and {} written",
                usage.input, usage.output
            );
            return Err(Fault::new(FaultKind::ContextOverflow, &message));
        }
        self.ended = true;
        let called = written_call(answer.text(), &self.question.tools);
        let called = called.filter(|_| answer.ending() == Some(Ending::Stop)).map(str::to_owned);
        let Parties { endpoint, ledger } = &self.parties;
        ledger.answered(self.question.number, answer, called, endpoint);
        Ok(())
    }

    /// Whether the context ended the answer, and not the limit that the agent set.
    fn is_context_full(&self) -> bool {
        let usage = self.reader.answer().usage();
        let total = usage.input.saturating_add(usage.output);
        if self.question.max_tokens.is_some_and(|most| usage.output >= most) || usage.output == 0 {
            return false;
        }
        let endpoint = &self.parties.endpoint;
        // Where the server does not tell its context, only the number itself does: contexts are
        // multiples of 256.
        let untold = endpoint.limits == crate::model::LimitsOrigin::Assumed;
        total.saturating_add(1) >= endpoint.context || (untold && total.wrapping_add(1) % 256 <= 2)
    }

    /// The agent has the head of the answer already, so the fault goes into the stream, as an event
    /// that clients take for an error of the model.
    fn fail(&mut self, fault: Fault) {
        self.ended = true;
        let mut rest = Vec::new();
        self.reader.rest(&mut rest);
        for piece in &rest {
            self.writer.piece(piece, &mut self.ready);
        }
        self.parties.ledger.partial(self.reader.answer().usage());
        let fault = self.parties.record_fault(fault);
        self.ready.extend_from_slice(&failure(&fault));
    }
}

/// A fault as the end of a stream.
pub fn failure(fault: &Fault) -> Bytes {
    [sse::encode(&respond::fault_object(fault)), sse::encode_done()].concat().into()
}

impl Drop for Pump {
    /// The agent hung up, which is its right and no fault. What was computed until then counts.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // An answer that is complete but for the server's last words is one.
        let complete = self.reader.answer().is_complete();
        if !complete || self.reader.finish(&mut Vec::new()).is_err() || self.settle().is_err() {
            self.parties.ledger.partial(self.reader.answer().usage());
        }
    }
}
