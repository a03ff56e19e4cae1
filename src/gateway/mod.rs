//! All that a sandbox may talk to: unix sockets in one private folder, one per permitted peer.
//!
//! ```text
//! sandbox ─▶ model.sock ─▶ listener ─▶ relay ─▶ route    (which requests pass)
//!                                       │     ─▶ request  (rebuilt from nothing)
//!                                       │     ─▶ model::Upstream
//!                                       ◀── pump     (what comes back: read, and written anew)
//!                                            ├─▶ canonical (the one form that an agent gets)
//!                                            └─▶ ledger ─▶ Traffic, Record
//! ```
//!
//! The egress proxy and the host ports (`egress/`) are siblings of the relay: each has its own
//! socket in the same folder, is served by the same `listener`, and writes into the same `ledger`.
//!
//! This room knows who may pass and counts what passed. It must never know containers.

mod canonical;
mod dialect;
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
mod walk;

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
        super::request::rebuild(body, model, &super::dialect::Dialect::default())
            .ok()
            .map(|rebuilt| rebuilt.body)
    }
    /// What an agent gets of a streamed answer whose bytes are these.
    pub fn relayed<'a>(
        chunks: impl Iterator<Item = &'a [u8]>,
        key: &str,
    ) -> Result<bytes::Bytes, crate::model::Fault> {
        use crate::model::{Reader, Secret, Secrets};

        let mut reader = Reader::new(&Secrets::new(&Secret::new(key)));
        let mut writer = super::canonical::Writer::new("the-model", false);
        let mut out = bytes::BytesMut::new();
        let mut pieces = Vec::new();
        for chunk in chunks {
            reader.push(chunk, &mut pieces)?;
            if reader.answer().is_done() {
                break;
            }
        }
        reader.finish(&mut pieces)?;
        for piece in &pieces {
            writer.piece(piece, &mut out);
        }
        writer.end(reader.answer(), &mut out);
        Ok(out.freeze())
    }
}
