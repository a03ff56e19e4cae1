//! The end of a run in the mode direct on a view: its changes are applied, or wait.

use std::time::Duration;

use tokio::task::spawn_blocking;

use super::ChangeSummary;
use super::job::Job;
use super::outcome::{ApplyOptions, OutcomeError, carry_over};
use super::story::Story;
use crate::history::Entry;
use crate::ids::RunId;
use crate::workspace::changeset::read_manifest;
use crate::workspace::{Mode, Pending, PendingFile};

/// Most pending changes that a report names.
const NAMED: usize = 20;

/// Longest wait of an application at the end of a run for others that write to the workspace.
const TURN: Duration = Duration::from_secs(30);

/// Says that changes of a run in the mode direct wait, and how to decide on them.
fn left_pending(run: &RunId) -> String {
    format!(
        "the run did not end well, so its changes wait: `sandbox-mcp diff {run}` shows them, \
         `sandbox-mcp apply {run}` takes them, `sandbox-mcp discard {run}` lets them go"
    )
}

/// Applies the changes of a direct run that is good, as far as they can be without a person, and
/// tells what is left.
pub async fn close(job: &Job, is_good: bool, changes: &mut ChangeSummary, story: &mut Story) {
    if job.task.mode != Mode::Direct || changes.applied != Some(false) {
        return;
    }
    if !is_good {
        return story.remark(&left_pending(&job.id));
    }
    let (shared, id) = (job.shared.clone(), job.id.clone());
    let (workspace, config) = (job.task.workspace.clone(), job.task.config.clone());
    let applying = move || {
        let entry = Entry::of(&shared.state, &id).ok_or(OutcomeError::NoList(id))?;
        let manifest = read_manifest(&entry.changes())?;
        let manifest = manifest.ok_or_else(|| OutcomeError::NoList(entry.id().clone()))?;
        let options = ApplyOptions { partial: true, wait: Some(TURN), ..ApplyOptions::default() };
        carry_over(&shared, &entry, (&manifest, &workspace), &config, &options, &mut |told| {
            tracing::info!("{told}");
        })
    };
    let applied = match spawn_blocking(applying).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(error)) => {
            let id = &job.id;
            let told = format!(
                "the changes were not applied: {error}; they wait, and `sandbox-mcp apply {id}` \
                 tries again"
            );
            return story.remark(&told);
        }
        Err(error) => {
            tracing::error!("applying run {} broke down: {error}", job.id);
            return story.remark("the changes were not applied, because sandbox-mcp broke down");
        }
    };
    applied.remarks.iter().for_each(|remark| story.remark(remark));
    if applied.commits.is_some() {
        changes.commits.clone_from(&applied.commits);
    }
    for obeyed in &applied.obeyed {
        story.remark(&format!("{} was changed: {}", obeyed.path, obeyed.why));
    }
    for linked in &applied.linked {
        story.remark(&format!(
            "{linked} had another name (a hard link), which keeps the old content"
        ));
    }
    if let Some(path) = applied.not_undoable.first() {
        story.remark(&format!(
            "this cannot be undone: the old contents of {} files, such as {path}, are too much to \
             be kept",
            applied.not_undoable.len()
        ));
    }
    if applied.pending.is_empty() {
        changes.applied = Some(true);
        return;
    }
    let mut why: std::collections::HashMap<&str, String> = applied
        .conflicts
        .iter()
        .map(|conflict| {
            let (expected, found) = (&conflict.expected, &conflict.found);
            (&*conflict.path, format!("conflict: {found} where the run found {expected}"))
        })
        .collect();
    why.extend(
        applied.protected.iter().map(|need| (&*need.path, format!("protected: {}", need.why))),
    );
    let files = applied.pending.iter().take(NAMED).map(|path| PendingFile {
        why: why.get(&**path).cloned().unwrap_or_else(|| "it belongs to one of these".into()),
        path: path.clone(),
    });
    let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    let pending = Pending {
        count: count(applied.pending.len()),
        protected: count(applied.protected.len()),
        applied: count(applied.changed.len()),
        files: files.collect(),
    };
    let id = &job.id;
    story.remark(&format!(
        "{} of the changes wait for a decision: `sandbox-mcp diff {id}` shows them, and \
         `sandbox-mcp apply {id}{}` takes them",
        pending.count,
        if pending.protected > 0 { " --allow-protected" } else { "" }
    ));
    changes.pending = Some(pending);
}
