//! One coding agent: how it is called, how it is configured, what its output means.
//!
//! This room knows agents. It must never know where one runs, or who asked.

mod conversation;
pub mod opencode;

use std::collections::BTreeMap;

use crate::config::McpServer;

pub use conversation::{Conversation, Ending, ToolCount};

/// What an agent is asked to do.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The model's id, as the gateway serves it.
    pub model: &'a str,
    /// Tokens that the model can hold, and may answer with.
    pub context: u64,
    pub output: u64,
    /// The model can see pictures.
    pub vision: bool,
    /// One of the agent's commands, to which the task is the argument.
    pub command: Option<&'a str>,
    /// Port on the sandbox's own loopback behind which the model is.
    pub model_port: u16,
    /// Files with standing instructions, as paths inside.
    pub instructions: &'a [String],
    /// Milliseconds after which the agent may give up on one answer.
    pub answer_timeout_ms: u64,
    /// Whether there is anything but the model to be reached.
    pub web: bool,
    /// Folder inside in which it keeps its conversations, if they are to outlive the sandbox.
    pub memory: Option<&'a str>,
    /// Its own name for the conversation to go on with.
    pub conversation: Option<&'a str>,
    /// MCP servers of its own.
    pub mcp: &'a BTreeMap<String, McpServer>,
}

/// What the agent in an image can do, asked of the agent itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Abilities {
    pub version: String,
    /// The flag that lets it work without asking, if it has one.
    pub unattended_flag: Option<String>,
    pub title_flag: bool,
    /// It can go on with a conversation by its id.
    #[serde(default)]
    pub session_flag: bool,
}

/// One thing that an agent said of itself, in the order of its own output.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEvent {
    StepStarted,
    StepFinished { reason: String },
    Text { text: String },
    Tool { name: String, title: String, ok: bool, exit: Option<i64>, error: Option<String> },
    Error { name: String, message: String, status: Option<u16> },
}
