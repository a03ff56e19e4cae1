//! The answer to a call: the run's report, cut to what a host's context bears.
//!
//! Several hosts show their model nothing but `structuredContent`, and one cuts results at about
//! 10 KiB. So it stands alone, has its essentials first, and is about [`TOTAL`] bytes at most;
//! what is cut is marked where it is cut.

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value};

use super::shorten::{fit, leave_out, shorten_files, shorten_verify};
use super::untrusted::UNTRUSTED;
use super::{next, resources};
use crate::ids::RunId;
use crate::runner::{Report, Status};
use crate::text;

pub(super) const TOTAL: usize = 8 * 1024;

/// What stays for the answer even where the rest is unusually long.
pub(super) const ANSWER_AT_LEAST: usize = 1024;

const TOOLS: usize = 16;
const MESSAGE: usize = 1000;
const HINT: usize = 240;
const NAME: usize = 64;
const REMARKS: usize = 640;
const REMARK: usize = 300;
const TARGETS: usize = 512;

pub(super) const UNTRUSTED_KEY: &str = "untrusted";
pub(super) const RESOURCE_KEY: &str = "resource";
pub(super) const NEXT_KEY: &str = "next";

/// The answer that a finished run gives.
pub(super) fn of_report(report: Report) -> CallToolResult {
    let completed = report.status == Status::Completed;
    let value = Value::Object(shorten(report));
    if completed {
        CallToolResult::structured(value)
    } else {
        CallToolResult::structured_error(value)
    }
}

/// The answer to a call that started nothing.
pub(super) fn refused(why: &str) -> CallToolResult {
    let text = format!("The task was not started: {why}.");
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// The answer to a call whose sandbox was not confirmed to be gone when the server had to end.
pub(super) fn unconfirmed(id: &RunId) -> CallToolResult {
    let text = format!(
        "Run {id} was cancelled because the server ends, and the removal of its sandbox is not \
         confirmed; the sandbox ends by itself, and the next start of sandbox-mcp removes the rest."
    );
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// The answer when the server itself failed.
pub(super) fn of_panic() -> CallToolResult {
    let text = "sandbox-mcp failed by a fault of its own; its standard error says more. \
                If a task ran, its sandbox is being removed.";
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// The schema of the structured answer.
///
/// Without `$schema`, which makes validators of other dialects refuse it, without the number
/// formats of Rust, which they do not know, and without words, which nobody is shown.
pub(super) fn schema() -> JsonObject {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(Plain);
    let schema = settings.into_generator().into_root_schema_for::<Report>();
    let Value::Object(mut schema) = Value::from(schema) else { return JsonObject::new() };
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let note = serde_json::json!({ "type": "string", "description": "How far to trust this." });
        let next = serde_json::json!({ "type": "string", "description": "What to do now." });
        *properties = with_notes(std::mem::take(properties), &next, &note);
        let resource = serde_json::json!({
            "anyOf": [{ "type": "string" }, { "type": "null" }],
            "description": "Resource with this report; `/answer`, `/events`, `/log` and `/egress` are below it.",
        });
        properties.insert(RESOURCE_KEY.into(), resource);
        // A run that goes on has no report yet, and neither has one whose process was killed.
        if let Some(status) = properties.get_mut("status") {
            let other = serde_json::json!({ "type": "string", "enum": ["running", "died"] });
            *status = serde_json::json!({ "anyOf": [status.take(), other] });
        }
    }
    schema.insert("required".into(), serde_json::json!(["run_id", "status"]));
    schema
}

#[derive(Clone, Debug)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        schema.remove("title");
        schema.remove("format");
        // Hosts show their model no output schema, and validators need no words.
        schema.remove("description");
        transform_subschemas(self, schema);
        split_nullable(schema);
    }
}

/// Turns `"type": [T, "null"]` into a choice of two: clients that know one type to a schema drop
/// or refuse the list.
fn split_nullable(schema: &mut schemars::Schema) {
    let Some(Value::Array(types)) = schema.get("type") else { return };
    let kinds: Vec<_> = types.clone();
    let Some(whole) = schema.as_object_mut().map(std::mem::take) else { return };
    let description = whole.get("description").cloned();
    let branch = |kind: Value| {
        let mut branch = if kind == "null" { Map::new() } else { whole.clone() };
        branch.remove("description");
        branch.insert("type".into(), kind);
        Value::Object(branch)
    };
    schema.insert("anyOf".into(), kinds.into_iter().map(branch).collect());
    if let Some(description) = description {
        schema.insert("description".into(), description);
    }
}

