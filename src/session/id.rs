//! The names of sessions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::RunId;

const PREFIX: &str = "ses-";

/// The id of a session: the time of its beginning, as runs have it, and a word that tells it from
/// a run's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

/// A text that is not a session id.
#[derive(Debug, thiserror::Error)]
#[error(
    "`session` is `{}`, which is no session's id (they look like ses-20260131-235959-k3f9); leave \
     it out, or say `new`",
    crate::text::one_line(.0, 60)
)]
pub struct NotASessionId(String);

impl SessionId {
    pub(super) fn new() -> Self {
        Self(format!("{PREFIX}{}", RunId::new()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = NotASessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_a_run = text.strip_prefix(PREFIX).is_some_and(|rest| rest.parse::<RunId>().is_ok());
        if of_a_run { Ok(Self(text.to_owned())) } else { Err(NotASessionId(text.to_owned())) }
    }
}

impl TryFrom<String> for SessionId {
    type Error = NotASessionId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_one_is_one() {
        let id = SessionId::new();
        assert_eq!(id.as_str().parse::<SessionId>().expect("its own form"), id);
        for wrong in ["", "new", "20260131-235959-k3f9", "ses-", "ses-../../etc", "ses-2026"] {
            assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
        }
    }
}
