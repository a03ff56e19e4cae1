//! One hardened container: what it may do, what it is made from, how it is started and removed.
//!
//! This room knows policy, image and guest. It must never know what the task is or who asked.

mod container;
mod generated;
mod guest;
pub mod image;
mod labels;
mod listing;
mod mounted;
mod pause;
mod pipe;
mod place;
mod policy;
mod reaper;
mod receipt;
mod transfer;
mod translate;

pub use container::{GUEST_LINE_LIMIT, Sandbox, Spec, Usage};
pub use generated::{identity_mounts, mask_mount};
pub use guest::{DEADLINE, Ended, Line, OVERGROWN, OWNER_GONE, Order, Overrun};
pub use labels::{Labels, OWNER_LABEL, RUN_LABEL};
pub use listing::{EntrySeen, FolderSeen, KindSeen};
pub use place::place;
pub use policy::{Door, Mount, Overlay, Policy, Tmpfs, User};
pub use policy::{NO_CPU_LIMIT, NO_MEMORY_LIMIT, NO_PIDS_LIMIT, ROOT_INSIDE};
pub use reaper::{
    RunFolder, has_abandoned, reap, reap_files, reap_folders, reap_kept, reap_volumes,
};
pub use receipt::Receipt;
pub use transfer::{Coming, Copies, Sending, nanoseconds};

/// The reader of PID 1's words, for fuzzing. Not an interface.
pub mod fuzzing {
    pub fn pipe(bytes: &[u8]) {
        super::pipe::fuzz(bytes);
    }
}

/// The path of a workspace inside that cannot have its own.
pub const WORKSPACE: &str = "/workspace";
/// The certificate of a run's authority inside, where it has one.
pub const AUTHORITY: &str = "/run/sandbox/authority.pem";
/// Where an agent that goes on with a conversation keeps it.
pub const SESSION: &str = "/run/session";
/// The port on the sandbox's own loopback behind which the model is.
pub const MODEL_PORT: u16 = 4141;
/// The port behind which the egress proxy is.
pub const EGRESS_PORT: u16 = 4142;
/// Where programs inside find the certificate authorities to trust, when one of ours is among
/// them. In the home folder, which is made anew for each run.
pub const AUTHORITIES: &str = "/home/agent/.authorities.pem";

/// Why there is no sandbox, or none that may be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] crate::engine::Error),
    #[error("the image {image} is not there; run `sandbox-mcp build`")]
    NoImage { image: String },
    #[error("no base image: {why}. Run `scripts/base-image` of the source, or set `image.base`")]
    NoBase { why: String },
    #[error(
        "`image.name` is {image}, a ready image, which is not built here; get a newer one, or remove \
         `image.name` to have one built"
    )]
    Ready { image: String },
    #[error("failed to {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("`sandbox.user` is `{given}`; write uid:gid as numbers, neither of them 0")]
    User { given: String },
    #[error(
        "{path} belongs to root, and a sandbox never runs as root; give the folder to a user \
         (`chown -R 1000:1000 {path}`), or set `sandbox.user`"
    )]
    RootOwned { path: String },
    #[error(
        "a rootless Docker makes its user root inside, who could read what the sandbox's first \
         process says; use a rootless Podman, or go on with `sandbox.accept = [\"{ROOT_INSIDE}\"]`"
    )]
    RootInside,
    #[error("the sandbox did not report within {seconds} seconds{said}")]
    Silent { seconds: u64, said: String },
    #[error("the sandbox was hung up")]
    Hung,
    #[error("what the sandbox's first process says is {0}, so the run was ended")]
    Wrong(#[from] pipe::Wrong),
    #[error(
        "what the sandbox's first process says is {0}; if the image is of another version of \
         sandbox-mcp, make it again with `sandbox-mcp build`"
    )]
    OtherVersion(pipe::Wrong),
    #[error("a word of the sandbox's first process makes no sense, so the run was ended")]
    NoSense,
    #[error("the sandbox ended before it was ready (exit code {code}){said}")]
    Stillborn { code: i64, said: String },
    #[error("the sandbox is not what the policy says, so nothing was started in it: {}", .0.join("; "))]
    Mismatch(Vec<String>),
    #[error("the sandbox did not tell its folders: {why}")]
    NoListing { why: String },
    #[error("the volume {volume} with the run's files is gone from the engine")]
    Gone { volume: String },
    #[error("failed to {what} the engine's machine: {why}")]
    Transfer { what: &'static str, why: String },
    #[error("the sandbox cannot be paused: {why}")]
    NotPaused { why: &'static str },
    #[error("the image {image} holds no agent that can be driven: {said}")]
    NoAgent { image: String, said: String },
}