/// The report as JSON within its bounds.
fn shorten(mut report: Report) -> JsonObject {
    let answer = text::clean(&std::mem::take(&mut report.answer));
    if let Some(error) = &mut report.error {
        error.kind = text::one_line(&error.kind, NAME);
        error.message = cut(&text::clean(&error.message), MESSAGE, "");
        error.hint = error.hint.as_deref().map(|hint| cut(&text::clean(hint), HINT, ""));
    }
    if let Some(verify) = &mut report.verify {
        shorten_verify(verify);
    }
    report.tools.truncate(TOOLS);
    for tool in &mut report.tools {
        tool.name = text::one_line(&tool.name, NAME);
    }
    for remark in &mut report.remarks {
        text::prefix(&text::one_line(remark, REMARK), REMARK).clone_into(remark);
    }
    fit(&mut report.remarks, REMARKS);
    for target in &mut report.egress.targets {
        target.host = text::one_line(&target.host, NAME);
    }
    fit(&mut report.egress.targets, TARGETS);
    shorten_files(&mut report);
    // Without a record there is nothing to read later.
    let resource = report.transcript.as_ref().map(|_| resources::uri_of(&report.run_id));
    let whole =
        if report.transcript.is_some() { "; the whole answer is in the transcript" } else { "" };
    let next = next::of(&report);
    // A page of evidence that no model needs for what it does next; the resource has it.
    report.sandbox.receipt = None;
    let Ok(Value::Object(value)) = serde_json::to_value(report) else { return JsonObject::new() };
    let mut value = with_notes(value, &next.into(), &UNTRUSTED.into());
    value.insert(RESOURCE_KEY.into(), resource.into());
    let mut rest = object_length(&value);
    // What is evidence and not needed for the next step goes first; the record has all of it.
    for part in ["/egress/targets", "/verify/before"] {
        if rest <= TOTAL - ANSWER_AT_LEAST {
            break;
        }
        leave_out(&mut value, part);
        rest = object_length(&value);
    }
    let room = TOTAL.saturating_sub(rest).max(ANSWER_AT_LEAST);
    value.insert("answer".into(), cut(&answer, room, whole).into());
    value
}

/// Puts what to do next and what to think of the answer right before it. The order of keys is the
/// order of reading.
fn with_notes(object: JsonObject, next: &Value, note: &Value) -> JsonObject {
    let mut noted = Map::new();
    for (key, value) in object {
        if key == "answer" {
            noted.insert(NEXT_KEY.into(), next.clone());
            noted.insert(UNTRUSTED_KEY.into(), note.clone());
        }
        noted.insert(key, value);
    }
    noted
}

/// The beginning of `text` that takes at most `room` bytes as JSON, with a mark where it was cut.
pub(super) fn cut(text: &str, room: usize, whole: &str) -> String {
    if text.chars().map(text::json_length).sum::<usize>() <= room {
        return text.into();
    }
    // As if everything were cut, the longest the mark can be.
    let mark = |bytes: usize| format!("\n[… {bytes} bytes cut{whole}]");
    let mut left = room.saturating_sub(mark(text.len()).len() + 1);
    let mut end = 0;
    for c in text.chars() {
        let length = text::json_length(c);
        if length > left {
            break;
        }
        left -= length;
        end += c.len_utf8();
    }
    format!("{}{}", &text[..end], mark(text.len() - end))
}

