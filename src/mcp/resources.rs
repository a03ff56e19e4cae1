//! Runs on record, as resources: `sandbox://runs/{id}` and what belongs to it.
//!
//! A host sees the runs of the folders that it may work in, and no others: what was done for
//! another project is not this conversation's. Everything is clean and bounded.

use std::io::{BufRead, Read};
use std::path::Path;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ErrorData, ListResourceTemplatesResult, ListResourcesResult, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::session::is_stateless;
use super::untrusted::UNTRUSTED;
use crate::history::{self, Entry, Part};
use crate::ids::RunId;
use crate::runner::{Glance, OutcomeError, Runner, patch_of, told};
use crate::text::{clean, one_line, prefix, visible};

/// Most runs in the list. Older ones can be read all the same.
const NEWEST: usize = 50;

/// Most records that are looked at for the list: those of other folders are not in it.
const LOOKED_AT: usize = 1000;

/// Longest text of one resource, before its mark that it was cut.
const LONGEST: usize = 1 << 20;

/// What stays of the answer in a report that is too long; it has a resource of its own.
const ANSWER: usize = 64 << 10;

const TITLE: usize = 100;

/// Longest URI that an error repeats.
const LONGEST_URI: usize = 2048;

/// How long an answer waits for the word that the list has changed.
const LAST_WORD: Duration = Duration::from_millis(250);

const RUNS: &str = "sandbox://runs/";

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";
const TEXT: &str = "text/plain";
const PATCH: &str = "text/x-diff";

/// What there is of each run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Report,
    Events,
    Answer,
    Log,
    Egress,
    Patch,
}

impl View {
    const ALL: [Self; 6] =
        [Self::Report, Self::Events, Self::Answer, Self::Log, Self::Egress, Self::Patch];

    /// What stands behind the id.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Report => None,
            Self::Events => Some("events"),
            Self::Answer => Some("answer"),
            Self::Log => Some("log"),
            Self::Egress => Some("egress"),
            Self::Patch => Some("changes.patch"),
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Report => "The closing report of a run, or how it stands",
            Self::Events => "What happened in a run, a JSON line each",
            Self::Answer => "The whole answer of the agent",
            Self::Log => "What the agent printed beside its events",
            Self::Egress => "What the sandbox tried to reach, a JSON line each",
            Self::Patch => "What an isolated run would change, as a patch",
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Self::Report => JSON,
            Self::Events | Self::Egress => JSON_LINES,
            Self::Answer | Self::Log => TEXT,
            Self::Patch => PATCH,
        }
    }

    fn template(self) -> ResourceTemplate {
        let (uri, name) = match self.name() {
            Some(name) => (format!("{RUNS}{{id}}/{name}"), format!("run {name}")),
            None => (format!("{RUNS}{{id}}"), "run".to_owned()),
        };
        ResourceTemplate::new(uri, name)
            .with_description(format!("{}. {UNTRUSTED}", self.meaning()))
            .with_mime_type(self.mime_type())
    }
}

/// The resource of a run's report.
pub(super) fn uri_of(id: &RunId) -> String {
    format!("{RUNS}{id}")
}

/// The run and the part that a URI names. Nothing else of it ever becomes a path.
fn parse(uri: &str) -> Option<(RunId, View)> {
    let rest = uri.strip_prefix(RUNS)?;
    let (id, name) = rest.split_once('/').map_or((rest, None), |(id, name)| (id, Some(name)));
    let view = View::ALL.into_iter().find(|view| view.name() == name)?;
    Some((id.parse().ok()?, view))
}

pub(super) async fn list(runner: &Runner) -> Result<ListResourcesResult, ErrorData> {
    let runner = runner.clone();
    let listed = spawn_blocking(move || {
        glances(&runner, |_| true).take(NEWEST).map(|glance| resource(&glance)).collect()
    });
    listed.await.map(ListResourcesResult::with_all_items).map_err(broken)
}

/// The newest runs that this host may see, of those that are `wanted`.
pub(super) fn glances(
    runner: &Runner,
    wanted: impl Fn(&Glance) -> bool,
) -> impl Iterator<Item = Glance> {
    let ids = history::runs(runner.state()).into_iter().take(LOOKED_AT);
    ids.filter_map(|id| Some(look(runner, &id)?.1)).filter(move |glance| wanted(glance))
}

pub(super) fn templates() -> ListResourceTemplatesResult {
    ListResourceTemplatesResult::with_all_items(View::ALL.map(View::template).into())
}

pub(super) async fn read(runner: &Runner, uri: String) -> Result<ReadResourceResult, ErrorData> {
    let runner = runner.clone();
    spawn_blocking(move || read_now(&runner, &uri)).await.map_err(broken)?
}

