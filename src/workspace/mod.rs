//! The folder that a run may touch, and what it changed there.
//!
//! This room knows paths. It must never know containers or agents. What lies in a workspace is
//! hostile: nothing here follows a symbolic link, opens anything but folders and small regular
//! files, or executes anything.

mod changes;
mod gitconfig;
mod guard;
mod ignores;
mod journal;
mod linked;
mod lock;
mod material;
mod mode;
mod names;
mod path;
mod placeholders;
mod protect;
mod refuse;
mod scan;
mod sweep;
mod walk;
mod watch;

pub use changes::{Baseline, Change, ChangeKind, ChangeSummary};
pub use guard::GuardError;
pub use lock::WriterLock;
pub use material::{MaterialError, check_material};
pub use mode::{Mode, NotAMode};
pub use path::{Error, Owner, WorkspacePath};
pub use placeholders::{Leftover, Placeholders, Reaped};
pub use protect::{Kind, Obstacle, Protected, Protection, existing, protected};
pub use sweep::{Before, Odd, SweepLimits, Swept, SweptItem};
pub use walk::Limits;
pub use watch::{Bounds, Exceeded, Watch, What};
