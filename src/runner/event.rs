//! What happens during a run, as it happens.

use serde::{Deserialize, Serialize};

/// One thing that happened. Texts in it are already [`crate::text::clean`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// 1, 2, 3 … within the run.
    pub seq: u64,
    /// Milliseconds since the run was asked for.
    pub at_ms: u64,
    pub event: EventKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// Waiting for a free place behind `ahead` other runs.
    Queued { ahead: usize },
    /// The run entered a phase.
    Phase { phase: Phase },
    /// Something a person should know, such as progress of the image's build.
    Notice { message: String },
    /// The agent asked the model for its next step.
    Step { number: u32 },
    /// The model has named a tool with its arguments; it runs next. `title` is fit for one line.
    ToolStarted { name: String, title: String },
    /// A tool has ended.
    ToolFinished { name: String, title: String, ok: bool, exit: Option<i64> },
    /// Words of the agent.
    Text { text: String },
    /// One answer of the model has ended.
    ModelAnswer { finish_reason: Option<String>, input_tokens: u64, output_tokens: u64 },
    /// The sandbox tried to reach something besides its model; `refused` says why it may not.
    Egress { host: String, port: u16, refused: Option<String> },
    /// Trouble, as the agent or the gateway reports it.
    Trouble { message: String },
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Checking the request, the model server, the engine and the image.
    Preparing,
    /// Creating and starting the container, checking its receipt.
    Starting,
    /// The agent works.
    Working,
    /// Collecting what changed.
    Collecting,
    /// Removing the container and its sockets.
    Cleaning,
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Starting => "starting the sandbox",
            Self::Working => "working",
            Self::Collecting => "collecting changes",
            Self::Cleaning => "removing the sandbox",
        }
    }
}
