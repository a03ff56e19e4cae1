//! What the tools for a run's changes share: finding the run, and the form of their answers.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, ContentBlock, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Map, Value, json};

use crate::history;
use crate::mcp::session::Session;
use crate::mcp::standing;
use crate::runner::{Applied, OutcomeError, Runner};
use crate::text::{self, one_line};
use crate::workspace::changeset::{ApplyError, Conflict, NeedsYes};

/// What lists may take as JSON; an answer stays below 8 KiB.
const ROOM: usize = 7 * 1024;

const PATH: usize = 200;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Unknown(String),
    #[error(transparent)]
    Outcome(#[from] OutcomeError),
    #[error("the server is shutting down")]
    Closing,
    #[error("sandbox-mcp failed by a fault of its own; its standard error says more")]
    Broken,
}

/// A run that this host may see.
pub(super) fn find(runner: &Runner, word: &str) -> Result<history::Entry, Error> {
    standing::find(runner, word).map(|(entry, _)| entry).map_err(Error::Unknown)
}

/// A tool that does something with the changes of a run; `more` are its arguments besides the run.
pub(super) fn tool(name: &'static str, description: &'static str, more: Value) -> Tool {
    let mut properties = Map::new();
    properties.insert("run_id".into(), json!({ "type": "string" }));
    if let Value::Object(more) = more {
        properties.extend(more);
    }
    let schema = json!({
        "type": "object",
        "properties": properties,
        "required": ["run_id"],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("written as an object") };
    Tool::new(name, description, schema).with_annotations(ToolAnnotations::from_raw(
        None,
        Some(false),
        Some(true),
        Some(true),
        Some(false),
    ))
}

/// Does what blocks with a run. Once begun it is done to its end, whoever still waits for it.
pub(super) async fn work<T: Send + 'static>(
    session: &Session,
    context: &RequestContext<RoleServer>,
    run: &str,
    work: impl FnOnce(&Runner, &history::Entry) -> Result<T, OutcomeError> + Send + 'static,
) -> Result<T, Error> {
    if session.closing.is_cancelled() || context.ct.is_cancelled() {
        return Err(Error::Closing);
    }
    let (runner, run) = (session.runner.clone(), run.to_owned());
    let done = tokio::task::spawn_blocking(move || {
        let entry = find(&runner, &run)?;
        Ok(work(&runner, &entry)?)
    });
    done.await.map_err(|error| {
        tracing::error!("the changes of a run: {error}");
        Error::Broken
    })?
}

pub(super) fn refused(why: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(format!("Nothing was changed: {why}."))])
}

pub(super) fn answer(done: Result<Value, Error>) -> CallToolResult {
    match done {
        Ok(value) => CallToolResult::structured(value),
        Err(Error::Outcome(error)) => CallToolResult::structured_error(of_error(&error)),
        Err(error) => refused(&error.to_string()),
    }
}

/// As much of a list as there is room for, and how much more there is.
fn listed<T>(all: &[T], mut room: usize, shown: impl Fn(&T) -> Value) -> (Vec<Value>, usize) {
    let mut list = Vec::new();
    for one in all {
        let value = shown(one);
        let length = value.to_string().len() + 1;
        if length > room {
            break;
        }
        room -= length;
        list.push(value);
    }
    let more = all.len() - list.len();
    (list, more)
}

pub(super) fn of_applied(applied: &Applied) -> Value {
    let room = if applied.pending.is_empty() { ROOM - 3072 } else { ROOM - 3072 - 2560 };
    let (changed, more) = listed(
        &applied.changed,
        room,
        |(what, path)| json!({ "path": one_line(path, PATH), "change": what }),
    );
    let (kept, _) = listed(&applied.kept_folders, 1024, |path| one_line(path, PATH).into());
    let mut value = json!({
        "run_id": applied.run_id,
        "workspace": applied.workspace,
        "state": applied.state,
        "dry_run": applied.dry_run,
        "already_there": applied.already,
        "changed": changed,
    });
    if more > 0 {
        value["more"] = more.into();
    }
    if !kept.is_empty() {
        value["kept_folders"] = kept.into();
    }
    let (linked, _) = listed(&applied.linked, 1024, |path| one_line(path, PATH).into());
    let (mounted, _) = listed(&applied.mounted, 1024, |path| one_line(path, PATH).into());
    if !mounted.is_empty() {
        value["mounted"] = mounted.into();
    }
    if !linked.is_empty() {
        value["linked"] = linked.into();
    }
    let (obeyed, _) = listed(
        &applied.obeyed,
        1024,
        |order| json!({ "path": one_line(&order.path, PATH), "why": order.why }),
    );
    if !applied.pending.is_empty() {
        let (pending, more) = listed(&applied.pending, 768, |path| one_line(path, PATH).into());
        value["pending"] = pending.into();
        value["more_pending"] = more.into();
        value["protected"] = of_needs(&applied.protected, 768).0.into();
        value["conflicts"] = listed(&applied.conflicts, 1024, of_conflict).0.into();
    }
    if !applied.not_undoable.is_empty() {
        value["not_undoable"] = applied.not_undoable.len().into();
    }
    if !obeyed.is_empty() {
        value["obeyed"] = obeyed.into();
    }
    value
}

fn of_needs(needs: &[NeedsYes], room: usize) -> (Vec<Value>, usize) {
    listed(
        needs,
        room,
        |one| json!({ "path": one_line(&one.path, PATH), "change": one.change.word(), "why": one.why }),
    )
}

/// The answer where a person's yes is needed and was not had; `kind` and message say why, `next` is
/// for the user to do.
pub(super) fn protected(
    needs: &[NeedsYes],
    (kind, message): (&'static str, Option<&str>),
    hint: &str,
    next: Option<String>,
) -> CallToolResult {
    let message = message.map_or_else(
        || OutcomeError::from(ApplyError::Protected(needs.to_vec())).to_string(),
        str::to_owned,
    );
    let (list, more) = of_needs(needs, ROOM);
    let mut value = json!({ "protected": list });
    if more > 0 {
        value["more"] = more.into();
    }
    value["error"] = json!({ "kind": kind, "message": message, "hint": hint });
    if let Some(next) = next {
        value["next"] = next.into();
    }
    CallToolResult::structured_error(value)
}

fn of_conflict(one: &Conflict) -> Value {
    json!({
        "path": one_line(&one.path, PATH),
        "expected": one.expected,
        "found": one.found,
        "advice": one.advice,
    })
}

fn of_error(error: &OutcomeError) -> Value {
    let mut value = json!({});
    let mut put = |name: &str, (list, more): (Vec<Value>, usize)| {
        value[name] = list.into();
        if more > 0 {
            value["more"] = more.into();
        }
    };
    match error {
        OutcomeError::Apply(ApplyError::Conflicts(conflicts)) => {
            put("conflicts", listed(conflicts, ROOM, of_conflict));
        }
        OutcomeError::Apply(ApplyError::Protected(needs)) => {
            put("protected", of_needs(needs, ROOM));
        }
        _ => {}
    }
    value["error"] = json!({
        "kind": error.kind(),
        "message": text::prefix(&text::clean(&error.to_string()), 600),
        "hint": error.hint(),
    });
    value
}
