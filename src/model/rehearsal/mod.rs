//! The rehearsal model: a script that speaks the API of a model server, with real tool calls.
//!
//! It lets a person, `doctor --deep` and the README's first command see a whole run on a machine
//! without a model. It lists the folder, writes a note, reads it back and says what it saw, and it
//! says at every turn that it is no model. It keeps no state: each reply follows from the messages
//! it is given, as a model's would.

mod scene;
mod script;
mod wire;

pub use script::{Reply, reply};
pub use wire::respond;

/// The id under which the rehearsal offers itself.
pub const MODEL: &str = "rehearsal";
