//! Reasons for which nothing was done with a run's changes.

use std::path::Path;

use crate::ids::RunId;
use crate::workspace::GuardError;
use crate::workspace::changeset::{ApplyError, StoreError};

/// A reason for which nothing was done with a run's changes.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    #[error("run {0} goes on")]
    Running(RunId),
    #[error("run {run} goes on and was not looked at: {why}")]
    NotSeen { run: RunId, why: String },
    #[error("run {0} could only read, so it changed nothing")]
    ReadOnly(RunId),
    #[error("run {0} changed nothing")]
    Unchanged(RunId),
    #[error("run {0} left no list of changes")]
    NoList(RunId),
    #[error("nothing of run {0} is applied, or what it replaced was not kept")]
    NotApplied(RunId),
    #[error("undo run {run}: what it replaced was too much to be kept, such as `{path}`")]
    NotKept { run: RunId, path: String },
    #[error("undo run {run}: {why}")]
    Branch { run: RunId, why: String },
    #[error("the changes of run {0} were discarded")]
    Discarded(RunId),
    #[error(
        "another program has a lock on the workspace of run {0}, or the run's changes are in use"
    )]
    Busy(RunId),
    #[error("the workspace of run {run} is no longer the folder {path}")]
    Moved { run: RunId, path: String },
    #[error(transparent)]
    Workspace(#[from] crate::workspace::Error),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error("failed to {0}")]
    Guard(#[from] GuardError),
    #[error("failed to {0}")]
    Store(#[from] StoreError),
    #[error("failed to {0}")]
    Apply(#[from] ApplyError),
    #[error("failed to read or remove {path}: {source}")]
    Io { path: String, source: std::io::Error },
}

impl OutcomeError {
    pub(in crate::runner) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }

    /// A stable word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Running(_) | Self::NotSeen { .. } => "running",
            Self::ReadOnly(_) | Self::Unchanged(_) | Self::NoList(_) => "no_changes",
            Self::NotApplied(_) => "not_applied",
            Self::NotKept { .. } => "not_kept",
            Self::Discarded(_) => "discarded",
            Self::Busy(_) => "busy",
            Self::Branch { .. } | Self::Apply(ApplyError::Conflicts(_)) => "conflict",
            Self::Apply(ApplyError::Protected(_)) => "protected",
            Self::Apply(ApplyError::Incomplete) => "incomplete",
            Self::Apply(ApplyError::UnknownPath { .. } | ApplyError::TwoPaths { .. }) => {
                "unknown_path"
            }
            Self::Moved { .. } | Self::Workspace(_) | Self::Guard(_) => "workspace",
            Self::Config(_) => "config",
            Self::Store(_) | Self::Apply(_) | Self::Io { .. } => "io",
        }
    }

    /// Returns advice on the next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Running(_) | Self::NotSeen { .. } => "wait for its end, or cancel it",
            Self::ReadOnly(_) | Self::Unchanged(_) | Self::NoList(_) | Self::NotApplied(_) => {
                "nothing is to be done"
            }
            Self::NotKept { .. } => "git may have the old state",
            Self::Branch { .. } => {
                "nothing was changed; `git revert` or `git reset` undoes commits"
            }
            Self::Discarded(_) => "run the task again",
            Self::Busy(_) => "try again in a moment",
            Self::Moved { .. } => "put the folder back, or take the patch of the run",
            Self::Workspace(_) => "`sandbox-mcp doctor` checks the workspace",
            Self::Apply(ApplyError::Conflicts(_)) => {
                "nothing was changed; leave these paths out by naming others in `only`, or put them right first"
            }
            Self::Apply(ApplyError::Protected(_)) => {
                "nothing was changed; a person must look at these paths and then allow them with `sandbox-mcp apply RUN --allow-protected`; or leave them out by naming others in `only`"
            }
            Self::Apply(ApplyError::Incomplete) => {
                "look at the patch of the run, or run a smaller task again"
            }
            Self::Apply(ApplyError::UnknownPath { .. }) => "the run's diff lists its paths",
            Self::Apply(ApplyError::NotUndone { .. }) => {
                "look into that folder; what can still be put back is when you apply again"
            }
            Self::Config(_) => "`sandbox-mcp config` shows where a setting comes from",
            Self::Guard(_) | Self::Store(_) | Self::Apply(_) | Self::Io { .. } => {
                "nothing was changed"
            }
        }
    }
}
