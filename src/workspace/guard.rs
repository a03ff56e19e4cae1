//! Errors of locks and looks at a workspace.

use std::io;

use crate::text::one_line;

/// An error of a lock or a look. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("{what} `{}`: {source}", one_line(.path, 300))]
    Io { what: &'static str, path: String, source: io::Error },
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
