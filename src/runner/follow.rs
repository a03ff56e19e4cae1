//! Following an agent at work, until it ends or has to be ended.

use tokio::time::Instant;

use super::Error;
use super::cancel::{CancelReason, Canceller};
use super::overseer::{Overseen, Overseer};
use super::story::Story;
use crate::engine::Exit;
use crate::gateway::Gateway;
use crate::model::Fault;
use crate::sandbox::{Line, Sandbox};

/// Why the work ended.
#[derive(Debug)]
pub enum End {
    /// The agent's container ended by itself.
    Exited(Exit),
    TimedOut,
    Cancelled(CancelReason),
    /// The model server failed; waiting for the agent to notice would only cost time.
    ModelFault(Fault),
    /// It cannot go on in its workspace.
    Overseen(Overseen),
    /// The agent asks again and again without getting anywhere.
    Endless,
    Broken(Error),
}

/// What ends the work from outside.
#[derive(Debug)]
pub struct Bounds<'a> {
    pub canceller: &'a Canceller,
    pub deadline: Instant,
    /// Of the workspace, if it can be written.
    pub overseer: Option<Overseer>,
}

async fn overseen(overseer: &mut Option<Overseer>) -> Overseen {
    match overseer {
        Some(overseer) => overseer.seen().await,
        None => std::future::pending().await,
    }
}

/// Follows both witnesses, the agent's output and the gateway's traffic, until the first reason
/// to end. Does not end the container.
pub async fn follow(
    sandbox: &mut Sandbox,
    gateway: &mut Gateway,
    story: &mut Story,
    bounds: &mut Bounds<'_>,
) -> End {
    let Bounds { canceller, deadline, overseer } = bounds;
    let stop = canceller.cancelled();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            // In this order, so that a flood of output cannot hold off a cancel or the deadline.
            biased;
            reason = &mut stop => return End::Cancelled(reason),
            () = tokio::time::sleep_until(*deadline) => return End::TimedOut,
            seen = overseen(overseer) => return End::Overseen(seen),
            Some(traffic) = gateway.next_event() => {
                story.traffic(&traffic);
                if let crate::gateway::Traffic::Faulted(fault) = traffic {
                    return End::ModelFault(fault);
                }
            }
            line = sandbox.next_line() => match line {
                Some(Ok(Line::Stdout(line))) => {
                    story.agent_line(&line);
                    if story.conversation.endless() {
                        return End::Endless;
                    }
                }
                Some(Ok(Line::Stderr(line))) => story.agent_words(&line),
                Some(Ok(Line::TooLong { bytes })) => {
                    story.notice(&format!("a line of {bytes} bytes from the agent was dropped"));
                }
                Some(Err(error)) => return End::Broken(error.into()),
                None => return exited(sandbox, gateway, story).await,
            }
        }
    }
}

/// The output has ended: learn how, and hear what the gateway still has to say.
async fn exited(sandbox: &mut Sandbox, gateway: &mut Gateway, story: &mut Story) -> End {
    let exit = match sandbox.exit().await {
        Ok(exit) => exit,
        Err(error) => return End::Broken(error.into()),
    };
    while let Some(traffic) = gateway.try_next_event() {
        story.traffic(&traffic);
        if let crate::gateway::Traffic::Faulted(fault) = traffic {
            return End::ModelFault(fault);
        }
    }
    End::Exited(exit)
}
