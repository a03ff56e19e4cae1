//! What the host's model should do after a run: in the result itself, because many hosts show their
//! model nothing else at that moment.

use crate::ids::RunId;
use crate::runner::{Report, Status};
use crate::text::count;
use crate::workspace::{Mode, Pending};

/// In a few words; always says where the changes are.
pub(super) fn of(report: &Report) -> String {
    let first = match report.status {
        Status::Completed if check_failed(report) => "Not done: `verify` failed; read its output.",
        Status::Completed => "",
        Status::Failed => "Not done: read `error`.",
        Status::TimedOut => "Not done in time.",
        Status::Truncated => "`answer` is cut, and the work may be too.",
        Status::NoOutput => "It ended without an answer, so nothing is certain.",
        Status::BudgetExhausted | Status::OutOfMemory => "Not done: it reached a limit.",
        Status::Cancelled => "Cancelled before its end.",
        Status::ModelUnreachable | Status::ModelError => "Not done: the model server is at fault.",
        Status::SandboxError => "Not done: the sandbox is at fault.",
    };
    [first, &changes(report), then(report)].into_iter().filter(|part| !part.is_empty()).fold(
        String::new(),
        |mut all, part| {
            if !all.is_empty() {
                all.push(' ');
            }
            all + part
        },
    )
}

fn check_failed(report: &Report) -> bool {
    report.verify.as_ref().is_some_and(|verify| !verify.passed)
}

/// Of changes that nobody has decided on.
pub(super) fn waiting(id: &RunId) -> String {
    format!(
        "The workspace is unchanged; the changes wait: read sandbox://runs/{id}/changes.patch, or the \
         files by project_status and read_project_file with run_id {id}. Then apply_changes or \
         discard_changes."
    )
}

/// Of changes that were left out when the others were applied.
fn partly(id: &RunId, pending: &Pending) -> String {
    format!(
        "Applied: {}. Left: {} (`changes.pending` says why): decide with apply_changes or \
         discard_changes, run_id {id}.",
        count(pending.applied, "change"),
        count(pending.count, "change")
    )
}

/// Where the changes are.
fn changes(report: &Report) -> String {
    match (report.workspace.mode, report.changes.applied) {
        (_, Some(false)) => match &report.changes.pending {
            Some(pending) => partly(&report.run_id, pending),
            None => waiting(&report.run_id),
        },
        (_, Some(true)) => "Its changes were applied.".to_owned(),
        (Mode::ReadOnly, None) => String::new(),
        (_, None) if report.changes.files.is_empty() => "No file was changed.".to_owned(),
        (_, None) => "Its changes were discarded.".to_owned(),
    }
}

/// What to do about it.
fn then(report: &Report) -> &'static str {
    let waits = report.changes.applied == Some(false);
    match report.status {
        Status::Completed if check_failed(report) && waits => {
            "To correct it, run again with what was wrong: in the same `session` it starts from these \
             changes; a run without that has none of them."
        }
        Status::Completed if check_failed(report) => {
            "To correct it, run again in the same `session` with what was wrong."
        }
        Status::Completed => "",
        Status::Failed | Status::NoOutput => {
            "Try a smaller or plainer task once, then do it yourself."
        }
        Status::TimedOut | Status::Truncated => "Split the task, or give it more `timeout`.",
        Status::BudgetExhausted | Status::OutOfMemory => {
            "Split the task; limits are the user's to raise."
        }
        Status::Cancelled => "Start it again only if the user wants it.",
        Status::ModelUnreachable | Status::ModelError | Status::SandboxError => {
            "Another try rarely helps: tell the user `error.message` and `error.hint`."
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn next(changed: &Value) -> String {
        let mut report = json!({
            "run_id": "20260131-235959-k3f9", "status": "completed", "answer": "", "error": null,
            "workspace": { "path": "/w", "mode": "direct" },
            "changes": { "files": [{ "path": "a", "change": "added" }], "truncated": false },
            "usage": {}, "tools": [], "timing": {}, "transcript": null,
            "sandbox": { "engine": "", "image": "", "user": "", "receipt": null },
        });
        for (key, value) in changed.as_object().expect("an object") {
            report[key] = value.clone();
        }
        of(&serde_json::from_value(report).expect("a report"))
    }

    #[test]
    fn every_end_says_what_to_do_in_a_few_words() {
        let files = json!([{ "path": "a", "change": "added" }]);
        let isolated = json!({ "path": "/w", "mode": "isolated" });
        for status in [
            "completed",
            "failed",
            "timed_out",
            "cancelled",
            "out_of_memory",
            "model_unreachable",
            "model_error",
            "no_output",
            "truncated",
            "budget_exhausted",
            "sandbox_error",
        ] {
            let pending = next(&json!({
                "status": status, "workspace": isolated,
                "changes": { "files": files, "truncated": false, "applied": false },
            }));
            assert!(pending.contains("apply_changes or discard_changes"), "{status}: {pending}");
            assert!(pending.contains("run_id 20260131-235959-k3f9"), "{status}: {pending}");
            assert!(pending.len() < 420, "{status}: {pending}");
            let nothing = json!({ "files": [], "truncated": false });
            let nothing = next(&json!({ "status": status, "changes": nothing }));
            assert!(nothing.contains("No file was changed."), "{status}: {nothing}");
        }
    }

    #[test]
    fn a_check_that_failed_is_not_done_whatever_the_agent_says() {
        let failed = json!({ "command": "c", "before": null, "after": null, "passed": false });
        let nothing = json!({ "files": [], "truncated": false });
        let unchanged = next(&json!({ "verify": failed, "changes": nothing }));
        assert!(unchanged.starts_with("Not done: `verify` failed"), "{unchanged}");
        assert!(unchanged.ends_with("in the same `session` with what was wrong."), "{unchanged}");
        let changes = json!({ "files": [], "truncated": false, "applied": false });
        let waits = next(&json!({ "verify": failed, "changes": changes }));
        assert!(waits.contains("it starts from these changes"), "{waits}");
        let passed = json!({ "command": "c", "before": null, "after": null, "passed": true });
        assert!(!next(&json!({ "verify": passed })).contains("Not done"));
    }
}