pub(super) fn object_length(object: &JsonObject) -> usize {
    serde_json::to_string(object).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A report through its JSON, as hosts know it.
    fn report(changed: &Value) -> Report {
        let mut report = json!({
            "run_id": "20260131-235959-k3f9",
            "status": "completed",
            "answer": "done",
            "error": null,
            "workspace": { "path": "/home/ann/project", "mode": "direct" },
            "changes": { "files": [], "truncated": false },
            "usage": {
                "requests": 3, "steps": 3, "input_tokens": 9, "output_tokens": 9,
                "reasoning_tokens": 0,
            },
            "tools": [],
            "timing": {
                "queued_ms": 0, "prepare_ms": 1, "boot_ms": 2, "agent_ms": 3, "cleanup_ms": 4,
                "total_ms": 10,
            },
            "sandbox": {
                "engine": "Docker 20.10", "image": "i", "user": "1000:1000", "receipt": null,
            },
            "transcript": "/home/ann/.local/state/sandbox-mcp/runs/x/events.jsonl",
        });
        for (key, value) in changed.as_object().expect("an object") {
            report[key] = value.clone();
        }
        serde_json::from_value(report).expect("a report")
    }

    fn answer(changed: &Value) -> (Value, String) {
        let result = of_report(report(changed));
        let value = result.structured_content.expect("structured");
        let text = result.content[0].as_text().expect("text").text.clone();
        (value, text)
    }

    #[test]
    fn essentials_come_first_and_the_text_says_the_same() {
        let (value, text) = answer(&json!({}));
        let keys: Vec<_> = value.as_object().expect("object").keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "run_id",
                "status",
                "next",
                "untrusted",
                "answer",
                "error",
                "verify",
                "session",
                "workspace",
                "changes",
                "remarks",
                "continued",
                "egress",
                "usage",
                "tools",
                "timing",
                "sandbox",
                "transcript",
                "resource"
            ]
        );
        assert_eq!(text, value.to_string());
        assert_eq!(value["answer"], "done");
    }

    #[test]
    fn only_completed_is_no_error() {
        assert_eq!(of_report(report(&json!({}))).is_error, Some(false));
        for status in ["failed", "timed_out", "cancelled", "truncated", "sandbox_error"] {
            assert_eq!(of_report(report(&json!({ "status": status }))).is_error, Some(true));
        }
    }

    #[test]
    fn a_long_answer_fills_the_room_and_says_what_is_missing() {
        for unit in ["a", "ä", "\n", "\"", "🦀", "word and word\n"] {
            let whole = unit.repeat(100_000 / unit.len());
            let (value, text) = answer(&json!({ "answer": whole }));
            assert!((TOTAL - 8..=TOTAL).contains(&text.len()), "{unit:?}: {} bytes", text.len());
            let shown = value["answer"].as_str().expect("text");
            let (kept, mark) = shown.rsplit_once("\n[… ").expect("marked");
            assert!(whole.starts_with(kept));
            let expected = format!(
                "{} bytes cut; the whole answer is in the transcript]",
                whole.len() - kept.len()
            );
            assert_eq!(mark, expected);
        }
    }

    #[test]
    fn an_answer_that_fits_is_untouched() {
        let (value, _) = answer(&json!({ "answer": "a".repeat(6000) }));
        assert_eq!(value["answer"].as_str().map(str::len), Some(6000));
    }

    #[test]
    fn without_a_transcript_none_is_promised() {
        let (value, _) = answer(&json!({ "answer": "a".repeat(9000), "transcript": null }));
        let shown = value["answer"].as_str().expect("text");
        assert!(shown.ends_with(" bytes cut]"), "{}", &shown[shown.len() - 60..]);
    }

    #[test]
    fn everything_at_once_stays_within_bounds() {
        let long = "ß\"".repeat(4000);
        let file = |number| json!({ "path": format!("src/{number}/{long}"), "change": "added" });
        let short = |number| json!({ "path": format!("src/{number}.rs"), "change": "added" });
        let files: Vec<_> = (0..1000).map(short).chain((0..10).map(file)).collect();
        let tools: Vec<_> =
            (0..500).map(|_| json!({ "name": long, "calls": 1, "errors": 0 })).collect();
        let targets: Vec<_> = (0..20)
            .map(|_| json!({ "host": long, "port": 443, "allowed": 0, "refused": 1, "reason": "not_allowed" }))
            .collect();
        let check = json!({ "exit_code": 1, "output": long, "timed_out": false, "duration_ms": 1 });
        for mode in ["direct", "isolated"] {
            let (value, text) = answer(&json!({
                "status": "completed",
                "answer": long,
                "verify": { "command": long, "before": check, "after": check, "passed": false },
                "error": { "kind": long, "message": long, "hint": long },
                "changes": { "files": files, "truncated": false, "applied": if mode == "direct" { Value::Null } else { false.into() } },
                "workspace": { "path": "/w", "mode": mode },
                "remarks": (0..16).map(|_| long.clone()).collect::<Vec<_>>(),
                "egress": { "allowed": 0, "refused": 20, "targets": targets },
                "tools": tools,
            }));
            assert!(text.len() <= TOTAL + 1024, "{} bytes", text.len());
            assert_eq!(value["changes"]["truncated"], true);
            let output = value["verify"]["after"]["output"].as_str().expect("an output");
            assert!(output.starts_with('[') && output.ends_with("ß\""), "{output}");
            assert!(value["changes"]["files"].as_array().is_some_and(|files| files.len() > 30));
            assert_eq!(value["tools"].as_array().map(Vec::len), Some(TOOLS));
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        let (_, text) = answer(&json!({
            "answer": "a\u{1b}[31mb\u{202e}c\0",
            "error": { "kind": "k", "message": "\u{1b}]0;x\u{7}m", "hint": null },
        }));
        assert!(text.contains(r#""answer":"abc""#) && text.contains(r#""message":"m""#), "{text}");
    }

    #[test]
    fn the_schema_is_one_that_all_validators_read() {
        let schema = schema();
        let text = Value::Object(schema.clone()).to_string();
        for trouble in ["$ref", "$defs", "$schema", "format", "title"] {
            assert!(!text.contains(&format!("\"{trouble}\"")), "{trouble} in {text}");
        }
        assert!(!text.contains(r#""type":["#), "more than one type in {text}");
        assert_eq!(schema["type"], "object");
        let (value, _) = answer(&json!({}));
        let described: Vec<_> = schema["properties"].as_object().expect("object").keys().collect();
        let given: Vec<_> = value.as_object().expect("object").keys().collect();
        assert_eq!(described, given);
    }
}
