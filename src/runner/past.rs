//! What records say of runs, whichever version wrote them.
//!
//! A record is read for what it has: what is missing has its default, and words of later versions
//! stay the words they are. All texts are clean.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::task::Checked;
use crate::history::{Entry, Error, State};
use crate::text::{clean, one_line};
use crate::workspace::Mode;
use crate::workspace::changeset::Fate;

/// How much of a task's text is kept.
const TASK: usize = 200;

/// What was asked, as the record keeps it from the run's beginning.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// The beginning of the task.
    task: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    workspace: String,
    mode: Mode,
    /// That its process has no other run, so that ending the one ends the other.
    alone: bool,
}

impl Asked {
    pub(super) fn of(task: &Checked) -> Self {
        Self {
            task: one_line(&task.text, TASK),
            command: task.command.clone(),
            workspace: task.workspace.path().display().to_string(),
            mode: task.mode,
            alone: true,
        }
    }
}

/// Whether the process of a run has no other one. Servers of earlier versions had all of theirs.
pub(super) fn is_alone(entry: &Entry) -> bool {
    entry.task().ok().flatten().is_some_and(|task| task["alone"] == true)
}

/// Returns true for a run that can change nothing.
pub(super) fn is_read_only(entry: &Entry) -> bool {
    entry.task().ok().flatten().is_some_and(|task| task["mode"] == "read_only")
}

/// A record's task, read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PastTask {
    task: Line,
    command: Option<Line>,
    workspace: Line,
    mode: Line,
}

