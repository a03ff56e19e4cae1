//! One task from asking to report: the order of things, the verdict, and the undoing.
//!
//! Faces hand in a [`Task`] and get a [`Run`]: its id, its [`Event`]s, a way to cancel it, and one
//! closing [`Report`]. This room knows the rooms below by their purpose; it must never know
//! Docker's API or any host's protocol.

mod cancel;
mod commits;
mod deadlines;
mod direct;
mod earlier;
mod error;
mod event;
mod execute;
mod follow;
mod git;
mod hook;
mod host;
mod isolated;
mod job;
mod kept;
mod kept_there;
mod line;
mod live;
mod many;
mod openings;
mod outcome;
mod overseer;
mod owner;
mod past;
mod prepare;
mod probe;
mod pulse;
mod queue;
mod report;
mod resume;
mod room;
mod run;
mod session;
mod settle;
mod shared;
mod story;
mod survey;
mod task;
mod undo;
mod user;
mod verdict;
mod verify;
mod work;

pub use cancel::{CancelReason, Canceller};
pub use commits::{commits_of, forget_commits};
pub use error::Error;
pub use event::{Event, EventKind, Phase};
pub use many::{Many, Pick, Step, best, is_verified};
pub use outcome::{
    Applied, ApplyOptions, Discarded, OutcomeError, changes_now, changes_of, patch_of,
};
pub use owner::{OwnerLog, Stopped, own, stop};
pub use past::{Glance, PastReport, report_now, told};
pub use probe::noted as noted_agent;
pub use report::{
    ChangeSummary, EgressReport, EgressTarget, Failure, Receipt, Report, SandboxReport, Status,
    Timing, ToolUse, Usage, View, WorkspaceReport,
};
pub use resume::{Continued, Reason};
pub use run::{Run, Runner, StartError};
pub use session::SessionReport;
pub use task::{Task, TaskError};
pub use undo::Undone;
pub use user::user_for;
pub use verify::{Check, Verify};
