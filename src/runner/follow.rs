//! Following an order to its end, with every reason to end it before.

use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::Instant;

use super::Error;
use super::cancel::{CancelReason, Canceller};
use super::live::Looker;
use super::overseer::{Overseen, Overseer};
use super::pulse::Pulse;
use super::story::Story;
use crate::engine::Exit;
use crate::gateway::{Gateway, Traffic};
use crate::model::Fault;
use crate::sandbox::{Ended, Line, Order, Sandbox};

/// Why the work ended.
#[derive(Debug)]
pub enum End {
    /// The agent has ended, and the sandbox is empty and goes on.
    Ended(Ended),
    /// The whole container has ended.
    Exited(Exit),
    TimedOut,
    Cancelled(CancelReason),
    /// The model server failed; waiting for the agent to notice would only cost time.
    ModelFault(Fault),
    /// It cannot go on in its workspace.
    Overseen(Overseen),
    /// The agent asks again and again without getting anywhere.
    Endless,
    /// Nothing has happened for so long.
    Stalled(Duration),
    Broken(Error),
}

/// What ends the work from outside.
#[derive(Debug)]
pub struct Bounds<'a> {
    pub canceller: &'a Canceller,
    pub deadline: Instant,
    /// Of what can be written on this machine: the workspace, the agent's own memory.
    pub overseers: Vec<Overseer>,
}

async fn overseen(overseers: &mut [Overseer]) -> Overseen {
    if overseers.is_empty() {
        return std::future::pending().await;
    }
    select_all(overseers.iter_mut().map(|overseer| Box::pin(overseer.seen()))).await.0
}

async fn passed(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// One thing that happens while an order is carried out.
#[derive(Debug)]
pub enum Seen {
    Line(Line),
    Traffic(Traffic),
    /// The moment has passed that was asked for.
    Passed,
}

/// A sandbox at work, and all that bears witness to it or may end it.
#[derive(Debug)]
pub struct Workplace<'a> {
    pub sandbox: &'a mut Sandbox,
    pub gateway: &'a mut Gateway,
    pub story: &'a mut Story,
    pub bounds: Bounds<'a>,
}

impl Workplace<'_> {
    /// Gives an order.
    pub fn order(&mut self, order: &Order<'_>) -> Result<(), End> {
        self.sandbox.order(order).map_err(|error| End::Broken(error.into()))
    }

    /// The next thing that happens, or the end of everything. Nothing is lost between two calls.
    pub async fn next(&mut self, until: Option<Instant>) -> Result<Seen, End> {
        let Bounds { canceller, deadline, overseers } = &mut self.bounds;
        let line = tokio::select! {
            // In this order, so that a flood of output cannot hold off a cancel or the deadline.
            biased;
            reason = canceller.cancelled() => return Err(End::Cancelled(reason)),
            () = tokio::time::sleep_until(*deadline) => return Err(End::TimedOut),
            seen = overseen(overseers) => return Err(End::Overseen(seen)),
            () = passed(until) => return Ok(Seen::Passed),
            Some(traffic) = self.gateway.next_event() => return Ok(Seen::Traffic(traffic)),
            line = self.sandbox.next_line() => line,
        };
        match line {
            Some(Ok(line)) => Ok(Seen::Line(line)),
            Some(Err(error)) => Err(End::Broken(error.into())),
            None => Err(self.exited().await),
        }
    }

    /// Follows both witnesses of the agent's work, its output and the gateway's traffic, until the
    /// first reason to end. Ends nothing itself. Has `looker` look when somebody asks for it.
    pub async fn follow(&mut self, mut pulse: Pulse, mut looker: Looker<'_>) -> End {
        loop {
            let seen = tokio::select! {
                biased;
                seen = self.next(pulse.until()) => seen,
                asked = looker.next() => {
                    looker.answer(self.sandbox, asked).await;
                    continue;
                }
            };
            match seen {
                Err(end) => return end,
                Ok(Seen::Passed) => {
                    if let Some(silence) = pulse.is_gone(&self.gateway.record()) {
                        return End::Stalled(silence);
                    }
                }
                Ok(Seen::Traffic(traffic)) => {
                    pulse.traffic(&traffic);
                    self.story.traffic(&traffic);
                    if let Traffic::Faulted(fault) = traffic {
                        return End::ModelFault(fault);
                    }
                }
                Ok(Seen::Line(Line::Ended(ended))) => {
                    return match self.rest() {
                        Some(fault) => End::ModelFault(fault),
                        None => End::Ended(ended),
                    };
                }
                Ok(Seen::Line(line)) => {
                    let tools = self.story.conversation.tool_calls();
                    self.agent(line);
                    pulse.line(self.story.conversation.tool_calls() > tools);
                    if self.story.conversation.endless() {
                        return End::Endless;
                    }
                }
            }
        }
    }

    /// Ends what goes on inside and waits until the sandbox is empty.
    pub async fn settle(&mut self) -> Result<(), End> {
        self.sandbox.stop().map_err(|error| End::Broken(error.into()))?;
        loop {
            match self.next(None).await? {
                Seen::Line(Line::Ended(_)) => break,
                Seen::Line(line) => self.agent(line),
                Seen::Traffic(traffic) => self.story.traffic(&traffic),
                Seen::Passed => {}
            }
        }
        // Faults of requests whose asker is gone are nobody's end.
        self.rest();
        Ok(())
    }

    fn agent(&mut self, line: Line) {
        match line {
            Line::Stdout(line) => self.story.agent_line(&line),
            Line::Stderr(line) => self.story.agent_words(&line),
            Line::TooLong { bytes } => {
                let dropped = format!("a line of {bytes} bytes from the agent was dropped");
                self.story.notice(&dropped);
            }
            Line::Ended(_) => {}
        }
    }

    /// Hears what the gateway still has to say, and gives the first fault in it.
    fn rest(&mut self) -> Option<Fault> {
        let mut first = None;
        while let Some(traffic) = self.gateway.try_next_event() {
            self.story.traffic(&traffic);
            if let Traffic::Faulted(fault) = traffic {
                first.get_or_insert(fault);
            }
        }
        first
    }

    /// The container's output has ended: learn how it did.
    async fn exited(&mut self) -> End {
        let exit = match self.sandbox.exit().await {
            Ok(exit) => exit,
            Err(error) => return End::Broken(error.into()),
        };
        match self.rest() {
            Some(fault) => End::ModelFault(fault),
            None => End::Exited(exit),
        }
    }
}
