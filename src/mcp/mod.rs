//! The face that MCP hosts see: a server on standard input and output or over HTTP, with tools, prompts, and its
//! runs on record as resources.
//!
//! This room knows how hosts ask and how they want to be answered. It must never know containers:
//! a task becomes a [`crate::runner::Task`], and what the host is told comes from the run's
//! events and its report, or from its record; who wants to look at a project gets it from
//! [`crate::workspace::project`].
//!
//! ```text
//!  stdin ─▶ transport ─▶ rmcp ─▶ server ─▶ tools ─▶ Runner
//!  stdout ◀─ transport ◀─ rmcp ◀─ progress, logs ◀─ events
//!                             ◀─ result ◀────────── report
//! ```
//!
//! A run belongs to the machine and not to the session: `standing` tells of it from its record, whichever
//! process carries it out. `ending` holds the order of the end: notice it, cancel the runs, wait for their removal, answer
//! what is still open, leave.

mod asked;
mod complete;
mod elicit;
mod ending;
mod http;
mod incoming;
mod logs;
mod many;
mod next;
mod patience;
mod progress;
mod prompts;
mod questions;
mod resources;
mod result;
mod roots;
mod serve;
mod server;
mod session;
mod shorten;
mod standing;
mod tasks;
mod tools;
mod transport;
mod untrusted;

pub use http::{Listen, ListenError, TokenError, TokenFile, serve_http};
pub use serve::serve_stdio;
