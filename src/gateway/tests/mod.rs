//! The gateway as a sandbox meets it: over its socket, with a server behind it.

mod faults;
mod hostile;
mod lifetime;
mod passing;
