//! What a run came to. Never the exit code alone: an agent's own account, the gateway's and the
//! container's end have to agree.

use super::cancel::CancelReason;
use super::follow::End;
use super::overseer::Overseen;
use super::{Failure, Status};
use crate::agent::{Conversation, Ending};
use crate::engine::Exit;
use crate::gateway::Record as Traffic;
use crate::sandbox::{DEADLINE, Ended, OVERGROWN, OWNER_GONE, Overrun};

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
        End::Ended(ended) => of_agent(evidence, *ended),
        End::Exited(exit) => of_container(evidence, *exit),
        End::TimedOut => (Status::TimedOut, Some(timed_out(evidence))),
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
        End::Overseen(Overseen::Overremembered(exceeded)) => {
            let message = exceeded.of("what the agent keeps of this conversation");
            let hint = "begin a new `session`; this one may be of no more use";
            (Status::BudgetExhausted, Some(failure("session_growth", &message, hint)))
        }
        End::Overseen(Overseen::Overgrown(exceeded)) => {
            let message = exceeded.to_string();
            (Status::BudgetExhausted, Some(failure("workspace_growth", &message, GROWTH)))
        }
        End::Overseen(Overseen::Unwatched(why)) => {
            let message = format!("how much the run writes could not be watched any more: {why}");
            let hint = "what it changed until then is kept; the engine's log may say more";
            (Status::SandboxError, Some(failure("connection_lost", &message, hint)))
        }
        End::Endless => {
            let message = "the model's answers ended without a reason several times in a row";
            let hint = "see the model server's log; its stream may be cut on the way";
            (Status::ModelError, Some(failure("endless", message, hint)))
        }
        End::Stalled(silence) => {
            let message = format!(
                "nothing happened for {} seconds: no word of the agent, nothing to or from the \
                 model, no tool at work",
                silence.as_secs()
            );
            let hint = "run it again; if the agent needs more time to think, raise `limits.stall`";
            (Status::Failed, Some(failure("stalled", &message, hint)))
        }
        End::Broken(error) => {
            let (status, failure) = error.verdict();
            (status, Some(failure))
        }
    }
}

const GROWTH: &str = "look for what it wrote before you run it again, or raise `limits.disk` and \
                      `limits.files`";
const LOOK: &str = "the transcript shows what the agent did";

/// The whole container ended, which it does by itself only at its deadline or when it has lost us.
fn of_container(evidence: &Evidence<'_>, exit: Exit) -> (Status, Option<Failure>) {
    if exit.code == DEADLINE {
        return (Status::TimedOut, Some(timed_out(evidence)));
    }
    if exit.out_of_memory {
        return (Status::OutOfMemory, Some(out_of_memory()));
    }
    if exit.code == OVERGROWN {
        let message = "deleted files that were still open took more than the run may write";
        return (Status::BudgetExhausted, Some(failure("workspace_growth", message, GROWTH)));
    }
    if exit.code == OWNER_GONE {
        let message = "the sandbox lost its connection to us and ended itself";
        return (
            Status::SandboxError,
            Some(failure("connection_lost", message, "was the engine restarted? try again")),
        );
    }
    if exit.code == KILLED {
        let message = "the container was killed from outside";
        let hint = "somebody or something else removed it, or the engine was stopped; try again";
        return (Status::SandboxError, Some(failure("killed_from_outside", message, hint)));
    }
    let said = evidence.last_words.map(|words| format!(": {words}")).unwrap_or_default();
    let message = format!("the sandbox ended by itself with exit code {}{said}", exit.code);
    (Status::SandboxError, Some(failure("sandbox_ended", &message, "try again")))
}

/// The exit code of whatever got SIGKILL.
const KILLED: i64 = 128 + 9;

fn of_agent(evidence: &Evidence<'_>, ended: Ended) -> (Status, Option<Failure>) {
    let conversation = evidence.conversation;
    let ended_well = ended.code == 0 && conversation.ending() == Ending::Stop;
    // A child that was killed for its memory is the agent's business as long as the agent lived
    // to tell.
    if ended.out_of_memory() && !ended_well {
        return (Status::OutOfMemory, Some(out_of_memory()));
    }
    if ended.overrun == Some(Overrun::Processes) && !ended_well {
        let message = "the sandbox had more processes than `limits.pids`";
        let hint = "look for what started so many, or raise `limits.pids`";
        return (Status::BudgetExhausted, Some(failure("processes", message, hint)));
    }
    match conversation.ending() {
        Ending::Stop => {
            if evidence.traffic.requests == 0 {
                // Whatever printed these events, no model was asked.
                let message = "the agent claims an answer, but asked no model for it";
                return (Status::Failed, Some(failure("forged_answer", message, LOOK)));
            }
            if ended.code != 0 {
                return (Status::Failed, Some(broke_down(evidence, ended)));
            }
            if let Some(tool) = &evidence.traffic.written_call {
                return (Status::ModelError, Some(written(evidence, tool)));
            }
            if !conversation.answer().is_empty() || closing_thoughts(evidence).is_some() {
                return (Status::Completed, None);
            }
            silent(evidence)
        }
        Ending::Length => {
            let message = "the answer was cut at the model's output limit";
            let hint = "raise `model.output`, or ask for less at once";
            (Status::Truncated, Some(failure("length", message, hint)))
        }
        Ending::Nothing | Ending::Other(_) => {
            if conversation.error().is_some() || ended.code != 0 {
                return (Status::Failed, Some(broke_down(evidence, ended)));
            }
            if told_by_model(evidence.traffic).is_some() {
                return (Status::Completed, None);
            }
            silent(evidence)
        }
    }
}

