//! What the server over HTTP may be told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a run when the connection breaks that waits for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disconnect {
    /// It goes on, as one in the background.
    #[default]
    Keep,
    /// It is cancelled.
    Cancel,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Listen also on addresses that other machines reach, as with `--allow-remote`.
    pub allow_remote: bool,
    /// More names that clients may call this server by, with the port where it is not 80 or 443:
    /// those of a proxy in front of it. The loopback's own always may.
    #[schemars(example = ["mcp.example.org"])]
    pub allowed_hosts: Vec<String>,
    /// More web pages that may call it from a browser. Those of the loopback always may.
    #[schemars(example = ["https://chat.example.org"])]
    pub allowed_origins: Vec<String>,
    /// What becomes of a run when the connection breaks that waits for it: it goes on in the
    /// background, or it is cancelled. From protocol 2026-07-28 on it is always cancelled.
    pub disconnect: Disconnect,
    /// Most sessions at once; the one that has been idle longest makes room for a new one.
    pub sessions: usize,
    /// Seconds after which a session without a call and without a connection is forgotten.
    pub session_idle: u64,
    /// Most connections of clients at once; others wait. Without the token a connection has no part
    /// in them.
    pub connections: usize,
    /// Seconds between two signs of life on an open stream.
    pub ping: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            allow_remote: false,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            disconnect: Disconnect::Keep,
            sessions: 256,
            session_idle: 14_400,
            connections: 256,
            ping: 15,
        }
    }
}
