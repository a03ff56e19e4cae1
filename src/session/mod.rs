//! Conversations that go on: `sessions/<id>/` below the state folder, with
//!
//! | file | what |
//! |---|---|
//! | `session.json` | which workspace it is about, the agent's own name for it, its runs |
//! | `agent/` | the agent's state, mounted into the sandbox of the session's next run |
//! | `lock` | held by the run that has the session: no two sandboxes ever share one |
//!
//! The agent writes into its folder what it likes, so nothing of it is read here, and it is copied
//! (for a fork) as hostile content. This room must never know what an agent keeps there.

mod id;
mod retention;
mod store;
mod wanted;

pub use id::{NotASessionId, SessionId};
pub use retention::prune;
pub use store::{Error, Glance, Held, check, check_known, create, fork, list, remove, take};
pub use wanted::{NEW, Wanted};

use std::path::{Path, PathBuf};

const NOTE: &str = "session.json";
const LOCK: &str = "lock";
const AGENT: &str = "agent";

fn folder_of_sessions(state: &Path) -> PathBuf {
    state.join("sessions")
}

fn folder_of(state: &Path, session: &SessionId) -> PathBuf {
    folder_of_sessions(state).join(session.as_str())
}