/// Tells the host that there is another run, where the protocol lets us speak unasked.
pub(super) async fn tell_changed(context: &RequestContext<RoleServer>) {
    if is_stateless(context) {
        return;
    }
    match timeout(LAST_WORD, context.peer.notify_resource_list_changed()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("the host is not told of a new run: {error}"),
        Err(_) => tracing::debug!("the host is not told of a new run: it does not read"),
    }
}

fn broken(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(format!("the record could not be read: {error}"), None)
}

/// A run that this host may see.
fn look(runner: &Runner, id: &RunId) -> Option<(Entry, Glance)> {
    let entry = Entry::of(runner.state(), id)?;
    let glance = Glance::at(&entry);
    runner.may_tell_of(Path::new(&glance.workspace)).then_some((entry, glance))
}

fn resource(glance: &Glance) -> Resource {
    let title = one_line(&format!("{}: {}", glance.label(), glance.task), TITLE);
    Resource::new(format!("{RUNS}{}", glance.run_id), glance.run_id.clone())
        .with_title(title)
        .with_description(one_line(&glance.workspace, TITLE))
        .with_mime_type(JSON)
}

fn read_now(runner: &Runner, uri: &str) -> Result<ReadResourceResult, ErrorData> {
    let found = parse(uri).and_then(|(id, view)| Some((look(runner, &id)?.0, view)));
    let Some((entry, view)) = found else {
        let message = format!(
            "there is no resource `{}`; resources/list has the newest runs of this folder",
            one_line(uri, TITLE)
        );
        return Err(ErrorData::resource_not_found(message, named(uri)));
    };
    if view == View::Patch {
        let text = patch(&entry, uri)?;
        let contents = ResourceContents::text(text, uri).with_mime_type(view.mime_type());
        return Ok(ReadResourceResult::new(vec![contents]));
    }
    let text = match view {
        View::Report => report(&entry),
        View::Answer => answer(&entry),
        View::Events => part(&entry, Part::Events),
        View::Log => part(&entry, Part::Log),
        View::Egress => part(&entry, Part::Egress),
        View::Patch => Ok(String::new()),
    };
    let contents =
        ResourceContents::text(text.map_err(broken)?, uri).with_mime_type(view.mime_type());
    Ok(ReadResourceResult::new(vec![contents]))
}

/// The URI as it was asked for, which hosts match by; not one that nobody means.
fn named(uri: &str) -> Option<Value> {
    (uri.len() <= LONGEST_URI).then(|| json!({ "uri": uri }))
}

fn report(entry: &Entry) -> Result<String, history::Error> {
    let mut report = told(entry)?;
    let written = |report: &Value| clean(&report.to_string());
    let mut text = written(&report);
    if text.len() > LONGEST
        && let Some(answer) = report["answer"].as_str()
    {
        let kept = prefix(answer, ANSWER);
        let cut = answer.len() - kept.len();
        let whole = format!("{}/answer", uri_of(entry.id()));
        report["answer"] = format!("{kept}\n[… {cut} bytes cut; {whole} has more]").into();
        text = written(&report);
    }
    while text.len() > LONGEST
        && let Some(files) = report["changes"]["files"].as_array_mut().filter(|f| !f.is_empty())
    {
        files.truncate(files.len() / 2);
        report["changes"]["truncated"] = true.into();
        text = written(&report);
    }
    if text.len() > LONGEST {
        let record = entry.folder().display().to_string();
        text =
            json!({ "run_id": entry.id(), "too_long": text.len(), "record": record }).to_string();
    }
    Ok(text)
}

fn answer(entry: &Entry) -> Result<String, history::Error> {
    let report = told(entry)?;
    let answer = clean(report["answer"].as_str().unwrap_or_default());
    let kept = prefix(&answer, LONGEST);
    if kept.len() == answer.len() {
        return Ok(answer);
    }
    Ok(format!("{kept}\n[… {} bytes cut]", answer.len() - kept.len()))
}

/// The patch in whole lines, with what cannot be shown as a picture of itself.
fn patch(entry: &Entry, uri: &str) -> Result<String, ErrorData> {
    let patch = patch_of(entry).map_err(|error| match error {
        OutcomeError::Io { .. } | OutcomeError::Store(_) => broken(error),
        none => {
            let message = format!("there is no `{}`: {none}", one_line(uri, TITLE));
            ErrorData::resource_not_found(message, named(uri))
        }
    })?;
    let mut text = String::new();
    let mut shown = 0;
    for line in patch.split_inclusive(|byte| *byte == b'\n') {
        let plain = line.strip_suffix(b"\n").unwrap_or(line);
        let (plain, _) = visible(&String::from_utf8_lossy(plain));
        if text.len() + plain.len() >= LONGEST {
            let cut = patch.len() - shown;
            text.push_str("# [… ");
            text.push_str(&cut.to_string());
            text.push_str(" bytes cut]\n");
            break;
        }
        text.push_str(&plain);
        text.push('\n');
        shown += line.len();
    }
    Ok(text)
}

