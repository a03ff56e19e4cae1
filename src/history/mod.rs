//! Runs on disk, written as they happen: `runs/<id>/` below the state folder, with
//!
//! | file | what |
//! |---|---|
//! | `owner` | the process that writes here: a run without a report is over when that is gone |
//! | `owner.log` | the log of that process, where it had no terminal |
//! | `task.json` | what was asked |
//! | `events.jsonl` | what happened, a line each |
//! | `agent.log` | what the agent printed besides |
//! | `egress.jsonl` | what the sandbox tried to reach |
//! | `changes.json` | what the run changed in its own view of the workspace |
//! | `changes.patch` | the same as a patch for `git apply` |
//! | `blobs/` | the new contents, each under its SHA-256 |
//! | `applied.json` | what became of those changes |
//! | `before/` | what applying them replaced, to be put back |
//! | `run.json` | the closing report; the run is over when it is there |
//!
//! Versions read each other's records: files may be missing, and what is in them is handed on as
//! it is. This room knows files and records. It must never know what a record means.

mod entry;
mod find;
mod follow;
mod record;
mod retention;
mod tree;

pub use entry::{Entry, Part, State};
pub use find::{NotFound, find, runs};
pub use follow::{Follow, Next};
pub use record::{Record, close, owner_log};
pub use retention::{Removed, Retention, prune, remove, size};
pub use tree::remove_tree;

use std::path::{Path, PathBuf};

use crate::ids::RunId;

const OWNER: &str = "owner";
const OWNER_LOG: &str = "owner.log";
const TASK: &str = "task.json";
const EVENTS: &str = "events.jsonl";
const LOG: &str = "agent.log";
/// The audit log of what a sandbox tried to reach.
const EGRESS: &str = "egress.jsonl";
const CHANGES: &str = "changes.json";
const PATCH: &str = "changes.patch";
const BLOBS: &str = "blobs";
/// The folder of what applying the changes replaced.
const BEFORE: &str = "before";
const COMMITS: &str = "commits.json";
const LIVE: &str = "live.json";
const LOOK: &str = "look";
const ASK: &str = "ask";
const APPLIED: &str = "applied.json";
const REPORT: &str = "run.json";

/// Why something of a run is not on disk, or cannot be read from it.
#[derive(Debug, thiserror::Error)]
#[error("failed to keep, read or remove {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

impl Error {
    fn of(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self { path, source }
    }
}

fn folder_of_runs(state: &Path) -> PathBuf {
    state.join("runs")
}

fn folder_of(state: &Path, run: &RunId) -> PathBuf {
    folder_of_runs(state).join(run.as_str())
}
