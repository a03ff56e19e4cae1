//! What somebody asks for in the matter of sessions.

use std::path::Path;

use super::{Error, SessionId, check};

/// The word for a conversation that is to begin.
pub const NEW: &str = "new";

/// Which conversation a task is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    New,
    GoOn(SessionId),
    Fork(SessionId),
}

impl Wanted {
    /// Reads what was asked for a task in `workspace`, and checks what can be checked without
    /// taking the session.
    pub fn read(
        state: &Path,
        asked: Option<&str>,
        fork: bool,
        workspace: &Path,
    ) -> Result<Option<Self>, Error> {
        match asked {
            None | Some(NEW) if fork => Err(Error::Fork),
            None => Ok(None),
            Some(NEW) => Ok(Some(Self::New)),
            Some(id) => {
                let id: SessionId = id.parse()?;
                check(state, &id, workspace)?;
                Ok(Some(if fork { Self::Fork(id) } else { Self::GoOn(id) }))
            }
        }
    }
}
