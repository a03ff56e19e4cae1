//! Why a workspace could not be guarded.

use std::io;

use crate::text::one_line;

/// Why a run that may write cannot be given its workspace. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("{what} `{}`: {source}", one_line(.path, 300))]
    Io { what: &'static str, path: String, source: io::Error },
    #[error("read the journal `{}`: line {line} makes no sense", one_line(.path, 300))]
    Journal { path: String, line: usize },
    #[error("make placeholders in a workspace whose lock is not held")]
    NotLocked,
    #[error(transparent)]
    Workspace(#[from] super::Error),
}

impl GuardError {
    pub(super) fn io(
        what: &'static str,
        path: &std::path::Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { what, path: path.to_string_lossy().into_owned(), source: source.into() }
    }
}
