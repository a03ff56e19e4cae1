//! What a run came to. Never the exit code alone: an agent's own account, the gateway's and the
//! container's end have to agree.

use super::cancel::CancelReason;
use super::follow::End;
use super::overseer::Overseen;
use super::{Failure, Status};
use crate::agent::{Conversation, Ending};
use crate::engine::Exit;
use crate::gateway::Record as Traffic;
use crate::sandbox::{AGENT_KILLED, DEADLINE, OWNER_GONE};

/// Everything that bears witness.
#[derive(Debug)]
pub struct Evidence<'a> {
    pub end: &'a End,
    pub conversation: &'a Conversation,
    pub traffic: &'a Traffic,
    pub last_words: Option<&'a str>,
    pub timeout_seconds: u64,
}

pub fn judge(evidence: &Evidence<'_>) -> (Status, Option<Failure>) {
    match evidence.end {
        End::Exited(exit) => of_exit(evidence, *exit),
        End::TimedOut => (Status::TimedOut, Some(timed_out(evidence.timeout_seconds))),
        End::Cancelled(reason) => (Status::Cancelled, Some(cancelled(*reason))),
        End::ModelFault(fault) => {
            let status = if fault.kind.is_unreachable() {
                Status::ModelUnreachable
            } else if fault.kind == crate::model::FaultKind::BudgetExhausted {
                Status::BudgetExhausted
            } else {
                Status::ModelError
            };
            let kind = fault.kind.as_str();
            (status, Some(failure(kind, &fault.message, fault.hint.as_deref().unwrap_or(LOOK))))
        }
        End::Overseen(Overseen::Loosened(place)) => {
            let place = crate::text::one_line(&place.to_string_lossy(), 200);
            let message = format!(
                "`{place}` was replaced on this machine during the run, which left it unprotected"
            );
            let hint = "run it again when nothing else changes that place (`git config`, \
                        `git push -u` and the like do); what the agent may have written there was \
                        looked at as ever";
            (Status::SandboxError, Some(failure("workspace_unguarded", &message, hint)))
        }
        End::Overseen(Overseen::Planted(place)) => {
            let message = format!(
                "the agent made `{}`, by which git on this machine would follow other settings",
                place.display()
            );
            let hint = "it was taken out; `workspace.swept` has it. Look at what the task made the \
                        agent do";
            (Status::Failed, Some(failure("planted", &message, hint)))
        }
        End::Overseen(Overseen::Overgrown(exceeded)) => {
            let hint = "look for what it wrote before you run it again, or raise `limits.disk` and \
                        `limits.files`";
            let message = exceeded.to_string();
            (Status::BudgetExhausted, Some(failure("workspace_growth", &message, hint)))
        }
        End::Endless => {
            let message = "the model's answers ended without a reason several times in a row";
            let hint = "see the model server's log; its stream may be cut on the way";
            (Status::ModelError, Some(failure("endless", message, hint)))
        }
        End::Broken(error) => {
            let (status, failure) = error.verdict();
            (status, Some(failure))
        }
    }
}

/// The exit code of whatever got SIGKILL.
const KILLED: i64 = 128 + 9;

const LOOK: &str = "the transcript shows what the agent did";

fn of_exit(evidence: &Evidence<'_>, exit: Exit) -> (Status, Option<Failure>) {
    if exit.code == DEADLINE {
        return (Status::TimedOut, Some(timed_out(evidence.timeout_seconds)));
    }
    let conversation = evidence.conversation;
    let ended_well = exit.code == 0 && conversation.ending() == Ending::Stop;
    // A child that was killed for its memory is the agent's business as long as the agent lived
    // to tell.
    if exit.out_of_memory && !ended_well {
        let hint = "raise `limits.memory`, or ask for less at once";
        let message = "the sandbox ran out of memory";
        return (Status::OutOfMemory, Some(failure("out_of_memory", message, hint)));
    }
    if exit.code == OWNER_GONE {
        let message = "the sandbox lost its connection to us and ended itself";
        return (
            Status::SandboxError,
            Some(failure("connection_lost", message, "was the engine restarted? try again")),
        );
    }
    let killed = |words: &str| words.starts_with(AGENT_KILLED);
    if exit.code == KILLED && !evidence.last_words.is_some_and(killed) {
        let message = "the container was killed from outside";
        let hint = "somebody or something else removed it, or the engine was stopped; try again";
        return (Status::SandboxError, Some(failure("killed_from_outside", message, hint)));
    }
    match conversation.ending() {
        Ending::Stop => {
            if evidence.traffic.requests == 0 {
                // Whatever printed these events, no model was asked.
                let message = "the agent claims an answer, but asked no model for it";
                return (Status::Failed, Some(failure("forged_answer", message, LOOK)));
            }
            if exit.code != 0 {
                return (Status::Failed, Some(broke_down(evidence, exit)));
            }
            if conversation.answer().is_empty() {
                return (Status::NoOutput, Some(no_output()));
            }
            (Status::Completed, None)
        }
        Ending::Length => {
            let message = "the answer was cut at the model's output limit";
            let hint = "raise `model.output`, or ask for less at once";
            (Status::Truncated, Some(failure("length", message, hint)))
        }
        Ending::Nothing | Ending::Other(_) => {
            if conversation.error().is_some() || exit.code != 0 {
                return (Status::Failed, Some(broke_down(evidence, exit)));
            }
            if told_by_model(evidence.traffic).is_some() {
                return (Status::Completed, None);
            }
            (Status::NoOutput, Some(no_output()))
        }
    }
}

