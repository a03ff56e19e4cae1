//! The folder that a run may touch, and what it changed there.
//!
//! This room knows paths. It must never know containers or agents. What lies in a workspace is
//! hostile: nothing here follows a symbolic link, opens anything but folders and small regular
//! files, or executes anything.
//!
//! # Guarding a workspace that a run may write to
//!
//! 1. [`WriterLock::try_lock`], held to the end of all this.
//! 2. [`Placeholders::make`], so that absent protected places have something to mount on.
//! 3. [`protected`], which finds those as well; its places are mounted read-only.
//! 4. [`Before::take`] and [`Watch::start`]; [`Watch::look`] while the run goes on.
//! 5. When the container is gone for certain: [`Placeholders::remove`], then [`Before::sweep`].
//!    When that is not certain: [`Placeholders::leave`], and later, as after a crash,
//!    [`Placeholders::remove_journaled`].

mod changes;
pub mod changeset;
pub mod git;
mod git_programs;
mod gitconfig;
mod guard;
mod ignores;
mod journal;
pub mod layer;
mod linked;
mod lock;
mod material;
mod mode;
mod names;
mod path;
mod place;
mod placeholders;
pub mod project;
mod protect;
mod protected_names;
mod refuse;
mod scan;
mod sockets;
mod sweep;
mod walk;
mod watch;
mod written;

pub use changes::{Baseline, Change, ChangeKind, ChangeSummary, Commits, Pending, PendingFile};
pub use guard::GuardError;
pub use layer::{LayerError, View};
pub use lock::WriterLock;
pub use material::{MaterialError, check_material};
pub use mode::{Mode, NotAMode};
pub use path::{Error, Owner, WorkspacePath, is_project};
pub use place::{Kind, Obstacle, Protected};
pub use placeholders::{Leftover, Placeholders, Reaped};
pub use protect::{Protection, existing, protected};
pub use sockets::sockets;
pub use sweep::killed::{Killed, sweep_killed};
pub use sweep::{Before, Odd, SweepLimits, Swept, SweptItem};
pub use walk::Limits;
pub use watch::{Bounds, Exceeded, Watch, What};
pub use written::of_uri;

/// For fuzzing. Not an interface.
#[doc(hidden)]
pub mod fuzzing {
    /// What is put back of a repository's settings, and the names of what is dropped.
    pub fn harmless(bytes: &[u8]) -> (String, Vec<String>) {
        let harmless = super::sweep::harmless::harmless(bytes);
        (harmless.text, harmless.dropped)
    }
}
