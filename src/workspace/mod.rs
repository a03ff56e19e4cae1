//! The folder that a run may touch, and what it changed there.
//!
//! This room knows paths. It must never know containers or agents.

mod changes;
mod path;

pub use changes::{Baseline, Change, ChangeKind, ChangeSummary};
pub use path::{Error, Mode, WorkspacePath};
