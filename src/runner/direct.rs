//! The end of a run in the mode direct: its changes are applied, or wait.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::job::Job;
use super::outcome::{ApplyOptions, OutcomeError, carry_over};
use super::story::Story;
use super::{ChangeSummary, Status};
use crate::history::Entry;
use crate::ids::RunId;
use crate::workspace::changeset::{ApplyError, Conflict, NeedsYes, read_manifest};
use crate::workspace::{Mode, Pending, PendingFile};

/// Most pending changes that a report names.
const NAMED: usize = 20;

/// Longest wait of an application at the end of a run for others that write to the workspace.
const TURN: Duration = Duration::from_secs(30);

/// Says that changes of a run in the mode direct wait, and how to decide on them.
fn left_pending(run: &RunId, why: &str) -> String {
    format!(
        "{why}, so its changes wait: `sandbox-mcp diff {run}` shows them, \
         `sandbox-mcp apply {run}` takes them, `sandbox-mcp discard {run}` lets them go"
    )
}

/// Applies the changes of a direct run that ended well, as far as they can be without a person, and
/// tells what is left.
pub async fn close(
    job: &Job,
    status: Status,
    is_passed: bool,
    changes: &mut ChangeSummary,
    story: &mut Story,
) {
    if job.task.mode != Mode::Direct || changes.applied != Some(false) {
        return;
    }
    let settings = &job.task.config.workspace;
    if !settings.apply_on.contains(&status.name()) {
        return story.remark(&left_pending(&job.id, "the run did not end well"));
    }
    if !is_passed {
        return story.remark(&left_pending(&job.id, "`verify` did not pass"));
    }
    let partial = settings.partial;
    let (shared, id) = (job.shared.clone(), job.id.clone());
    let (workspace, config) = (job.task.workspace.clone(), job.task.config.clone());
    let applying = move || {
        let entry = Entry::of(&shared.state, &id).ok_or(OutcomeError::NoList(id))?;
        let manifest = read_manifest(&entry.changes())?;
        let manifest = manifest.ok_or_else(|| OutcomeError::NoList(entry.id().clone()))?;
        let options = ApplyOptions { partial, wait: Some(TURN), ..ApplyOptions::default() };
        carry_over(&shared, &entry, (&manifest, &workspace), &config, &options, &mut |told| {
            tracing::info!("{told}");
        })
    };
    let applied = match spawn_blocking(applying).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(OutcomeError::Apply(ApplyError::Protected(needs)))) => {
            let pending = all_pending(changes, named(&[], &needs));
            return tell(&job.id, pending, changes, story);
        }
        Ok(Err(OutcomeError::Apply(ApplyError::Conflicts(conflicts)))) => {
            let pending = all_pending(changes, named(&conflicts, &[]));
            return tell(&job.id, pending, changes, story);
        }
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
    let why = named(&applied.conflicts, &applied.protected);
    let paths = without_ways(&applied.pending);
    let files = paths.iter().take(NAMED).map(|path| {
        let known = why.iter().find(|file| file.path == **path).cloned();
        known.unwrap_or_else(|| PendingFile {
            path: (*path).clone(),
            why: "it belongs to one of these".into(),
        })
    });
    let pending = Pending {
        count: count(paths.len()),
        protected: count(why.iter().filter(|file| is_protected(file)).count()),
        applied: count(applied.changed.len()),
        files: files.collect(),
    };
    tell(&job.id, pending, changes, story);
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn is_protected(file: &PendingFile) -> bool {
    file.why.starts_with("protected")
}

/// The paths without folders that are only there for what is in them.
fn without_ways(paths: &[String]) -> Vec<&String> {
    let ways: HashSet<&str> = paths
        .iter()
        .flat_map(|path| Path::new(path).ancestors().skip(1))
        .filter_map(Path::to_str)
        .collect();
    paths.iter().filter(|path| !ways.contains(path.as_str())).collect()
}

/// The paths that stand in the way, with the reason of each.
fn named(conflicts: &[Conflict], needs: &[NeedsYes]) -> Vec<PendingFile> {
    let conflicts = conflicts.iter().map(|conflict| {
        let (expected, found) = (&conflict.expected, &conflict.found);
        let why = format!("conflict: {found} where the run found {expected}");
        PendingFile { path: conflict.path.clone(), why }
    });
    let paths: Vec<_> = needs.iter().map(|need| need.path.clone()).collect();
    let paths: HashSet<_> = without_ways(&paths).into_iter().collect();
    let needs = needs.iter().filter(|need| paths.contains(&need.path)).map(|need| PendingFile {
        path: need.path.clone(),
        why: format!("protected: {}", need.why),
    });
    conflicts.chain(needs).collect()
}

/// All changes of a run, of which `files` keep the others from being applied.
fn all_pending(changes: &ChangeSummary, mut files: Vec<PendingFile>) -> Pending {
    let protected = files.iter().filter(|file| is_protected(file)).count();
    files.truncate(NAMED);
    Pending { count: count(changes.files.len()), protected: count(protected), applied: 0, files }
}

fn tell(run: &RunId, pending: Pending, changes: &mut ChangeSummary, story: &mut Story) {
    story.remark(&format!(
        "{} of the changes wait for a decision: `sandbox-mcp diff {run}` shows them, and \
         `sandbox-mcp apply {run}{}` takes them",
        pending.count,
        if pending.protected > 0 { " --allow-protected" } else { "" }
    ));
    changes.pending = Some(pending);
}