/// The agent ended without an answer. Where the model did write one, its server is at fault.
fn silent(evidence: &Evidence<'_>) -> (Status, Option<Failure>) {
    let traffic = evidence.traffic;
    let Some(tokens) = traffic.swallowed else { return (Status::NoOutput, Some(no_output())) };
    let message = format!(
        "the model answered with {tokens} tokens, and neither words nor a tool call came of them: \
         the server's parser took them"
    );
    let hint = format!(
        "{}; a reasoning parser must fit the model too. `sandbox-mcp doctor` shows what arrives",
        traffic.parser_remedy
    );
    (Status::ModelError, Some(failure("parser_mismatch", &message, &hint)))
}

fn written(evidence: &Evidence<'_>, tool: &str) -> Failure {
    let message = format!(
        "the model wrote its call of the tool `{tool}` as text, so nothing was done: the server did \
         not recognise it"
    );
    failure("call_as_text", &message, evidence.traffic.parser_remedy)
}

/// A doubt about a completed run, for the person: the model may have called a tool that nobody saw.
pub fn doubt(status: Status, evidence: &Evidence<'_>) -> Option<String> {
    let traffic = evidence.traffic;
    let idle = status == Status::Completed && evidence.conversation.tool_calls() == 0;
    let tokens = traffic.few_words.filter(|_| idle)?;
    Some(format!(
        "the model answered with {tokens} tokens, of which few words and no tool call came; if nothing \
         was done, the server's parser took the call: {}",
        traffic.parser_remedy
    ))
}

/// The model's thoughts, where a server sends its closing words as such. A model that has only
/// thought so far is asked once more first.
fn closing_thoughts(evidence: &Evidence<'_>) -> Option<String> {
    let (conversation, traffic) = (evidence.conversation, evidence.traffic);
    let thoughts = crate::text::clean(traffic.last_thoughts.trim());
    let worked = conversation.tool_calls() > 0 || conversation.steps() > 1;
    (worked && traffic.swallowed.is_none() && !thoughts.is_empty()).then_some(thoughts)
}

/// The run's answer: the agent's words, or the model's own where the agent did not get to say them.
pub fn answer(status: Status, evidence: &Evidence<'_>) -> String {
    let told = evidence.conversation.answer();
    match (status, evidence.conversation.ending()) {
        (Status::Completed, Ending::Nothing | Ending::Other(_)) => {
            told_by_model(evidence.traffic).unwrap_or_default()
        }
        (Status::Completed, _) if told.is_empty() => closing_thoughts(evidence).unwrap_or_default(),
        _ => told,
    }
}

/// What the model said last, if that was an end. The agent ends without waiting for its output to
/// be read, so the last words of a long answer can be lost on its side.
fn told_by_model(traffic: &Traffic) -> Option<String> {
    let ended = traffic.finish_reasons.last()?.as_deref() == Some("stop");
    let answer = crate::text::without_thoughts(&traffic.last_answer);
    let answer = crate::text::clean(answer.trim());
    (ended && !answer.is_empty()).then_some(answer)
}

fn broke_down(evidence: &Evidence<'_>, ended: Ended) -> Failure {
    if let Some((name, message)) = evidence.conversation.error() {
        return failure("agent_error", &format!("{name}: {message}"), LOOK);
    }
    let said = evidence.last_words.map(|words| format!(": {words}")).unwrap_or_default();
    let message = match ended.signal {
        Some(signal) => format!("the agent was killed by signal {signal}{said}"),
        None => format!("the agent ended with exit code {}{said}", ended.code),
    };
    failure("agent_exit", &message, LOOK)
}

fn out_of_memory() -> Failure {
    let hint = "raise `limits.memory`, or ask for less at once; a command that prints very much should \
                write into a file";
    failure("out_of_memory", "the sandbox ran out of memory", hint)
}

fn no_output() -> Failure {
    let message = "the agent ended without an answer";
    failure("no_output", message, "ask again, more plainly, or with a stronger model")
}

fn timed_out(evidence: &Evidence<'_>) -> Failure {
    let seconds = evidence.timeout_seconds;
    if evidence.traffic.requests == 0 {
        let message =
            format!("the agent had not asked the model anything within {seconds} seconds");
        let hint = "look at the run's log: the machine is very busy, or a check before the agent or \
                    the agent's own start takes too long; else give it more time (`timeout`)";
        return failure("no_request", &message, hint);
    }
    let message = format!("the task was not done within {seconds} seconds");
    if evidence.traffic.answers == 0 {
        let hint = "the model had not ended its first answer: `sandbox-mcp doctor` measures how fast \
                    it reads; give it more time (`timeout`), or use a smaller model";
        return failure("deadline", &message, hint);
    }
    failure("deadline", &message, "give it more time (`timeout`), or a smaller task")
}