/// A closing report as a record has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastReport {
    pub status: Line,
    pub answer: Text,
    pub error: Option<PastFailure>,
    pub verify: Option<PastVerify>,
    pub session: Option<PastSession>,
    pub continued: Vec<PastContinued>,
    pub workspace: PastWorkspace,
    pub changes: PastChanges,
    pub remarks: Vec<Line>,
    pub egress: PastEgress,
    pub usage: super::Usage,
    pub timing: super::Timing,
    pub sandbox: PastSandbox,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastFailure {
    pub kind: Line,
    pub message: Text,
    pub hint: Option<Text>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastSession {
    pub id: Line,
    pub resumed: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastContinued {
    pub reason: Line,
}

/// Of a check there is more in the record than is read here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastVerify {
    pub command: Line,
    pub passed: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastWorkspace {
    pub path: Line,
    pub mode: Line,
    pub view: Option<Line>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastChanges {
    pub files: Vec<PastChange>,
    pub truncated: bool,
    pub applied: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastChange {
    pub path: Line,
    pub change: Line,
    pub from: Option<Line>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastEgress {
    pub allowed: u64,
    pub refused: u64,
    pub targets: Vec<PastTarget>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastTarget {
    pub host: Line,
    pub port: u16,
    pub allowed: u64,
    pub refused: u64,
    pub reason: Option<Line>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastSandbox {
    pub engine: Line,
    pub image: Line,
    pub user: Line,
}

/// Text of a record, clean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(pub String);

/// Text of a record, clean and on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(pub String);

/// Longest line that is read of a record.
const LINE: usize = 4096;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(clean(&text)))
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(one_line(&text, LINE)))
    }
}

impl PastReport {
    pub fn of(report: &Value) -> Result<Self, serde_json::Error> {
        Self::deserialize(report)
    }

    /// The status as people say it.
    pub fn label(&self) -> String {
        self.status.0.replace('_', " ")
    }
}

/// The report of a run with everything that whoever wrote it put in, and what stands beside it;
/// without a report what is known of the run.
pub fn told(entry: &Entry) -> Result<Value, Error> {
    let report = entry.report()?;
    let glance = serde_json::to_value(Glance::at(entry)).unwrap_or_default();
    let Some(Value::Object(mut report)) = report else { return Ok(glance) };
    report.values_mut().for_each(scrub);
    for key in ["run_id", "state", "task"] {
        report.entry(key).or_insert_with(|| glance[key].clone());
    }
    if let Some(applied) = report.get_mut("changes").and_then(|changes| changes.get_mut("applied"))
    {
        *applied = applied_now(entry, applied.as_bool()).into();
    }
    Ok(Value::Object(report))
}

/// Cleans every text. Whoever wrote the record should have, but that is the record's word.
fn scrub(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(values) => values.iter_mut().for_each(scrub),
        Value::Object(values) => values.values_mut().for_each(scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A run in one line of a list.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Glance {
    pub run_id: String,
    /// `running`, `ended` or `died`.
    pub state: &'static str,
    /// The verdict; none without a report.
    pub status: Option<String>,
    pub mode: String,
    pub workspace: String,
    pub duration_ms: Option<u64>,
    pub files_changed: Option<usize>,
    /// What became of the changes of a run in a view of its own: `pending`, `applied`,
    /// `partly_applied` or `discarded`.
    pub changes: Option<&'static str>,
    /// The beginning of the task; empty in the records of version 0.1.0.
    pub task: String,
}

impl Glance {
    /// What there is to see of a run; a record that cannot be read is a run all the same.
    pub fn at(entry: &Entry) -> Self {
        let told = |error: &Error| tracing::warn!("{error}");
        let asked = entry.task().inspect_err(told).ok().flatten();
        let asked = asked.and_then(|task| PastTask::deserialize(task).ok()).unwrap_or_default();
        let report = entry.report().inspect_err(told).ok().flatten();
        let report = report.and_then(|report| PastReport::of(&report).ok());
        let task = match asked.command {
            Some(command) => format!("/{} {}", command.0, asked.task.0),
            None => asked.task.0,
        };
        let mut glance = Self {
            run_id: entry.id().to_string(),
            state: entry.state().as_str(),
            task,
            mode: asked.mode.0,
            workspace: asked.workspace.0,
            ..Self::default()
        };
        if let Some(report) = report {
            glance.state = State::Ended.as_str();
            glance.status = Some(report.status.0);
            glance.duration_ms = Some(report.timing.total_ms);
            glance.files_changed = Some(report.changes.files.len());
            glance.changes = standing(entry, glance.files_changed);
            if glance.workspace.is_empty() {
                glance.mode = report.workspace.mode.0;
                glance.workspace = report.workspace.path.0;
            }
        }
        glance
    }

    /// What became of the changes, as people say it.
    pub fn changes_label(&self) -> Option<String> {
        self.changes.map(|word| word.replace('_', " "))
    }

    /// The verdict as people say it, or what stands for one.
    pub fn label(&self) -> String {
        self.status.as_deref().unwrap_or(self.state).replace('_', " ")
    }
}

/// The closing report as this version knows it, with what has become of its changes since; none
/// where it is another version's, or there is none yet.
pub fn report_now(entry: &Entry) -> Result<Option<super::Report>, Error> {
    let report = entry.report()?.unwrap_or_default();
    let report = serde_json::from_value::<super::Report>(report);
    let told = |error: &serde_json::Error| {
        tracing::debug!("run {} is of another version: {error}", entry.id());
    };
    let Ok(mut report) = report.inspect_err(told) else { return Ok(None) };
    if report.changes.applied.is_some() {
        report.changes.applied = applied_now(entry, report.changes.applied);
    }
    Ok(Some(report))
}

/// Whether changes are in the workspace by now, as the report's `changes.applied` has it: `before`
/// where nobody has decided on them yet, nothing where they were let go.
fn applied_now(entry: &Entry, before: Option<bool>) -> Option<bool> {
    match standing(entry, None) {
        None => before,
        Some("applied") => Some(true),
        Some("discarded") => None,
        Some(_) => Some(false),
    }
}

/// What became of changes that were not made in the workspace itself.
fn standing(entry: &Entry, files: Option<usize>) -> Option<&'static str> {
    let fate = Fate::read(&entry.applied());
    let fate = fate.inspect_err(|error| tracing::warn!("failed to {error}")).unwrap_or_default();
    let pending = || (files != Some(0) && entry.changes().exists()).then_some("pending");
    fate.word().or_else(pending)
}

#[cfg(test)]
mod tests;
