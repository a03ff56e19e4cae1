//! How a run stands, from its record: whoever carries it out, and whichever version wrote it.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::result::{
    self, ANSWER_AT_LEAST, RESOURCE_KEY, TOTAL, UNTRUSTED_KEY, cut, object_length,
};
use super::untrusted::UNTRUSTED;
use super::{progress, resources};
use crate::history::{self, Entry, Part, State};
use crate::ids::RunId;
use crate::runner::{Event, EventKind, Glance, Phase, Runner, report_now, told as told_of};
use crate::text::{self, one_line};

/// How much of the events' end is read.
const TAIL: u64 = 64 << 10;

/// How many events are shown, and how long each may be.
const RECENT: usize = 5;
const LINE: usize = 160;

/// A run that this host may hear of.
pub(super) fn find(runner: &Runner, word: &str) -> Result<(Entry, Glance), String> {
    let found = word.trim().parse::<RunId>().ok().and_then(|id| Entry::of(runner.state(), &id));
    found
        .map(|entry| (Glance::at(&entry), entry))
        .filter(|(glance, _)| runner.may_tell_of(Path::new(&glance.workspace)))
        .map(|(glance, entry)| (entry, glance))
        .ok_or_else(|| format!("there is no run `{}` here; list_runs has them", one_line(word, 60)))
}

/// What has happened at last in a run that goes on.
#[derive(Debug, Default)]
pub(super) struct Lately {
    events: Vec<Event>,
    /// That earlier events were not read.
    cut: bool,
}

impl Lately {
    pub(super) fn of(entry: &Entry) -> Result<Self, history::Error> {
        let Some(mut file) = entry.open(Part::Events)? else { return Ok(Self::default()) };
        let trouble = |error| entry.trouble(error);
        let size = file.get_ref().metadata().map_err(trouble)?.len();
        let from = size.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(from)).map_err(trouble)?;
        let mut events = Vec::new();
        for line in file.take(TAIL).split(b'\n') {
            // The first may have lost its beginning and the last its end; later versions have
            // kinds that we do not know.
            events.extend(serde_json::from_slice(&line.map_err(trouble)?).ok());
        }
        Ok(Self { events, cut: from > 0 })
    }

    pub(super) fn last(&self) -> Option<&Event> {
        self.events.last()
    }

    fn phase(&self) -> &'static str {
        let phases = self.events.iter().rev().filter_map(|event| match &event.event {
            EventKind::Phase { phase } => Some(phase.label()),
            EventKind::Queued { .. } => Some("queued"),
            _ => None,
        });
        let early = if self.cut { Phase::Working.label() } else { "starting" };
        phases.into_iter().next().unwrap_or(early)
    }

    /// How many are ahead, where the last that is known is that it waits.
    fn ahead(&self) -> Option<usize> {
        let place = self.events.iter().rev().find_map(|event| match event.event {
            EventKind::Queued { ahead } => Some(Some(ahead)),
            EventKind::Phase { .. } => Some(None),
            _ => None,
        });
        place.flatten()
    }

    fn lines(&self) -> Vec<String> {
        let told = self.events.iter().rev().filter_map(|event| progress::describe(&event.event));
        let mut lines: Vec<_> = told.take(RECENT).map(|line| one_line(&line, LINE)).collect();
        lines.reverse();
        lines
    }
}

/// The answer of a run that is over, from its record: as [`result::of_report`] gives it where this version
/// knows all that is in it.
fn of_record(entry: &Entry) -> Result<CallToolResult, history::Error> {
    match report_now(entry)? {
        Some(report) => Ok(result::of_report(report)),
        None => Ok(of_another_version(entry.id(), told_of(entry)?)),
    }
}

