//! Where the model server is, what it can do, and how it fails.
//!
//! ```text
//! discover ──▶ Endpoint ──▶ Upstream ──▶ bytes ──▶ Reader ──▶ Piece, Answer
//!    │ (which server,          │ (one request, every way it fails    │ (one form of what all servers
//!    │  which model, limits)   │  is a Fault)                        │  say, and its sums)
//!    └─ probe, native          └─ the network, or the rehearsal      └─ read by gateway and preflight
//! ```
//!
//! This room knows model servers. It must never know sandboxes, the gateway or the runner.

mod address;
mod answer;
mod calls;
mod client;
mod credentials;
mod discover;
mod endpoint;
mod error;
mod fault;
mod halves;
mod kind;
mod native;
mod patience;
mod piece;
pub mod preflight;
mod probe;
mod reader;
mod redact;
pub mod rehearsal;
pub mod sse;
#[cfg(test)]
pub(crate) mod testing;
mod upstream;
mod words;
mod written_call;

pub use answer::{Answer, Ending, Usage};
pub use credentials::Credentials;
pub use discover::discover;
pub use endpoint::{Endpoint, LimitsOrigin, Secret};
pub use error::{Attempt, Error};
pub use fault::Fault;
pub use kind::FaultKind;
pub use patience::Patience;
pub use piece::{Piece, ToolCall, redact};
pub use reader::Reader;
pub use redact::{Redactor, Secrets};
pub use upstream::{Chunks, Response, Upstream};
pub use written_call::written_call;
