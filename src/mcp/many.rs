//! The answer to a call of several runs: each in a few words, within the same bounds as one alone.

use rmcp::model::CallToolResult;
use serde_json::{Map, Value, json};

use super::next::waiting;
use super::result::{TOTAL, cut};
use super::untrusted::UNTRUSTED;
use crate::ids::RunId;
use crate::runner::{Pick, Report, Status, best, is_verified};
use crate::text;

/// Of each run: its error's message, and the files that it changed.
const MESSAGE: usize = 160;
const FILES: usize = 8;
const PATH: usize = 80;
/// What stays for each answer even where there are many.
const ANSWER_AT_LEAST: usize = 64;

/// The answer while they go on.
pub(super) fn running(ids: &[RunId]) -> CallToolResult {
    let runs: Vec<_> = ids.iter().map(|id| json!({ "run_id": id, "status": "running" })).collect();
    CallToolResult::structured(json!({
        "status": "running",
        "runs": runs,
        "next": "Call get_run with each run_id; the runs go on.",
    }))
}

/// The answer when all are over, in the order in which they were asked for.
pub(super) fn answer(ids: &[RunId], reports: Vec<Option<Report>>, pick: Pick) -> CallToolResult {
    let done = |report: &&Report| report.status == Status::Completed;
    let known = || reports.iter().enumerate().filter_map(|(at, one)| Some((at, one.as_ref()?)));
    let completed = known().filter(|(_, report)| done(report)).count();
    let verified = known().filter(|(_, report)| is_verified(report)).count();
    let picked = match pick {
        Pick::All => None,
        Pick::FirstVerified | Pick::BestVerified => best(known()),
    };
    let failed_check =
        known().any(|(_, report)| report.verify.as_ref().is_some_and(|check| !check.passed));
    let good = match pick {
        Pick::All => completed == ids.len() && !failed_check,
        _ => picked.is_some(),
    };
    let mut value = Map::new();
    value.insert("status".into(), if good { "completed" } else { "failed" }.into());
    value.insert("completed".into(), completed.into());
    value.insert("verified".into(), verified.into());
    if pick != Pick::All {
        value.insert("picked".into(), json!(picked.map(|at| &ids[at])));
    }
    value.insert("next".into(), next(ids, picked, pick, good, &reports).into());
    value.insert("untrusted".into(), UNTRUSTED.into());
    let mut answers: Vec<String> = Vec::new();
    let mut runs: Vec<Value> = Vec::new();
    for (at, report) in reports.into_iter().enumerate() {
        let Some(mut report) = report else {
            answers.push(String::new());
            runs.push(json!({ "run_id": ids[at], "status": "unknown" }));
            continue;
        };
        answers.push(text::clean(&std::mem::take(&mut report.answer)));
        runs.push(line(&report));
    }
    value.insert("runs".into(), runs.into());
    let used = Value::Object(value.clone()).to_string().len();
    let room = TOTAL.saturating_sub(used) / ids.len().max(1);
    if let Some(runs) = value.get_mut("runs").and_then(Value::as_array_mut) {
        for (run, answer) in runs.iter_mut().zip(answers) {
            run["answer"] = cut(&answer, room.max(ANSWER_AT_LEAST), "").into();
        }
    }
    let value = Value::Object(value);
    if good { CallToolResult::structured(value) } else { CallToolResult::structured_error(value) }
}

fn line(report: &Report) -> Value {
    let files = report.changes.files.iter().take(FILES);
    let files: Vec<_> = files.map(|file| text::one_line(&file.path, PATH)).collect();
    let mut line = json!({ "run_id": report.run_id, "status": report.status, "answer": "" });
    if let Some(check) = &report.verify {
        line["verified"] = check.passed.into();
    }
    if let Some(error) = &report.error {
        line["error"] = text::one_line(&error.message, MESSAGE).into();
    }
    if !files.is_empty() {
        line["files"] = files.into();
        line["files_changed"] = report.changes.files.len().into();
    }
    if let Some(applied) = report.changes.applied {
        line["applied"] = applied.into();
    }
    line
}