fn of_another_version(id: &RunId, report: Value) -> CallToolResult {
    let Value::Object(mut value) = report else { return unreadable("it holds no object") };
    let completed = value.get("status").is_some_and(|status| status == "completed");
    let answer = value.remove("answer").unwrap_or_default();
    let answer = text::clean(answer.as_str().unwrap_or_default());
    value.insert(RESOURCE_KEY.into(), resources::uri_of(id).into());
    // The longest parts go first, whatever they are called; the record has all of them.
    while object_length(&value) > TOTAL - ANSWER_AT_LEAST
        && let Some(longest) = value
            .iter()
            .filter(|(key, _)| !["run_id", "status", RESOURCE_KEY].contains(&key.as_str()))
            .max_by_key(|(_, part)| part.to_string().len())
            .map(|(key, _)| key.clone())
    {
        value.remove(&longest);
    }
    value.insert(UNTRUSTED_KEY.into(), UNTRUSTED.into());
    let room = TOTAL.saturating_sub(object_length(&value)).max(ANSWER_AT_LEAST);
    let whole = "; the resource has the whole answer";
    value.insert("answer".into(), cut(&answer, room, whole).into());
    let value = Value::Object(value);
    if completed {
        CallToolResult::structured(value)
    } else {
        CallToolResult::structured_error(value)
    }
}

/// The beginning of every answer about a run that goes on.
pub(super) fn going_on(id: &RunId) -> JsonObject {
    let next = format!("get_run with run_id {id} waits for its end and has the result");
    [("run_id", id.to_string()), ("status", "running".to_owned()), ("next", next)]
        .map(|(key, text)| (key.to_owned(), text.into()))
        .into_iter()
        .collect()
}

/// The answer to a call whose run goes on without it.
pub(super) fn running(id: &RunId) -> CallToolResult {
    CallToolResult::structured(Value::Object(going_on(id)))
}

/// The answer of a run whose process was killed; `settled` says that nothing of it is left.
pub(super) fn of_death(id: &RunId, settled: bool) -> CallToolResult {
    let rest = if settled {
        "its container is gone, and what it left in the workspace for tools on the host was looked for"
    } else {
        "what it left could not be removed yet; the next run tries again"
    };
    CallToolResult::structured_error(json!({
        "run_id": id,
        "status": "died",
        "error": {
            "kind": "died",
            "message": format!("the run's own process was killed before it could report; {rest}"),
            "hint": "look at the workspace, and run it again",
        },
        RESOURCE_KEY: resources::uri_of(id),
    }))
}

/// The answer about a record that cannot be read.
pub(super) fn unreadable(why: &str) -> CallToolResult {
    let text = format!("The record of the run could not be read: {why}.");
    CallToolResult::error(vec![ContentBlock::text(text)])
}

/// The answer to who asks about a run that goes on.
pub(super) fn stands(entry: &Entry, lately: &Lately) -> CallToolResult {
    let mut value = going_on(entry.id());
    let elapsed = entry.id().age().map(|age| age.as_secs());
    let told = [
        ("phase", json!(lately.phase())),
        ("runs_ahead", json!(lately.ahead())),
        ("elapsed_seconds", json!(elapsed)),
        ("untrusted", json!(UNTRUSTED)),
        ("recent", json!(lately.lines())),
    ];
    value.extend(told.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.to_owned(), v)));
    CallToolResult::structured(Value::Object(value))
}

/// The answer about a run that is over; what a dead one left is taken care of first.
pub(super) async fn over(runner: &Runner, entry: Entry) -> CallToolResult {
    if entry.state() == State::Died {
        runner.settle().await;
        let settled = !runner.is_unsettled(entry.id());
        return of_death(entry.id(), settled);
    }
    let told = spawn_blocking(move || of_record(&entry)).await;
    match told {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => unreadable(&error.to_string()),
        Err(error) => unreadable(&error.to_string()),
    }
}

