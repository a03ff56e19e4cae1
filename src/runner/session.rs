//! The conversation that a run goes on with, or begins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use super::Error;
use super::overseer::{Overseen, Overseer};
use super::shared::Shared;
use super::task::Checked;
use crate::ids::RunId;
use crate::session::{self, Held, SessionId, Wanted};
use crate::workspace::layer::copy_folder;
use crate::workspace::{Bounds, Watch};

/// How much an agent may keep of one conversation: room for years of talk, and for no disk.
const ROOM: Bounds = Bounds { bytes: 1 << 30, files: 10_000 };

/// What a report says of the conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionReport {
    /// To go on with.
    #[schemars(with = "String")]
    pub id: SessionId,
    /// Whether it knew anything before this run.
    pub resumed: bool,
}

/// Takes the session for this run alone.
pub async fn take(
    shared: &Shared,
    task: &Checked,
    user: (u32, u32),
) -> Result<Option<Held>, Error> {
    let Some(wanted) = task.session.clone() else { return Ok(None) };
    if crate::sandbox::has_abandoned(&shared.runtime) {
        // The lock of a run that was killed is free before its container is gone.
        shared.host.look_again(shared.config.engine.host.as_deref()).await;
    }
    let (state, workspace) = (shared.state.clone(), task.workspace.path().to_owned());
    let taking = spawn_blocking(move || {
        let held = match &wanted {
            Wanted::New => session::create(&state, &workspace)?,
            Wanted::GoOn(id) => session::take(&state, id, &workspace)?,
            Wanted::Fork(id) => session::fork(&state, id, &workspace, |from, to| {
                copy_folder(from, to, ROOM).map_err(std::io::Error::other)
            })?,
        };
        held.hand_over(user.0, user.1)?;
        Ok(held)
    });
    taking.await.map_err(|_| Error::Looking)?.map(Some)
}

/// Adds a watch over the growth of what the agent keeps.
pub async fn oversee(
    overseer: Option<Overseer>,
    held: Option<&Held>,
) -> Result<Vec<Overseer>, Error> {
    let mut overseers = Vec::from_iter(overseer);
    if let Some(held) = held {
        let (folder, sign) = (held.agent_folder(), held.sign());
        let watch = spawn_blocking(move || Watch::start(&folder, ROOM));
        let watch = watch.await.map_err(|_| Error::Looking)??;
        overseers.push(Overseer::new(watch, Overseen::Overremembered, sign));
    }
    Ok(overseers)
}

/// Notes what became of the conversation and gives it back, if the container is `gone` for
/// certain. One that had not even begun is forgotten.
pub fn close(held: Held, run: &RunId, name: Option<&str>, gone: bool) -> Option<SessionReport> {
    if !gone {
        // No other sandbox may have it for as long as we live, which the container does not outlive.
        std::mem::forget(held);
        return None;
    }
    let told = |error: &session::Error| tracing::error!("the session of run {run}: {error}");
    let report = SessionReport { id: held.id().clone(), resumed: held.agent_session().is_some() };
    if held.is_new() && name.is_none() {
        let _ = held.discard().inspect_err(told);
        return None;
    }
    held.keep(run, name).inspect_err(told).ok()?;
    Some(report)
}
