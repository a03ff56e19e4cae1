use serde_json::json;

use super::super::Report;
use super::*;

/// As version 0.1.0 wrote it.
fn first() -> Value {
    json!({
        "run_id": "20260131-235959-k3f9",
        "status": "completed",
        "answer": "done",
        "error": null,
        "workspace": { "path": "/home/ann/project", "mode": "direct" },
        "changes": { "files": [{ "path": "a", "change": "added" }], "truncated": false },
        "usage": {
            "requests": 3, "steps": 2, "input_tokens": 9, "output_tokens": 8,
            "reasoning_tokens": 0
        },
        "tools": [{ "name": "bash", "calls": 1, "errors": 0 }],
        "timing": {
            "queued_ms": 0, "prepare_ms": 1, "boot_ms": 2, "agent_ms": 3, "cleanup_ms": 4,
            "total_ms": 10
        },
        "sandbox": { "engine": "docker 20.10", "image": "i", "user": "1:1", "receipt": null },
        "transcript": "/home/ann/events.jsonl"
    })
}

#[test]
fn a_record_of_the_first_version_is_read() {
    let report: Report = serde_json::from_value(first()).expect("a report");
    assert!(report.remarks.is_empty());
    assert_eq!(report.egress, super::super::EgressReport::default());
    let past = PastReport::of(&first()).expect("a report");
    assert_eq!((past.label().as_str(), past.answer.0.as_str()), ("completed", "done"));
    assert_eq!((past.timing.total_ms, past.usage.requests), (10, 3));
    assert_eq!(past.changes.files[0].change.0, "added");
}

#[test]
fn a_record_of_a_later_version_is_read_for_what_it_has() {
    let mut later = first();
    later["status"] = "reached_the_moon".into();
    later["workspace"]["mode"] = "remote".into();
    later["changes"]["files"][0] = json!({ "path": "b", "change": "renamed", "from": "a" });
    later["distance"] = json!({ "km": 384_400 });
    later["timing"] = json!({ "total_ms": 11, "flight_ms": 10 });
    later["usage"] = json!({ "requests": 4 });
    let past = PastReport::of(&later).expect("a report");
    assert_eq!(past.label(), "reached the moon");
    assert_eq!(past.workspace.mode.0, "remote");
    assert_eq!(past.changes.files[0].change.0, "renamed");
    assert_eq!((past.timing.total_ms, past.usage.requests), (11, 4));
    assert!(PastReport::of(&json!({})).is_ok());
    assert!(PastReport::of(&json!({ "status": 3 })).is_err());
}

#[test]
fn what_this_version_writes_it_reads() {
    let report: Report = serde_json::from_value(first()).expect("a report");
    let written = serde_json::to_value(&report).expect("JSON");
    let past = PastReport::of(&written).expect("a report");
    assert_eq!(past.status.0, "completed");
    assert_eq!(past.workspace.path.0, "/home/ann/project");
    assert_eq!(past.sandbox.engine.0, "docker 20.10");
}

#[test]
fn texts_from_inside_steer_nothing() {
    let mut hostile = first();
    hostile["answer"] = "a\u{1b}[31mb\nc".into();
    hostile["changes"]["files"][0]["path"] = "x\u{1b}]0;t\u{7}\ny\u{202e}".into();
    let past = PastReport::of(&hostile).expect("a report");
    assert_eq!((past.answer.0.as_str(), past.changes.files[0].path.0.as_str()), ("ab\nc", "x y"));
}
