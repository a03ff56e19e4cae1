//! Every setting: its name, its default, and where its value came from.
//!
//! This room knows what can be set. It must never know what a setting does.

mod domain;
mod environment;
mod error;
mod file;
mod http;
mod keys;
mod layers;
mod openings;
mod project;
mod schema;
mod trust;
mod units;
mod validate;

pub use domain::{Domain, Name, NotADomain, NotAName};
pub use environment::{Environment, project_of_host, runtime_dir, state_dir};
pub use error::Error;
pub use http::{Disconnect, Http};
pub use keys::{Key, Kind, keys};
pub use layers::{Effective, LoadOptions, Origin, Override, load, load_for};
pub use openings::{Agent, Credential, Egress, Env, Git, Hooks, McpServer, Mount};
pub use project::{Effect, PROJECT_FILE, Project};
pub use schema::{
    Config, Engine, GitAccess, History, Image, Isolation, Keep, Limits, Mcp, Model, Profile,
    Sandbox, Source, Workspace,
};
pub use trust::{Standing, Trust, load_at};
pub use units::Size;
pub use validate::allowed;

#[cfg(test)]
mod docs_tests;
