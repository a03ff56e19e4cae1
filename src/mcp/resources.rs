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

/// Longest text of one resource, as JSON writes it and before its mark that it was cut. Clients
/// refuse events of more than 1 MiB, and there is more in one than the text.
const LONGEST: usize = (1 << 20) - (16 << 10);

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

/// The ids of the newest runs that this host may see and whose ids begin so.
pub(super) fn ids(runner: &Runner, beginning: &str) -> impl Iterator<Item = String> {
    let ids = history::runs(runner.state()).into_iter();
    let ids = ids.filter(move |id| id.as_str().starts_with(beginning)).take(LOOKED_AT);
    ids.filter_map(|id| look(runner, &id).map(|(_, glance)| glance.run_id))
}

/// Whether a URI is one of the templates.
pub(super) fn is_template(uri: &str) -> bool {
    View::ALL.into_iter().any(|view| view.template().uri_template == uri)
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
    if on_wire(&text) > LONGEST
        && let Some(answer) = report["answer"].as_str()
    {
        let kept = prefix(answer, ANSWER);
        let cut = answer.len() - kept.len();
        let whole = format!("{}/answer", uri_of(entry.id()));
        report["answer"] = format!("{kept}\n[… {cut} bytes cut; {whole} has more]").into();
        text = written(&report);
    }
    while on_wire(&text) > LONGEST
        && let Some(files) = report["changes"]["files"].as_array_mut().filter(|f| !f.is_empty())
    {
        files.truncate(files.len() / 2);
        report["changes"]["truncated"] = true.into();
        text = written(&report);
    }
    if on_wire(&text) > LONGEST {
        let record = entry.folder().display().to_string();
        text =
            json!({ "run_id": entry.id(), "too_long": text.len(), "record": record }).to_string();
    }
    Ok(text)
}

fn answer(entry: &Entry) -> Result<String, history::Error> {
    let report = told(entry)?;
    let answer = clean(report["answer"].as_str().unwrap_or_default());
    let kept = beginning(&answer);
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
    Ok(drawn(&patch))
}

fn drawn(patch: &[u8]) -> String {
    let mut text = String::new();
    let (mut shown, mut written) = (0, 0);
    for line in patch.split_inclusive(|byte| *byte == b'\n') {
        let plain = line.strip_suffix(b"\n").unwrap_or(line);
        let (plain, _) = visible(&String::from_utf8_lossy(plain));
        written += on_wire(&plain) + LINE_END;
        if written > LONGEST {
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
    text
}

/// The beginning of a file, in whole lines.
fn part(entry: &Entry, part: Part) -> Result<String, history::Error> {
    let Some(file) = entry.open(part)? else { return Ok(String::new()) };
    let total = file.get_ref().metadata().map_or(0, |found| found.len());
    let mut lines = file.take(LONGEST as u64);
    let mut bytes = Vec::new();
    let mut text = String::new();
    let (mut read, mut written, mut full) = (0, 0, false);
    loop {
        bytes.clear();
        let count = lines.read_until(b'\n', &mut bytes).map_err(|error| entry.trouble(error))?;
        // What has no end is being written, was cut by a crash, or is cut here.
        if bytes.pop_if(|byte| *byte == b'\n').is_none() {
            break;
        }
        let line = clean(&String::from_utf8_lossy(&bytes));
        written += on_wire(&line) + LINE_END;
        full = written > LONGEST;
        if full {
            break;
        }
        read += count as u64;
        text.push_str(&line);
        text.push('\n');
    }
    if full || total > LONGEST as u64 {
        let cut = total - read;
        let mark = match part {
            Part::Log => format!("[… {cut} bytes cut]\n"),
            Part::Events | Part::Egress => format!("{}\n", json!({ "cut_bytes": cut })),
        };
        text.push_str(&mark);
    }
    Ok(text)
}

/// A line end as JSON writes it.
const LINE_END: usize = 2;

/// How long JSON writes it, without the quotes around.
fn on_wire(text: &str) -> usize {
    text.bytes().map(escaped).sum()
}

fn escaped(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

/// As much of the beginning as a resource may have.
fn beginning(text: &str) -> &str {
    let mut written = 0;
    let fits = text.bytes().take_while(|byte| {
        written += escaped(*byte);
        written <= LONGEST
    });
    prefix(text, fits.count())
}

#[cfg(test)]
mod tests;
