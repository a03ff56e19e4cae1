//! Settling what dead processes left, before a run begins.

use tokio::task::spawn_blocking;

use super::shared::Shared;
use super::story::Story;
use super::task::Checked;
use crate::workspace::changeset;

/// Undoes or finishes what a dead process left half applied in the workspace, so that no run sees
/// it, and removes what dead runs left on the engine.
pub async fn settle(shared: &Shared, task: &Checked, story: &mut Story) {
    let journals = shared.journals();
    if changeset::is_unsettled(&journals, task.workspace.path()) {
        match spawn_blocking(move || changeset::recover(&journals)).await {
            Ok(recovered) => recovered.told.iter().for_each(|told| story.remark(told)),
            Err(error) => tracing::error!("settling a workspace broke down: {error}"),
        }
    }
    if crate::sandbox::has_abandoned(&shared.runtime) {
        shared.host.look_again(shared.config.engine.host.as_deref()).await;
    }
}
