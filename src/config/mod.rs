//! Every setting: its name, its default, and where its value came from.
//!
//! This room knows what can be set. It must never know what a setting does.

mod layers;
mod schema;
mod units;

pub use layers::{Effective, Error, Origin, load};
pub use schema::{
    Config, Engine, History, Image, Limits, Mcp, Model, Profile, Sandbox, Source, Workspace,
};
pub use units::Size;
