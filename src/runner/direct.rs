//! The end of a run in the mode direct: its changes are applied, or wait.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::job::Job;
use super::outcome::{ApplyOptions, OutcomeError, carry_over};
use super::story::Story;
use super::{ChangeSummary, Status};
use crate::history::Entry;
use crate::ids::RunId;
use crate::text::count;
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
        let wait = Some(TURN);
        let options = ApplyOptions { partial, wait, hold_checked: true, ..ApplyOptions::default() };
        carry_over(&shared, &entry, (&manifest, &workspace), &config, &options, &mut |told| {
            tracing::info!("{told}");
        })
    };
    let applied = match spawn_blocking(applying).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(OutcomeError::Apply(ApplyError::Protected(needs)))) => {
            let pending = Found { conflicts: &[], needs: &needs }.all(changes);
            return tell(&job.id, pending, changes, story);
        }
        Ok(Err(OutcomeError::Apply(ApplyError::Conflicts(conflicts)))) => {
            let pending = Found { conflicts: &conflicts, needs: &[] }.all(changes);
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
    let merged = applied.changed.iter().filter(|(word, _)| *word == "merged");
    for (_, path) in merged.take(NAMED) {
        story.remark(&format!("{path} has your changes and the run's: both were put together"));
    }
    for obeyed in &applied.obeyed {
        story.remark(&format!("{} was changed: {}", obeyed.path, obeyed.why));
    }
    for linked in &applied.linked {
        story.remark(&format!(
            "{linked} had another name (a hard link), which keeps the old content"
        ));
    }
    for mounted in &applied.mounted {
        story.remark(&format!(
            "{mounted} is mounted by itself elsewhere, such as in a container, which sees the old \
             content until it is started again"
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
    let found = Found { conflicts: &applied.conflicts, needs: &applied.protected };
    let paths = without_ways(applied.pending.iter().map(String::as_str));
    let pending = found.pending(paths.len(), applied.changed.len(), paths);
    tell(&job.id, pending, changes, story);
}

/// The paths that stand in the way of an application.
struct Found<'a> {
    conflicts: &'a [Conflict],
    needs: &'a [NeedsYes],
}

impl Found<'_> {
    /// Changes that wait, `count` of them; `paths` are those to name.
    fn pending(&self, count: usize, applied: usize, paths: Vec<&str>) -> Pending {
        let why = self.reasons();
        let files = paths.into_iter().take(NAMED).map(|path| PendingFile {
            path: path.to_owned(),
            why: why.get(path).cloned().unwrap_or_else(|| "it belongs to one of these".into()),
        });
        let protected = without_ways(self.needs.iter().map(|need| need.path.as_str())).len();
        let number = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Pending {
            count: number(count),
            protected: number(protected),
            applied: number(applied),
            files: files.collect(),
        }
    }

    /// All changes of a run, which these keep from being applied.
    fn all(&self, changes: &ChangeSummary) -> Pending {
        let conflicts = self.conflicts.iter().map(|conflict| conflict.path.as_str());
        let needs = self.needs.iter().map(|need| need.path.as_str());
        self.pending(changes.files.len(), 0, without_ways(conflicts.chain(needs)))
    }

    fn reasons(&self) -> HashMap<&str, String> {
        let conflicts = self.conflicts.iter().map(|conflict| {
            let (expected, found) = (&conflict.expected, &conflict.found);
            (&*conflict.path, format!("conflict: {found} where the run found {expected}"))
        });
        let needs = self.needs.iter().map(|need| (&*need.path, format!("protected: {}", need.why)));
        conflicts.chain(needs).collect()
    }
}

/// The paths without folders that are only there for what is in them.
fn without_ways<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let paths: Vec<&'a str> = paths.collect();
    let above = |path: &&'a str| Path::new(*path).ancestors().skip(1);
    let ways: HashSet<&Path> = paths.iter().flat_map(above).collect();
    paths.into_iter().filter(|path| !ways.contains(Path::new(path))).collect()
}

fn tell(run: &RunId, pending: Pending, changes: &mut ChangeSummary, story: &mut Story) {
    story.remark(&format!(
        "{} left for a decision: `sandbox-mcp diff {run}` shows what, and `sandbox-mcp apply \
         {run}{}` takes it",
        count(pending.count, "change"),
        if pending.protected > 0 { " --allow-protected" } else { "" }
    ));
    if let Some(commits) = &changes.commits {
        story.remark(&format!(
            "{} of the run: in {}; the branch gets them when all of the changes are applied",
            count(commits.count, "commit"),
            commits.refs
        ));
    }
    changes.pending = Some(pending);
}
