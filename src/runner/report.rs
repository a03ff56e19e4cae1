//! The one closing result of a run. Its field names are a contract with hosts and with old records.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::agent::{Conversation, ToolCount};
use crate::gateway::{EgressRecord, Record as Traffic, TargetRecord};
use crate::ids::RunId;

pub use super::resume::Continued;
pub use super::session::SessionReport;
pub use super::verify::Verify;
pub use crate::sandbox::Receipt;
pub use crate::workspace::{ChangeSummary, Mode, View};

/// Our own verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The agent ended its work and said so.
    Completed,
    /// The agent gave up or broke down.
    Failed,
    TimedOut,
    Cancelled,
    OutOfMemory,
    ModelUnreachable,
    ModelError,
    /// The agent ended without an answer.
    NoOutput,
    /// The answer was cut at the model's output limit.
    Truncated,
    /// The run used up what it may: model requests, or room in the workspace.
    BudgetExhausted,
    /// The sandbox could not be made, or was not what the policy says.
    SandboxError,
}

impl Status {
    /// The name in reports and settings.
    pub fn name(self) -> String {
        self.label().replace(' ', "_")
    }

    /// As people say it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
            Self::OutOfMemory => "out of memory",
            Self::ModelUnreachable => "model unreachable",
            Self::ModelError => "model error",
            Self::NoOutput => "no output",
            Self::Truncated => "truncated",
            Self::BudgetExhausted => "budget exhausted",
            Self::SandboxError => "sandbox error",
        }
    }
}

/// One run's closing report, essentials first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    #[schemars(with = "String")]
    pub run_id: RunId,
    pub status: Status,
    /// The agent's closing words; partial when the run did not complete. Untrusted.
    pub answer: String,
    pub error: Option<Failure>,
    /// What the caller's own check said, if there is one.
    #[serde(default)]
    pub verify: Option<Verify>,
    /// The conversation that this run was part of, to be gone on with by its id.
    #[serde(default)]
    pub session: Option<SessionReport>,
    pub workspace: WorkspaceReport,
    pub changes: ChangeSummary,
    /// What a person should know besides: settings that are not in force, places that were hidden
    /// or could not be protected.
    #[serde(default)]
    pub remarks: Vec<String>,
    /// How often the agent was started again, and why.
    #[serde(default)]
    pub continued: Vec<Continued>,
    #[serde(default)]
    pub egress: EgressReport,
    pub usage: Usage,
    pub tools: Vec<ToolUse>,
    pub timing: Timing,
    pub sandbox: SandboxReport,
    /// File with every event of the run.
    pub transcript: Option<String>,
}

/// What went wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// A stable word for programs, such as `connection_refused`.
    pub kind: String,
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WorkspaceReport {
    pub path: String,
    pub mode: Mode,
    // The project's own file with settings. Not in the schema, where every word is on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub project: Option<String>,
    /// The kind of view that the run had, where it may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
}

/// As the gateway counted it, not as the agent claims it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Usage {
    pub requests: u64,
    /// Steps that the agent finished.
    pub steps: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
}

impl Usage {
    pub(super) fn of(traffic: &Traffic, conversation: &Conversation) -> Self {
        Self {
            requests: traffic.requests,
            steps: conversation.steps(),
            input_tokens: traffic.input_tokens,
            output_tokens: traffic.output_tokens,
            reasoning_tokens: traffic.reasoning_tokens,
        }
    }
}

/// What the sandbox tried to reach besides its model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct EgressReport {
    pub allowed: u64,
    pub refused: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Those that were refused first; not all where there are many.
    pub targets: Vec<EgressTarget>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EgressTarget {
    /// As the sandbox named it. Untrusted.
    pub host: String,
    pub port: u16,
    pub allowed: u64,
    pub refused: u64,
    /// Why it was refused the last time, such as `not_allowed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Most targets in a report; the run's `egress.jsonl` has every attempt.
const TARGETS: usize = 20;

impl EgressReport {
    pub(super) fn of(record: &EgressRecord) -> Self {
        let mut targets: Vec<_> = record.targets.iter().collect();
        targets.sort_by_key(|target| std::cmp::Reverse(target.refused > 0));
        let target = |target: &TargetRecord| EgressTarget {
            host: target.host.clone(),
            port: target.port,
            allowed: target.allowed,
            refused: target.refused,
            reason: target.last_refusal.map(|reason| reason.as_str().to_owned()),
        };
        Self {
            allowed: record.allowed,
            refused: record.refused,
            bytes_sent: record.bytes_sent,
            bytes_received: record.bytes_received,
            targets: targets.into_iter().take(TARGETS).map(target).collect(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolUse {
    pub name: String,
    pub calls: u64,
    pub errors: u64,
}

impl ToolUse {
    pub(super) fn of(count: &ToolCount) -> Self {
        Self { name: count.name.clone(), calls: count.calls, errors: count.errors }
    }
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timing {
    pub queued_ms: u64,
    pub prepare_ms: u64,
    pub boot_ms: u64,
    pub agent_ms: u64,
    pub cleanup_ms: u64,
    pub total_ms: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct SandboxReport {
    /// Engine and version.
    pub engine: String,
    pub image: String,
    /// uid:gid inside.
    pub user: String,
    /// The isolation as observed from inside before the agent started.
    pub receipt: Option<Receipt>,
}

/// The kind of failure of a run whose process died.
const DIED: &str = "died";

impl Report {
    /// The report of a run whose process ended without one. There is none on record.
    pub(super) fn of_death(run_id: RunId, how: &str) -> Self {
        let mut report = Self::of_breakdown(run_id, &format!("the run's own process {how}"));
        if let Some(error) = &mut report.error {
            error.kind = DIED.into();
            error.hint = Some("look at the workspace, and run it again".into());
        }
        report
    }

    /// Whether this stands for a run that died.
    pub fn is_of_death(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind == DIED)
    }

    /// The report of a run that broke down before it could make one.
    pub(super) fn of_breakdown(run_id: RunId, message: &str) -> Self {
        Self {
            run_id,
            status: Status::SandboxError,
            answer: String::new(),
            error: Some(Failure {
                kind: "breakdown".into(),
                message: message.into(),
                hint: Some("see the log on standard error".into()),
            }),
            verify: None,
            session: None,
            workspace: WorkspaceReport {
                path: String::new(),
                mode: Mode::Direct,
                project: None,
                view: None,
            },
            changes: ChangeSummary { truncated: true, ..ChangeSummary::default() },
            remarks: Vec::new(),
            continued: Vec::new(),
            egress: EgressReport::default(),
            usage: Usage::default(),
            tools: Vec::new(),
            timing: Timing::default(),
            sandbox: SandboxReport {
                engine: String::new(),
                image: String::new(),
                user: String::new(),
                receipt: None,
            },
            transcript: None,
        }
    }
}
