//! The kinds of faults of a model server, their names, and what usually mends each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong. The names are stable: they appear in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    ConnectionRefused,
    HostNotFound,
    /// No route, network down, or the connection broke while it was made.
    HostUnreachable,
    ConnectTimeout,
    Tls,
    FirstByteTimeout,
    Stalled,
    StreamCut,
    HttpStatus,
    /// The server is there, and its model is not in memory yet.
    Loading,
    /// Neither JSON nor an event stream, or a garbled one.
    NotJson,
    /// The server reported an error in the middle of an answer that began well.
    StreamError,
    ContextOverflow,
    Unauthorized,
    ModelNotFound,
    RateLimited,
    /// None of many tool calls could be carried out.
    UnusableCalls,
    /// Our own limit on a run's model requests.
    BudgetExhausted,
}

impl FaultKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::HostNotFound => "host_not_found",
            Self::HostUnreachable => "host_unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::Stalled => "stalled",
            Self::StreamCut => "stream_cut",
            Self::HttpStatus => "http_status",
            Self::Loading => "loading",
            Self::NotJson => "not_json",
            Self::StreamError => "stream_error",
            Self::ContextOverflow => "context_overflow",
            Self::Unauthorized => "unauthorized",
            Self::ModelNotFound => "model_not_found",
            Self::RateLimited => "rate_limited",
            Self::UnusableCalls => "unusable_calls",
            Self::BudgetExhausted => "budget_exhausted",
        }
    }

    /// No usable answer could be had at all, as opposed to one that says no.
    pub fn is_unreachable(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused
                | Self::HostNotFound
                | Self::HostUnreachable
                | Self::ConnectTimeout
                | Self::Tls
                | Self::FirstByteTimeout
        )
    }

    /// What usually mends it.
    pub(super) fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::ConnectionRefused => {
                "start the model server, or set `model.url` to where it listens"
            }
            Self::HostNotFound | Self::HostUnreachable | Self::ConnectTimeout => {
                "check the host in `model.url` and that this machine can reach it"
            }
            Self::Tls => {
                "check the server's certificate; name the authority that it is by in \
                 `model.ca_bundle`, or put it into this machine's trust store"
            }
            Self::Loading => {
                "the server is still loading its model; try again when it is ready, or raise \
                 `model.first_byte_timeout` to wait longer"
            }
            Self::FirstByteTimeout => {
                "the server may still be loading the model or reading a long prompt; raise \
                 `model.first_byte_timeout` if it is only slow"
            }
            Self::Stalled => {
                "look at the server's log; raise `model.stall_timeout` if it is only slow"
            }
            Self::StreamCut | Self::StreamError => {
                "look at the server's log: it may have crashed, restarted or run out of memory"
            }
            Self::NotJson => "check that `model.url` is an OpenAI-compatible API, with `/v1`",
            Self::ContextOverflow => {
                "load the model with a longer context (32768 tokens or more), or give a smaller task"
            }
            Self::Unauthorized => {
                "put the server's key into the environment variable that `model.api_key_env` names"
            }
            Self::ModelNotFound => "set `model.model` to one that the server lists",
            Self::RateLimited => "wait, or lower `limits.concurrency`",
            Self::BudgetExhausted => "raise `limits.max_requests` if the task needs more steps",
            Self::UnusableCalls => {
                "switch on tool calling in the server, and use a model trained for tools"
            }
            Self::HttpStatus => return None,
        })
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
