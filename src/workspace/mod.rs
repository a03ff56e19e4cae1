//! The folder that a run may touch, and what it changed there.
//!
//! This room knows paths. It must never know containers or agents. What lies in a workspace is
//! hostile: nothing here follows a symbolic link, opens anything but folders and small regular
//! files, or executes anything.

mod changes;
mod ignores;
mod material;
mod mode;
mod path;
mod protect;
mod refuse;
mod walk;

pub use changes::{Baseline, Change, ChangeKind, ChangeSummary};
pub use material::{MaterialError, check_material};
pub use mode::{Mode, NotAMode};
pub use path::{Error, Owner, WorkspacePath};
pub use protect::{Kind, Obstacle, Protected, Protection, existing, protected};
pub use walk::Limits;