/// A run in one line of a list, short.
pub(super) fn line(glance: &Glance) -> JsonObject {
    let Ok(Value::Object(mut line)) = serde_json::to_value(glance) else {
        return JsonObject::new();
    };
    for (key, longest) in [("task", 80), ("workspace", 120), ("status", 32), ("mode", 32)] {
        if let Some(Value::String(text)) = line.get_mut(key) {
            *text = one_line(text, longest);
        }
    }
    line.retain(|_, value| !value.is_null() && *value != "");
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Record;

    fn told(state: &Path, events: &[Value]) -> Value {
        let id = RunId::new();
        let mut record = Record::create(state, &id).expect("record");
        for (at, event) in events.iter().enumerate() {
            record.event(&json!({ "seq": at + 1, "at_ms": at, "event": event }));
        }
        let entry = Entry::of(state, &id).expect("an entry");
        let lately = Lately::of(&entry).expect("read");
        stands(&entry, &lately).structured_content.expect("structured")
    }

    #[test]
    fn a_run_that_goes_on_says_where_it_is() {
        let state = tempfile::tempdir().expect("temp dir");
        let state = state.path();
        let queued = json!({ "type": "queued", "ahead": 2 });
        let working = json!({ "type": "phase", "phase": "working" });
        let says = |text: &str| json!({ "type": "text", "text": text });

        let start = told(state, &[]);
        assert_eq!((&start["status"], &start["phase"]), (&json!("running"), &json!("starting")));
        assert_eq!(start["runs_ahead"], Value::Null);
        let waits = told(state, std::slice::from_ref(&queued));
        assert_eq!((&waits["phase"], &waits["runs_ahead"]), (&json!("queued"), &json!(2)));

        let later = json!({ "type": "flew", "height": 3 });
        let works = told(state, &[queued, working.clone(), later, says("a\u{1b}[31m\nb")]);
        assert_eq!((&works["phase"], &works["runs_ahead"]), (&json!("working"), &Value::Null));
        assert_eq!(works["recent"], json!(["queued: 2 runs ahead", "working", "says: a b"]));

        let long: Vec<_> = (0..2000).map(|at| says(&format!("{at} {}", "x".repeat(300)))).collect();
        let long = told(state, &[vec![working], long].concat());
        assert_eq!(long["phase"], "working");
        let recent = long["recent"].as_array().expect("lines");
        assert_eq!(recent.len(), RECENT);
        assert!(recent[4].as_str().is_some_and(|line| line.starts_with("says: 1999 xx")));
        assert!(long.to_string().len() < 2048, "{long}");
    }

    #[test]
    fn the_result_of_another_version_is_told_within_the_bounds() {
        let state = tempfile::tempdir().expect("temp dir");
        let told = |report: &Value| {
            let id = RunId::new();
            let record = Record::create(state.path(), &id).expect("record");
            record.finish(report).expect("finished");
            let entry = Entry::of(state.path(), &id).expect("an entry");
            of_record(&entry).expect("readable")
        };
        let later = json!({
            "run_id": "20260131-235959-k3f9", "status": "reached_the_moon",
            "answer": "a\u{1b}[31mb".repeat(10_000),
            "distance": { "km": 384_400 },
            "log": "x".repeat(50_000), "other": ["y".repeat(9_000)],
        });
        let result = told(&later);
        assert_eq!(result.is_error, Some(true), "only `completed` is none");
        let value = result.structured_content.expect("structured");
        assert_eq!(value["status"], "reached_the_moon");
        assert_eq!(value["distance"]["km"], 384_400);
        let answer = value["answer"].as_str().expect("text");
        assert!(answer.starts_with("abab") && answer.ends_with("has the whole answer]"));
        assert!(value[UNTRUSTED_KEY].is_string() && value.to_string().len() <= TOTAL + 64);
        let short = told(&json!({ "status": "completed", "answer": "done" }));
        assert_eq!(short.is_error, Some(false));
        assert_eq!(short.structured_content.expect("structured")["answer"], "done");
        assert_eq!(told(&json!([1])).is_error, Some(true));
    }
}