/// The run's answer: the agent's words, or the model's own where the agent did not get to say them.
pub fn answer(status: Status, conversation: &Conversation, traffic: &Traffic) -> String {
    match (status, conversation.ending()) {
        (Status::Completed, Ending::Nothing | Ending::Other(_)) => {
            told_by_model(traffic).unwrap_or_default()
        }
        _ => conversation.answer(),
    }
}

/// What the model said last, if that was an end. The agent ends without waiting for its output to
/// be read, so the last words of a long answer can be lost on its side.
fn told_by_model(traffic: &Traffic) -> Option<String> {
    let ended = traffic.finish_reasons.last()?.as_deref() == Some("stop");
    let answer = crate::text::clean(traffic.last_answer.trim());
    (ended && !answer.is_empty()).then_some(answer)
}

fn broke_down(evidence: &Evidence<'_>, exit: Exit) -> Failure {
    if let Some((name, message)) = evidence.conversation.error() {
        return failure("agent_error", &format!("{name}: {message}"), LOOK);
    }
    let said = evidence.last_words.map(|words| format!(": {words}")).unwrap_or_default();
    failure("agent_exit", &format!("the agent ended with exit code {}{said}", exit.code), LOOK)
}

fn no_output() -> Failure {
    let message = "the agent ended without an answer";
    failure("no_output", message, "ask again, more plainly, or with a stronger model")
}

fn timed_out(seconds: u64) -> Failure {
    let message = format!("the task was not done within {seconds} seconds");
    failure("deadline", &message, "give it more time (`timeout`), or a smaller task")
}

fn cancelled(reason: CancelReason) -> Failure {
    let message = match reason {
        CancelReason::Asked => "the run was cancelled",
        CancelReason::Shutdown => "the program that ran it was ended",
    };
    failure("cancelled", message, "what was done until then is in the workspace")
}

fn failure(kind: &str, message: &str, hint: &str) -> Failure {
    Failure { kind: kind.into(), message: message.into(), hint: Some(hint.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::AgentEvent;

    fn conversation(reason: &str, text: &str) -> Conversation {
        let mut conversation = Conversation::default();
        conversation.take(&AgentEvent::StepStarted);
        conversation.take(&AgentEvent::Text { text: text.into() });
        conversation.take(&AgentEvent::StepFinished { reason: reason.into() });
        conversation
    }

    fn of(conversation: &Conversation, requests: u64, code: i64, out_of_memory: bool) -> Status {
        of_words(conversation, requests, code, out_of_memory, None)
    }

    fn of_words(
        conversation: &Conversation,
        requests: u64,
        code: i64,
        out_of_memory: bool,
        last_words: Option<&str>,
    ) -> Status {
        let traffic = Traffic { requests, ..Traffic::default() };
        let end = End::Exited(Exit { code, out_of_memory });
        let evidence =
            Evidence { end: &end, conversation, traffic: &traffic, last_words, timeout_seconds: 1 };
        let (status, failure) = judge(&evidence);
        assert_eq!(failure.is_none(), status == Status::Completed, "{failure:?}");
        status
    }

    #[test]
    fn witnesses_have_to_agree() {
        let done = conversation("stop", "Done.");
        assert_eq!(of(&done, 1, 0, false), Status::Completed);
        assert_eq!(of(&done, 0, 0, false), Status::Failed);
        assert_eq!(of(&done, 1, 1, false), Status::Failed);
        assert_eq!(of(&conversation("stop", " "), 1, 0, false), Status::NoOutput);
        assert_eq!(of(&conversation("length", "Half"), 1, 0, false), Status::Truncated);
        assert_eq!(of(&conversation("tool-calls", ""), 1, 0, false), Status::NoOutput);
        assert_eq!(of(&Conversation::default(), 0, 0, false), Status::NoOutput);
        assert_eq!(of(&Conversation::default(), 0, 1, false), Status::Failed);
    }

    #[test]
    fn memory_counts_when_it_was_the_agents_end() {
        let done = conversation("stop", "Done.");
        assert_eq!(of(&done, 1, 0, true), Status::Completed);
        assert_eq!(of(&Conversation::default(), 1, 137, true), Status::OutOfMemory);
    }

    #[test]
    fn what_the_agent_lost_the_gateway_has() {
        let traffic = Traffic {
            requests: 1,
            finish_reasons: vec![Some("stop".into())],
            last_answer: "Done.".into(),
            ..Traffic::default()
        };
        let cut = Conversation::default();
        let judged = |code| {
            judge(&Evidence {
                end: &End::Exited(Exit { code, out_of_memory: false }),
                conversation: &cut,
                traffic: &traffic,
                last_words: None,
                timeout_seconds: 1,
            })
        };
        assert_eq!(judged(0).0, Status::Completed);
        assert_eq!(answer(Status::Completed, &cut, &traffic), "Done.");
        assert_eq!(judged(1).0, Status::Failed);
    }

    #[test]
    fn a_killed_container_is_not_a_killed_agent() {
        let nothing = Conversation::default();
        assert_eq!(of(&nothing, 1, KILLED, false), Status::SandboxError);
        let told = format!("{AGENT_KILLED} 9");
        assert_eq!(of_words(&nothing, 1, KILLED, false, Some(&told)), Status::Failed);
    }

    #[test]
    fn the_guests_own_deadline_is_a_timeout() {
        assert_eq!(of(&Conversation::default(), 1, DEADLINE, false), Status::TimedOut);
        assert_eq!(of(&Conversation::default(), 1, OWNER_GONE, false), Status::SandboxError);
    }
}
