//! Starting the agent again where it stopped, when that is worth it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Status;
use super::follow::End;
use super::verdict::{Evidence, judge};
use crate::agent::Ending;
use crate::model::FaultKind;

/// Why the agent was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Its answer was cut at the model's output limit.
    Length,
    /// The model's stream was cut.
    Cut,
    /// It ended without an answer.
    Silence,
    /// Nothing happened any more.
    Stalled,
}

// One time that the agent was started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Continued {
    #[schemars(with = "String")]
    pub reason: Reason,
    // Milliseconds since the run was asked for.
    pub at_ms: u64,
}

/// Whether to start it again after this end. Never where somebody or something else has ended it,
/// and never where it would only meet the same refusal.
pub fn reason(evidence: &Evidence<'_>) -> Option<Reason> {
    match evidence.end {
        End::Stalled(_) => Some(Reason::Stalled),
        End::Endless => Some(Reason::Cut),
        End::ModelFault(fault) => (fault.kind == FaultKind::StreamCut).then_some(Reason::Cut),
        End::Ended(_) => match (judge(evidence).0, evidence.conversation.ending()) {
            (Status::Truncated, _) => Some(Reason::Length),
            (Status::NoOutput, Ending::Other(how)) if how == "unknown" => Some(Reason::Cut),
            (Status::NoOutput, _) => Some(Reason::Silence),
            _ => None,
        },
        End::Exited(_) | End::TimedOut | End::Cancelled(_) | End::Overseen(_) | End::Broken(_) => {
            None
        }
    }
}

impl Reason {
    /// What the agent is told.
    pub fn prompt(self) -> &'static str {
        match self {
            Self::Length => {
                "Your last answer was cut because it was too long. Go on where it stopped, in \
                 smaller steps, and end with a short answer."
            }
            Self::Cut => {
                "The connection was lost in the middle of your last answer. Go on where you \
                 stopped; look at what is there before you do something again."
            }
            Self::Silence => {
                "You ended without an answer. Do what is left of the task, then say in words what \
                 you did and what came of it."
            }
            Self::Stalled => {
                "You were stopped because nothing happened for a long time. Go on where you \
                 stopped, in another way than the one that did not come back."
            }
        }
    }

    /// What people are told.
    pub fn remark(self) -> &'static str {
        match self {
            Self::Length => "the agent's answer was cut at the output limit; it was started again",
            Self::Cut => "the model's answer was cut on the way; the agent was started again",
            Self::Silence => "the agent ended without an answer; it was started again",
            Self::Stalled => "nothing happened any more; the agent was stopped and started again",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::cancel::CancelReason;
    use super::*;
    use crate::agent::{AgentEvent, Conversation};
    use crate::engine::Exit;
    use crate::gateway::Record;
    use crate::model::Fault;
    use crate::sandbox::Ended;

    fn of(end: &End, finish: &str) -> Option<Reason> {
        let mut conversation = Conversation::default();
        conversation.take(&AgentEvent::StepStarted);
        conversation.take(&AgentEvent::StepFinished { reason: finish.into() });
        let traffic = Record { requests: 1, ..Record::default() };
        let conversation = &conversation;
        reason(&Evidence {
            end,
            conversation,
            traffic: &traffic,
            last_words: None,
            timeout_seconds: 1,
        })
    }

    #[test]
    fn what_may_go_on_does() {
        let ended = End::Ended(Ended::default());
        assert_eq!(of(&ended, "length"), Some(Reason::Length));
        assert_eq!(of(&ended, "unknown"), Some(Reason::Cut));
        assert_eq!(of(&ended, "tool-calls"), Some(Reason::Silence));
        assert_eq!(of(&ended, "stop"), Some(Reason::Silence), "with nothing said");
        assert_eq!(of(&End::Endless, "unknown"), Some(Reason::Cut));
        assert_eq!(of(&End::Stalled(Duration::ZERO), "stop"), Some(Reason::Stalled));
        let cut = End::ModelFault(Fault::new(FaultKind::StreamCut, "x"));
        assert_eq!(of(&cut, "tool-calls"), Some(Reason::Cut));
    }

    #[test]
    fn what_was_ended_stays_ended() {
        let failed = End::Ended(Ended { code: 1, ..Ended::default() });
        let out_of_memory = End::Ended(Ended { oom_kills: Some(1), ..Ended::default() });
        let ends = [
            failed,
            out_of_memory,
            End::TimedOut,
            End::Cancelled(CancelReason::Asked),
            End::Exited(Exit { code: 137, out_of_memory: false }),
        ];
        for end in &ends {
            assert_eq!(of(end, "tool-calls"), None, "{end:?}");
        }
        for kind in [
            FaultKind::ConnectionRefused,
            FaultKind::FirstByteTimeout,
            FaultKind::HttpStatus,
            FaultKind::Unauthorized,
            FaultKind::ContextOverflow,
            FaultKind::RateLimited,
            FaultKind::BudgetExhausted,
        ] {
            let end = End::ModelFault(Fault::new(kind, "x"));
            assert_eq!(of(&end, "tool-calls"), None, "{kind:?}");
        }
    }
}
