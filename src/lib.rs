//! `sandbox-mcp` hands one coding task to a local agent in a fresh hardened container.
//!
//! # The way of a task
//!
//! ```text
//!  face            core                                                   edge
//!  cli run  ─┐
//!  mcp       ┴─▶ Task ─▶ runner ─▶ workspace  (what the agent may touch)
//!                          │  ├──▶ gateway    (all it may talk to)
//!                          │  ├──▶ sandbox ──▶ engine (Docker API)
//!                          │  └──▶ agent      (argv, configuration, event parser)
//!                          ▼
//!               Event stream ─▶ Report ─▶ history ─▶ back to the face
//! ```
//!
//! A [`runner::Task`] is what was asked. A [`runner::Run`] is one execution of it: an id, a stream
//! of [`runner::Event`]s and one closing [`runner::Report`]. Every face ([`cli`], [`mcp`]) consumes
//! the same `Run`; only the commands `build` and `doctor`, which are about the engine itself, look
//! past the runner. `runner/execute.rs` is the whole life of a run on
//! one page, and the place to start reading.
//!
//! # Which room to change
//!
//! | room | what it knows | what it must never know |
//! |---|---|---|
//! | [`cli`], [`mcp`] | how people and hosts ask and are answered | containers |
//! | [`runner`] | the order of a run, its verdict and its report | Docker's API, MCP |
//! | [`workspace`] | which folder, which mode, what changed | what an agent is |
//! | [`gateway`] | the sockets that lead out, who may pass, what passed | containers |
//! | [`sandbox`] | the policy, the image, the guest, removal | what the task is |
//! | [`agent`] | one coding agent's argv, configuration and events | where it runs |
//! | [`history`] | runs on disk | what the records mean |
//! | [`session`] | conversations that go on, on disk | what an agent keeps in them |
//! | [`model`] | where the model server is and what it can do | sandboxes |
//! | [`engine`] | the Docker Engine API | policy |
//! | [`config`] | every setting, its default and its source | what a setting does |
//!
//! Imports run one way, top to bottom of this table. `ids`, `text`, `files` and `stderr` are the ground
//! that all rooms stand on.

pub mod agent;
pub mod cli;
pub mod config;
pub mod engine;
mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod history;
pub mod ids;
pub mod mcp;
pub mod model;
pub mod runner;
pub mod sandbox;
pub mod session;
mod stderr;
pub mod text;
pub mod workspace;
