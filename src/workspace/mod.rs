//! The folder that a run may touch, and what it changed there.
//!
//! This room knows paths. It must never know containers or agents. What lies in a workspace is
//! hostile: nothing here follows a symbolic link, opens anything but folders and small regular
//! files, or executes anything.

mod changes;
pub mod changeset;
pub mod git;
mod git_programs;
mod gitconfig;
mod guard;
mod ignores;
pub mod layer;
mod lock;
mod material;
pub mod mirror;
mod mode;
mod mounts;
mod names;
mod path;
mod place;
pub mod project;
mod protected_names;
mod refuse;
mod remove;
mod sockets;
mod walk;
mod watch;
mod written;

pub use changes::{Change, ChangeKind, ChangeSummary, Commits, Pending, PendingFile};
pub use guard::GuardError;
pub use layer::{LayerError, View};
pub use lock::FolderLock;
pub use material::{MaterialError, check_material};
pub use mode::{Mode, NotAMode};
pub use path::{Error, Owner, WorkspacePath, is_project};
pub use place::{Kind, Obstacle, Place, existing, led_to};
pub use sockets::sockets;
pub use watch::{Bounds, Exceeded, Watch, What};
pub use written::of_uri;

/// For fuzzing. Not an interface.
#[doc(hidden)]
pub mod fuzzing {
    /// What is put back of a repository's settings, and the names of what is dropped.
    pub fn harmless(bytes: &[u8]) -> (String, Vec<String>) {
        let harmless = super::git::harmless::harmless(bytes);
        (harmless.text, harmless.dropped)
    }
}
