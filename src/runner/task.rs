//! What was asked.

use std::path::PathBuf;
use std::time::Duration;

use crate::workspace::Mode;

/// A task as a face understood it; [`super::Runner::start`] checks it against the configuration.
#[derive(Clone, Debug)]
pub struct Task {
    /// What the agent is to do, verbatim.
    pub text: String,
    /// The folder to work in; the current folder when absent.
    pub workspace: Option<PathBuf>,
    pub mode: Mode,
    /// How long the agent may work; the configured default when absent.
    pub timeout: Option<Duration>,
    /// Model id, over the configured one.
    pub model: Option<String>,
    /// One of the agent's commands, to which `text` is the argument.
    pub command: Option<String>,
}

impl Task {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            workspace: None,
            mode: Mode::Direct,
            timeout: None,
            model: None,
            command: None,
        }
    }
}

/// Why a task was not accepted. The message names the argument and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    #[error("`task` is empty; say what the agent is to do")]
    Empty,
    #[error("`task` holds a NUL character at byte {at}; remove it")]
    Nul { at: usize },
    #[error("`task` has {bytes} bytes, more than the {allowed} that `limits.task` allows")]
    TooLong { bytes: usize, allowed: u64 },
    #[error("`timeout` is {asked} seconds; allowed are 1 to {allowed} (`limits.max_timeout`)")]
    Timeout { asked: u64, allowed: u64 },
    #[error("`command` is `{asked}`; there are: {}", .known.join(", "))]
    Command { asked: String, known: Vec<String> },
    #[error(transparent)]
    Workspace(#[from] crate::workspace::Error),
}
