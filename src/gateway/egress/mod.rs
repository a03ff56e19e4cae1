//! The one way to the internet: a proxy that lets a sandbox reach the names that a person allowed.
//!
//! ```text
//! sandbox ─▶ egress.sock ─▶ head      (well-formed? judged byte for byte)
//!                            │ rules  (an allowed name, an allowed port?)
//!                            │ network, address  (resolved once; every address on the internet?)
//!                            ├─▶ tunnel ─ hello  (CONNECT: TLS for that name and no other)
//!                            │      └─▶ intercept, authority  (a host with a credential)
//!                            └─▶ plain           (http: the request rebuilt)
//!                                   └─▶ meter ─▶ ledger ─▶ Traffic::Egress, EgressRecord
//! sandbox ─▶ port-N.sock ─▶ port     (a port of this machine that a person opened)
//! ```
//!
//! The proxy is there in every run. Where nothing is allowed it refuses everything, so that the
//! agent gets a clear answer and the run's record shows what was wanted.

mod address;
mod answer;
mod attempt;
mod authority;
mod credential;
mod door;
pub(super) mod head;
mod headers;
pub(super) mod hello;
mod intercept;
mod meter;
mod network;
mod plain;
mod port;
mod proxy;
mod rules;
#[cfg(test)]
mod tests;
mod tunnel;

pub use attempt::{Attempt, EgressRecord, Kind, Outcome, Refusal, TargetRecord};
pub use credential::Credential;
pub(super) use door::Door;
pub(super) use intercept::Interceptor;
pub(super) use network::{Internet, Network};
pub(super) use port::HostPort;
pub(super) use proxy::Proxy;
pub use rules::{Bounds, Egress};