fn cancelled(reason: CancelReason) -> Failure {
    let message = match reason {
        CancelReason::Asked => "the run was cancelled",
        CancelReason::Left => "the host that asked for it ended its session or went away",
        CancelReason::Shutdown => "the program that asked for it was ended",
    };
    failure("cancelled", message, "`changes` has what was done until then")
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
        let oom_kills = Some(u64::from(out_of_memory));
        let end = End::Ended(Ended { code, oom_kills, ..Ended::default() });
        judged(&end, conversation, requests).0
    }

    fn judged(end: &End, conversation: &Conversation, requests: u64) -> (Status, Option<Failure>) {
        let traffic = Traffic { requests, ..Traffic::default() };
        let last_words = Some("last words");
        let evidence =
            Evidence { end, conversation, traffic: &traffic, last_words, timeout_seconds: 1 };
        let (status, failure) = judge(&evidence);
        assert_eq!(failure.is_none(), status == Status::Completed, "{failure:?}");
        (status, failure)
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
                end: &End::Ended(Ended { code, ..Ended::default() }),
                conversation: &cut,
                traffic: &traffic,
                last_words: None,
                timeout_seconds: 1,
            })
        };
        assert_eq!(judged(0).0, Status::Completed);
        let end = End::Ended(Ended::default());
        let evidence = Evidence {
            end: &end,
            conversation: &cut,
            traffic: &traffic,
            last_words: None,
            timeout_seconds: 1,
        };
        assert_eq!(answer(Status::Completed, &evidence), "Done.");
        assert_eq!(judged(1).0, Status::Failed);
    }

    #[test]
    fn the_server_is_at_fault_for_words_that_it_took() {
        let end = End::Ended(Ended::default());
        let judged = |conversation: &Conversation, traffic: &Traffic| {
            let evidence =
                Evidence { end: &end, conversation, traffic, last_words: None, timeout_seconds: 1 };
            let (status, failure) = judge(&evidence);
            (status, failure.map(|failure| failure.kind), answer(status, &evidence))
        };
        let silent = conversation("stop", "");
        let mut traffic = Traffic { requests: 1, swallowed: Some(27), ..Traffic::default() };
        let (status, kind, _) = judged(&silent, &traffic);
        assert_eq!((status, kind.as_deref()), (Status::ModelError, Some("parser_mismatch")));

        traffic = Traffic { requests: 1, last_thoughts: "All done.".into(), ..Traffic::default() };
        assert_eq!(judged(&silent, &traffic).0, Status::NoOutput, "asked once more first");
        let mut worked = Conversation::default();
        let (name, title) = ("bash".to_owned(), String::new());
        worked.take(&AgentEvent::Tool { name, title, ok: true, exit: Some(0), error: None });
        worked.take(&AgentEvent::StepFinished { reason: "stop".into() });
        let (status, _, said) = judged(&worked, &traffic);
        assert_eq!((status, said.as_str()), (Status::Completed, "All done."));

        traffic = Traffic { requests: 1, written_call: Some("bash".into()), ..Traffic::default() };
        let (status, kind, _) = judged(&conversation("stop", "<tool_call>…"), &traffic);
        assert_eq!((status, kind.as_deref()), (Status::ModelError, Some("call_as_text")));
    }

    #[test]
    fn a_killed_container_is_not_a_killed_agent() {
        let nothing = Conversation::default();
        let exit = |code, out_of_memory| End::Exited(Exit { code, out_of_memory });
        assert_eq!(judged(&exit(KILLED, false), &nothing, 1).0, Status::SandboxError);
        assert_eq!(judged(&exit(KILLED, true), &nothing, 1).0, Status::OutOfMemory);
        let killed = End::Ended(Ended { code: KILLED, signal: Some(9), ..Ended::default() });
        let (status, failure) = judged(&killed, &nothing, 1);
        assert_eq!(status, Status::Failed);
        let message = failure.expect("a failure").message;
        assert_eq!(message, "the agent was killed by signal 9: last words");
    }

    #[test]
    fn a_container_that_ended_is_never_done() {
        let done = conversation("stop", "Done.");
        for code in [0, 1, 250, DEADLINE, OVERGROWN, OWNER_GONE, KILLED] {
            let end = End::Exited(Exit { code, out_of_memory: false });
            assert_ne!(judged(&end, &done, 1).0, Status::Completed, "{code}");
        }
    }

    #[test]
    fn the_guests_own_deadline_is_a_timeout() {
        let of = |code| {
            let end = End::Exited(Exit { code, out_of_memory: false });
            judged(&end, &Conversation::default(), 1).0
        };
        assert_eq!(of(DEADLINE), Status::TimedOut);
        assert_eq!(of(OVERGROWN), Status::BudgetExhausted);
        assert_eq!(of(OWNER_GONE), Status::SandboxError);
        // The agent's own exit code is nobody's deadline.
        assert_eq!(super::tests::of(&Conversation::default(), 1, DEADLINE, false), Status::Failed);
    }
}
