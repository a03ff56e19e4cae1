//! What was asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use crate::config::{Config, load_at};
use crate::session::Wanted;
use crate::workspace::{Mode, WorkspacePath};

/// A task as a face understood it; [`super::Runner::start`] checks it against the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Shell command by which the result is checked, over the configured one; empty for none.
    pub verify: Option<String>,
    /// The conversation to go on with, or `new` to begin one that can be gone on with.
    pub session: Option<String>,
    /// Whether to leave that conversation as it is and go on in a copy of it.
    pub session_fork: bool,
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
            verify: None,
            session: None,
            session_fork: false,
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
    #[error("`verify` must be a shell command of up to {VERIFY} bytes without NUL")]
    Verify,
    #[error("the process for the run could not be started: {0}")]
    Owner(std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Session(#[from] crate::session::Error),
    #[error(transparent)]
    Workspace(#[from] crate::workspace::Error),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
}

/// A task that may run.
#[derive(Debug)]
pub(super) struct Checked {
    /// The settings in force for this run.
    pub config: Arc<Config>,
    /// The project's own file, in the workspace or above it.
    pub project: Option<PathBuf>,
    /// What is to be said about the project's own settings.
    pub remark: Option<String>,
    pub text: String,
    pub workspace: WorkspacePath,
    pub mode: Mode,
    pub timeout: Duration,
    pub model: Option<String>,
    pub command: Option<String>,
    pub verify: Option<String>,
    pub session: Option<Wanted>,
}

impl Checked {
    /// Returns true where the run writes into a view of its own.
    pub fn has_view(&self) -> bool {
        self.mode != Mode::ReadOnly
    }
}

/// Longest command that checks the result: far below what the kernel takes as one argument.
const VERIFY: usize = 32 << 10;

/// Checks everything that can be checked without waiting.
pub(super) fn check(task: Task, shared: &Shared) -> Result<Checked, TaskError> {
    if task.text.trim().is_empty() && task.command.is_none() {
        return Err(TaskError::Empty);
    }
    if let Some(at) = task.text.find('\0') {
        return Err(TaskError::Nul { at });
    }
    if let Some(asked) = &task.command {
        let known = crate::sandbox::image::commands();
        if !known.contains(asked) {
            return Err(TaskError::Command { asked: asked.clone(), known });
        }
    }
    let workspace =
        WorkspacePath::check(task.workspace.as_deref(), &shared.folder(), &shared.roots())?;
    let project = load_at(&shared.options, workspace.path(), &shared.trust)?;
    let (config, project, remark) = match project {
        Some(effective) => (Arc::new(effective.config), effective.project, effective.remark),
        None => (shared.config.clone(), None, None),
    };
    let limits = &config.limits;
    if task.text.len() as u64 > limits.task.bytes() {
        let (bytes, allowed) = (task.text.len(), limits.task.bytes());
        return Err(TaskError::TooLong { bytes, allowed });
    }
    let timeout = task.timeout.unwrap_or(Duration::from_secs(limits.timeout));
    if timeout.is_zero() || timeout.as_secs() > limits.max_timeout {
        return Err(TaskError::Timeout { asked: timeout.as_secs(), allowed: limits.max_timeout });
    }
    if task.mode == Mode::Direct {
        workspace.require_writable()?;
    }
    let asked = task.session.as_deref();
    let session = Wanted::read(&shared.state, asked, task.session_fork, workspace.path())?;
    let verify = task.verify.or_else(|| config.agent.verify.clone());
    let verify = verify.filter(|command| !command.trim().is_empty());
    if verify.as_ref().is_some_and(|command| command.len() > VERIFY || command.contains('\0')) {
        return Err(TaskError::Verify);
    }
    let Task { text, mode, model, command, .. } = task;
    Ok(Checked {
        config,
        project,
        remark,
        text,
        workspace,
        mode,
        timeout,
        model,
        command,
        verify,
        session,
    })
}
