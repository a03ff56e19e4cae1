//! How a run stands, from its record: whoever carries it out, and whichever version wrote it.

use std::io::{BufRead, Read, Seek, SeekFrom};
use std::path::Path;

use rmcp::model::{CallToolResult, JsonObject};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::untrusted::UNTRUSTED;
use super::{progress, result};
use crate::history::{self, Entry, Part, State};
use crate::ids::RunId;
use crate::runner::{Event, EventKind, Glance, Phase, Runner};
use crate::text::one_line;

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
            EventKind::Queued { workspace: false, .. } => Some("queued"),
            EventKind::Queued { workspace: true, .. } => Some("queued for the workspace"),
            _ => None,
        });
        let early = if self.cut { Phase::Working.label() } else { "starting" };
        phases.into_iter().next().unwrap_or(early)
    }

    /// How many are ahead, where the last that is known is that it waits.
    fn ahead(&self) -> Option<usize> {
        let place = self.events.iter().rev().find_map(|event| match event.event {
            EventKind::Queued { ahead, .. } => Some(Some(ahead)),
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

/// The answer about a run that goes on.
pub(super) fn running(entry: &Entry, lately: &Lately) -> CallToolResult {
    let mut value = result::going_on(entry.id());
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
        return result::of_death(entry.id(), settled);
    }
    let told = spawn_blocking(move || result::of_record(&entry)).await;
    match told {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => result::unreadable(&error.to_string()),
        Err(error) => result::unreadable(&error.to_string()),
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
        running(&entry, &lately).structured_content.expect("structured")
    }

    #[test]
    fn a_run_that_goes_on_says_where_it_is() {
        let state = tempfile::tempdir().expect("temp dir");
        let state = state.path();
        let queued = json!({ "type": "queued", "ahead": 2 });
        let for_it = json!({ "type": "queued", "ahead": 1, "workspace": true });
        let working = json!({ "type": "phase", "phase": "working" });
        let says = |text: &str| json!({ "type": "text", "text": text });

        let start = told(state, &[]);
        assert_eq!((&start["status"], &start["phase"]), (&json!("running"), &json!("starting")));
        assert_eq!(start["runs_ahead"], Value::Null);
        let waits = told(state, std::slice::from_ref(&queued));
        assert_eq!((&waits["phase"], &waits["runs_ahead"]), (&json!("queued"), &json!(2)));
        let waits = told(state, &[for_it]);
        assert_eq!(waits["phase"], "queued for the workspace");

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
}
