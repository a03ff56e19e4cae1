//! Looking at a run while its agent works, and applying what it has changed so far.
//!
//! ```text
//!  whoever asks (`diff`, `apply`)                    the run's process
//!    holds the record's lock
//!    asks by the socket `look` ─────────────────▶    pauses the agent, looks, collects into `look/`
//!    reads `look/`, applies, lets go    ◀────────    says so, and lets the agent go on
//! ```
//!
//! The socket is in the run's private folder, and there only while the agent works.

mod answer;
mod ask;

pub(super) use answer::{Asks, Looker};
pub(super) use ask::{Look, apply, look};

use serde::{Deserialize, Serialize};

use crate::workspace::changeset::RelPath;

const SOCKET: &str = "look";

/// Words to the run's process, in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Look,
    /// Also find out what is being written.
    LookTwice,
}

/// Answer of the run's process, in one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Looked {
        /// Paths that changed in the last moment.
        busy: Vec<RelPath>,
        has_moved_folder: bool,
    },
    Failed(String),
}