fn next(
    ids: &[RunId],
    picked: Option<usize>,
    pick: Pick,
    good: bool,
    reports: &[Option<Report>],
) -> String {
    let pending = |report: &Report| report.changes.applied == Some(false);
    match (pick, picked) {
        (Pick::All, _) => {
            let doubt = if good {
                ""
            } else {
                "Not all are done: `status` and `verified` of each say which, and get_run says what \
                 then. "
            };
            let then = if reports.iter().flatten().any(pending) {
                "Isolated runs leave the workspace unchanged. Look at sandbox://runs/{run_id}/\
                 changes.patch of each, or project_status with its run_id, then call apply_changes \
                 or discard_changes; what no longer fits after another one is told as a conflict."
            } else {
                "get_run has the whole result of each run_id."
            };
            format!("{doubt}{then}")
        }
        (_, Some(at)) if reports[at].as_ref().is_some_and(pending) => waiting(&ids[at]),
        (_, Some(_)) => {
            "The picked run's changes are in the workspace, or it made none.".to_owned()
        }
        (_, None) => {
            "No run was verified; get_run has each result with what `verify` printed. Say \
                      more in the task, or mend the check."
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &str, passed: Option<bool>, answer: &str) -> Report {
        let change = json!({ "path": "src/a.rs", "change": "modified" });
        serde_json::from_value(json!({
            "run_id": RunId::new(),
            "status": status,
            "answer": answer,
            "error": null,
            "verify": passed.map(|passed| json!({
                "command": "true", "before": null, "after": null, "passed": passed,
            })),
            "workspace": { "path": "/home/ann/project", "mode": "isolated" },
            "changes": { "files": vec![change; 40], "truncated": false, "applied": false },
            "usage": {},
            "tools": [],
            "timing": {},
            "sandbox": { "engine": "", "image": "", "user": "", "receipt": null },
            "transcript": null,
        }))
        .expect("a report")
    }

    fn told(reports: Vec<Option<Report>>, pick: Pick) -> (Value, bool) {
        let ids: Vec<_> = reports
            .iter()
            .map(|report| report.as_ref().map_or_else(RunId::new, |one| one.run_id.clone()))
            .collect();
        let result = answer(&ids, reports, pick);
        (result.structured_content.expect("structured"), result.is_error == Some(true))
    }

    #[test]
    fn the_picked_one_is_named_and_what_to_do_with_it() {
        let reports = vec![
            Some(report("completed", Some(false), "a")),
            Some(report("completed", Some(true), "b")),
        ];
        let chosen = reports[1].as_ref().expect("a report").run_id.to_string();
        let (value, error) = told(reports, Pick::BestVerified);
        assert!(!error, "{value:#}");
        assert_eq!((&value["status"], &value["picked"]), (&json!("completed"), &json!(chosen)));
        assert!(value["next"].as_str().expect("a text").contains(&chosen));
        assert_eq!(value["runs"][0]["verified"], false);
        assert_eq!(value["runs"][1]["answer"], "b");

        let (value, error) =
            told(vec![Some(report("failed", Some(true), "a"))], Pick::FirstVerified);
        assert!(error && value["picked"].is_null(), "{value:#}");
    }

    #[test]
    fn all_are_good_only_when_each_is() {
        let good = || Some(report("completed", None, "a"));
        let (value, error) = told(vec![good(), good()], Pick::All);
        assert!(!error && value["completed"] == 2 && value.get("picked").is_none(), "{value:#}");
        for bad in
            [None, Some(report("timed_out", None, "")), Some(report("completed", Some(false), ""))]
        {
            let (value, error) = told(vec![good(), bad], Pick::All);
            assert!(error && value["status"] == "failed", "{value:#}");
            let next = value["next"].as_str().expect("a text");
            assert!(next.starts_with("Not all are done") && next.contains("apply_changes"));
        }
    }

    #[test]
    fn sixteen_long_answers_stay_within_the_bounds_of_one() {
        let long = "ß\"\u{1b}[31m".repeat(5000);
        let reports = (0..16).map(|_| Some(report("completed", None, &long))).collect();
        let (value, _) = told(reports, Pick::All);
        let text = value.to_string();
        assert!(text.len() <= TOTAL + 1024, "{} bytes", text.len());
        assert!(!text.contains("\\u001b"), "nothing that steers a terminal");
        assert_eq!(value["runs"].as_array().map(Vec::len), Some(16));
    }
}
