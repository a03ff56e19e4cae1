//! All that a sandbox may talk to: unix sockets in one private folder, one per permitted peer.
//!
//! ```text
//! sandbox ─▶ model.sock ─▶ listener ─▶ relay ─▶ route    (which requests pass)
//!                                       │     ─▶ request  (rebuilt from nothing)
//!                                       │     ─▶ model::Upstream
//!                                       ◀── pump     (what comes back, read in passing)
//!                                            └─▶ ledger ─▶ Traffic, Record
//! ```
//!
//! The model relay is the only peer so far. An egress proxy and host ports are siblings of
//! `relay.rs`: each binds its own socket in the same folder, is served by the same `listener`, and
//! writes into the same `ledger`.
//!
//! This room knows who may pass and counts what passed. It must never know containers.

mod error;
mod folder;
mod gate;
mod ledger;
mod listener;
mod pump;
mod relay;
mod request;
mod respond;
mod route;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use gate::{Gateway, Limits, Options};
pub use ledger::{Record, Traffic};