/// The beginning of a file, in whole lines.
fn part(entry: &Entry, part: Part) -> Result<String, history::Error> {
    let Some(file) = entry.open(part)? else { return Ok(String::new()) };
    let total = file.get_ref().metadata().map_or(0, |found| found.len());
    let mut lines = file.take(LONGEST as u64);
    let mut bytes = Vec::new();
    let mut text = String::new();
    let mut read = 0;
    loop {
        bytes.clear();
        let count = lines.read_until(b'\n', &mut bytes).map_err(|error| entry.trouble(error))?;
        // What has no end is being written, was cut by a crash, or is cut here.
        if bytes.pop_if(|byte| *byte == b'\n').is_none() {
            break;
        }
        read += count as u64;
        text.push_str(&clean(&String::from_utf8_lossy(&bytes)));
        text.push('\n');
    }
    if total > LONGEST as u64 {
        let cut = total - read;
        let mark = match part {
            Part::Log => format!("[… {cut} bytes cut]\n"),
            Part::Events | Part::Egress => format!("{}\n", json!({ "cut_bytes": cut })),
        };
        text.push_str(&mark);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Record;

    #[test]
    fn only_what_is_there_to_be_named_is_a_resource() {
        let id: RunId = "20260131-235959-k3f9".parse().expect("an id");
        assert_eq!(parse(&uri_of(&id)), Some((id.clone(), View::Report)));
        assert_eq!(parse(&format!("{}/events", uri_of(&id))), Some((id, View::Events)));
        for wrong in [
            "",
            "sandbox://runs/",
            "sandbox://runs/last",
            "sandbox://runs/20260131-235959-k3f9/",
            "sandbox://runs/20260131-235959-k3f9/owner",
            "sandbox://runs/20260131-235959-k3f9/events/",
            "sandbox://runs/20260131-235959-k3f9/../x",
            "sandbox://runs/../20260131-235959-k3f9",
            "sandbox://runs//20260131-235959-k3f9",
            "sandbox://runs/20260131-235959-k3f9%2Fevents",
            "SANDBOX://runs/20260131-235959-k3f9",
            "file:///etc/passwd",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn long_ones_are_cut_where_they_say_so() {
        let state = tempfile::tempdir().expect("temp dir");
        let id = RunId::new();
        let mut record = Record::create(state.path(), &id).expect("record");
        for number in 0..3000 {
            record.log(&format!("{number} \u{1b}[31m{}", "x".repeat(500)));
            record.event(&json!({ "seq": number, "text": "y".repeat(500) }));
        }
        let file =
            |n: usize| json!({ "path": format!("{n}{}", "z".repeat(100)), "change": "added" });
        let files: Vec<_> = (0..20_000).map(file).collect();
        let whole = "ä\u{202e}".repeat(1 << 20);
        let report = json!({ "answer": whole, "changes": { "files": files, "truncated": false } });
        record.finish(&report).expect("finished");
        let entry = Entry::of(state.path(), &id).expect("an entry");

        let log = part(&entry, Part::Log).expect("read");
        assert!(log.len() <= LONGEST + 100 && log.len() > LONGEST - 50_000, "{}", log.len());
        assert!(log.ends_with(" bytes cut]\n") && !log.contains('\u{1b}'));
        let events = part(&entry, Part::Events).expect("read");
        assert!(events.len() <= LONGEST + 100, "{}", events.len());
        let mut lines = events.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        assert!(lines.next_back().is_some_and(|last| last["cut_bytes"].as_u64() > Some(0)));
        assert!(lines.enumerate().all(|(at, line)| line["seq"] == at));
        assert_eq!(part(&entry, Part::Egress).expect("read"), "");

        let answer = answer(&entry).expect("read");
        assert!(answer.len() <= LONGEST + 100 && answer.ends_with(" bytes cut]"));
        let text = super::report(&entry).expect("read");
        assert!(text.len() <= LONGEST, "{}", text.len());
        let cut: Value = serde_json::from_str(&text).expect("still JSON");
        assert_eq!(cut["changes"]["truncated"], true);
        assert!(cut["changes"]["files"].as_array().is_some_and(|files| files.len() > 1000));
        assert!(cut["answer"].as_str().is_some_and(|text| text.contains("/answer has more]")));
    }
}
