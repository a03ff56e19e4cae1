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
//! The egress proxy and the host ports (`egress/`) are siblings of the relay: each has its own
//! socket in the same folder, is served by the same `listener`, and writes into the same `ledger`.
//!
//! This room knows who may pass and counts what passed. It must never know containers.

mod egress;
mod error;
mod folder;
mod gate;
mod ledger;
mod listener;
mod pattern;
mod pump;
mod relay;
mod request;
mod respond;
mod route;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use egress::{
    Attempt, Bounds, Credential, Egress, EgressRecord, Kind, Outcome, Refusal, TargetRecord,
};
pub use error::Error;
pub use gate::{Gateway, Limits, Options};
pub use ledger::{Record, Traffic};

/// The parsers that read a sandbox's own bytes, for fuzzing. Not an interface.
#[doc(hidden)]
pub mod fuzzing {
    pub use super::egress::head::{Bad, Head, parse as proxy_head};
    pub use super::egress::hello::{Parsed, parse as client_hello};

    /// The body of a request to the model, as it is passed on.
    pub fn model_request(body: &[u8], model: &str) -> Option<bytes::Bytes> {
        super::request::rebuild(body, model).ok().map(|rebuilt| rebuilt.body)
    }
}
