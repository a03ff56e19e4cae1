//! Why a result was not carried over.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::super::{Alteration, RelPath, StoreError};
use crate::text::one_line;
use crate::workspace::GuardError;

/// A path that is not as the run found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conflict {
    /// The path itself, which may be no text.
    #[serde(skip)]
    pub at: RelPath,
    pub path: String,
    pub expected: String,
    pub found: String,
    pub advice: &'static str,
}

/// A path that tools on the host execute or trust, and why it counts as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NeedsYes {
    pub path: String,
    pub why: &'static str,
    /// Exactly what was looked at: a yes is for this, and for nothing that comes in its place.
    #[serde(skip)]
    pub change: Alteration,
}

/// A path that agents or shells on the host will follow, and why. It needs no yes, and is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obeyed {
    pub path: String,
    pub why: &'static str,
}

/// What somebody who may say so has said yes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Agreed {
    #[default]
    Nothing,
    These(Vec<NeedsYes>),
    Everything,
}

impl Agreed {
    /// Whether this was agreed to as it is now.
    pub(super) fn covers(&self, need: &NeedsYes) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(these) => these.contains(need),
            Self::Everything => true,
        }
    }
}

/// Why nothing was applied. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("apply the changes: the list of them ended at a bound, so some would be lost")]
    Incomplete,
    #[error("apply `{given}`: {}", instead(.nearest.as_deref()))]
    UnknownPath { given: String, nearest: Option<String> },
    #[error("apply `{given}`: more than one path is shown like that; name it as `{escaped}`")]
    TwoPaths { given: String, escaped: String },
    #[error("apply the changes: {} of them conflict with what is in the workspace now", .0.len())]
    Conflicts(Vec<Conflict>),
    #[error("apply the changes: {} of them are in places that tools on the host trust", .0.len())]
    Protected(Vec<NeedsYes>),
    #[error("apply the changes: `{path}` is git's own, which is never carried over")]
    Git { path: String, at: RelPath },
    #[error("apply the changes: {0}")]
    Store(#[from] StoreError),
    #[error("apply `{}`: failed to {source}", one_line(.path, 300))]
    Content { path: String, source: StoreError },
    #[error("{what} `{}`: {source}", one_line(.path, 300))]
    Io { what: &'static str, path: String, source: io::Error },
    #[error(
        "{cause}; and not all is as it was before ({why}): what is left of that is in {}",
        .staging.display()
    )]
    NotUndone { cause: Box<ApplyError>, why: String, staging: PathBuf },
    #[error("apply changes in a workspace whose lock is not held")]
    NotLocked,
    #[error("{0}")]
    Guard(#[from] GuardError),
}

fn instead(path: Option<&str>) -> String {
    match path {
        Some(path) => format!("the run changed no such path; the nearest is `{path}`"),
        None => "the run changed no such path".to_owned(),
    }
}

impl ApplyError {
    pub(super) fn content(path: &RelPath) -> impl FnOnce(StoreError) -> Self {
        let path = path.to_string();
        move |source| Self::Content { path, source }
    }

    pub(super) fn io(what: &'static str, path: &RelPath) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Io { what, path, source }
    }
}
