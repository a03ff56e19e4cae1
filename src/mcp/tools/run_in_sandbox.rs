//! The tool that runs one task, from a call's arguments to its answer.

use std::path::PathBuf;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, MetaObject, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::{BadArguments, Reader};
use super::entry::{Entry, perhaps};
use crate::config::{Disconnect, Keep, Limits};
use crate::mcp::logs::Logs;
use crate::mcp::progress::Progress;
use crate::mcp::session::Session;
use crate::mcp::{patience, resources, result, standing};
use crate::runner::{CancelReason, Run, Status, Task};
use crate::workspace::Mode;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| perhaps(call(session, arguments, context)),
    refuse: result::refused,
    example: r#"{"task": "…"}"#,
};

pub(super) const NAME: &str = "run_in_sandbox";

const TITLE: &str = "Run a coding task in a sandbox";

const DESCRIPTION: &str = "\
Runs one small coding task with a local agent in a fresh hardened container without network, for \
seconds to minutes. Returns `status`, what to do `next`, the agent's `answer` and the changed files.";

const ARGUMENTS: &[&str] = &[
    "task",
    "workspace",
    "mode",
    "timeout",
    "model",
    "command",
    "verify",
    "session",
    "session_fork",
    "background",
];

pub(super) const MODES: &[(&str, Mode)] =
    &[("direct", Mode::Direct), ("isolated", Mode::Isolated), ("read_only", Mode::ReadOnly)];

/// Claude Code shows only the beginning of results beyond its own bound; ours stay far below this.
const MAX_RESULT_CHARS: u32 = 50_000;

pub(super) fn meta() -> MetaObject {
    let mut meta = MetaObject::new();
    meta.insert("anthropic/maxResultSizeChars".into(), MAX_RESULT_CHARS.into());
    meta
}

/// Words that Claude Code finds the tool by, where it shows its model only the names of tools and a
/// search. They are shown to no model; what the name and the description have is found anyway.
const SEARCH_HINT: &str = "delegate local agent subagent offload docker refactoring";

fn tool(limits: &Limits) -> Tool {
    let mut meta = meta();
    meta.insert("anthropic/searchHint".into(), SEARCH_HINT.into());
    Tool::new(NAME, DESCRIPTION, input_schema(limits))
        .with_title(TITLE)
        .with_raw_output_schema(result::schema().into())
        .with_annotations(ToolAnnotations::from_raw(
            Some(TITLE.into()),
            Some(false),
            Some(true),
            Some(false),
            Some(false),
        ))
        .with_meta(meta)
}

fn input_schema(limits: &Limits) -> JsonObject {
    let modes: Vec<_> = MODES.iter().map(|(word, _)| *word).collect();
    let schema = json!({
        "type": "object",
        "properties": {
            "task": {
                "type": "string",
                "minLength": 1,
                "description": "Aim, paths, what must stay, when it is done. The agent sees nothing else \
                                of the conversation.",
            },
            "workspace": {
                "type": "string",
                "description": "Folder to work in; by default the one the server was started in.",
            },
            "mode": {
                "type": "string",
                "enum": modes,
                "default": MODES[0].0,
                "description": "direct: edits a view of the folder, applied at a good end. isolated: \
                                the same, until apply_changes. read_only: for questions and reviews.",
            },
            "timeout": {
                "type": "integer",
                "minimum": 1,
                "maximum": limits.max_timeout,
                "default": limits.timeout,
                "description": "Seconds the agent may work.",
            },
            "model": {
                "type": "string",
                "description": "Model id, if not the configured one.",
            },
            "command": {
                "type": "string",
                "description": "Name of a prepared agent command; `task` is then its argument.",
            },
            "verify": {
                "type": "string",
                "description": "Shell command that proves success, such as `cargo test`; run in the \
                                sandbox before and after.",
            },
            "session": {
                "type": "string",
                "description": "`new`, or `session.id` of a result: the agent remembers that talk.",
            },
            "session_fork": {
                "type": "boolean",
                "description": "Go on in a copy of that session.",
            },
            "background": {
                "type": "boolean",
                "description": "Answer at once with a run_id for get_run.",
            },
        },
        "required": ["task"],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("written as an object") };
    schema
}

/// The task, and whether the caller waits for its end.
fn to_task(arguments: JsonObject) -> Result<(Task, bool), BadArguments> {
    let mut arguments = Reader::new(arguments, ARGUMENTS);
    let task = Task {
        text: arguments.required_text("task"),
        workspace: arguments.text("workspace").map(PathBuf::from),
        mode: arguments.one_of("mode", MODES).unwrap_or(MODES[0].1),
        timeout: arguments.seconds("timeout").map(Duration::from_secs),
        model: arguments.text("model"),
        command: arguments.text("command"),
        verify: arguments.text("verify"),
        session: arguments.text("session"),
        session_fork: arguments.flag("session_fork").unwrap_or(false),
    };
    let background = arguments.flag("background").unwrap_or(false);
    arguments.finish().map(|()| (task, background))
}

/// One call. A refused task is an answer too, one that the host's model can read and correct;
/// there is none only when the host's leaving cancelled the run.
async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    if session.closing.is_cancelled() {
        return Some(result::refused("the server is shutting down"));
    }
    let (task, background) = match to_task(arguments) {
        Ok(asked) => asked,
        Err(error) => return Some(result::refused(&error.to_string())),
    };
    let run = match session.runner.start(task) {
        Ok(run) => run,
        Err(error) => return Some(result::refused(&error.to_string())),
    };
    if background {
        return leave(run, session, context).await;
    }
    follow(run, &session, context).await
}

/// Answers as soon as the run goes on for certain, whatever becomes of us.
async fn leave(
    mut run: Run,
    session: Session,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let recorded = tokio::select! {
        biased;
        () = context.ct.cancelled() => return None,
        () = session.closing.cancelled() => {
            return Some(result::refused("the server is shutting down"));
        }
        recorded = run.begun() => recorded,
    };
    match recorded {
        Ok(true) => {}
        // Dropping the run cancels it.
        Ok(false) => {
            let why = "it could leave no record, so its result would be lost; the server's log has \
                       the reason";
            return Some(result::refused(why));
        }
        Err(error) => return Some(result::refused(&error.to_string())),
    }
    run.keep().await;
    let id = run.id().clone();
    tell_the_end(run, &session, context);
    Some(standing::running(&id))
}

/// Whether the run is on record; it tells only once.
async fn is_recorded(run: &mut Run, known: &mut Option<bool>) -> bool {
    if known.is_none() {
        *known = Some(run.begun().await.unwrap_or(false));
    }
    *known == Some(true)
}

/// Tells the host of the end of a run that no call waits for, if both live to see it.
fn tell_the_end(run: Run, session: &Session, mut context: RequestContext<RoleServer>) {
    // What came with the request keeps its session from being idle.
    context.extensions = rmcp::model::Extensions::default();
    let closing = session.closing.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = closing.cancelled() => {}
            _ = run.report() => resources::tell_changed(&context).await,
        }
    });
}

/// Tells the host what happens until the run is over, or for as long as the host bears it; cancels
/// it as soon as nobody wants it.
async fn follow(
    mut run: Run,
    session: &Session,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let settings = &session.runner.config().mcp;
    let heartbeat = Duration::from_secs(settings.heartbeat);
    let mut progress = Progress::start(&context, format!("started run {}", run.id()), heartbeat);
    let mut logs = Logs::start(&context, run.id(), &session.level);
    let limit = patience::of(settings, &context);
    let patience = async move {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(patience);
    if settings.keep == Keep::All {
        run.keep().await;
    }
    let canceller = run.canceller();
    let mut stopped = false;
    let (mut impatient, mut outlasted, mut lost) = (false, false, false);
    let mut recorded = None;
    let disconnect = session.runner.config().http.disconnect;
    loop {
        tokio::select! {
            biased;
            () = context.ct.cancelled(), if !stopped => {
                stopped = true;
                canceller.cancel(session.withdrawal(run.is_kept()));
                progress.silence();
                logs.silence();
            }
            () = session.closing.cancelled(), if !stopped => {
                if run.is_kept() {
                    outlasted = true;
                    break;
                }
                stopped = true;
                canceller.cancel(session.parting());
            }
            event = run.next_event() => match event {
                Some(event) => {
                    progress.see(&event.event);
                    logs.see(&event.event);
                }
                None => break,
            },
            () = session.lost.cancelled(), if !stopped && !lost => {
                lost = true;
                match disconnect {
                    // Without a record the result could be had from nowhere else.
                    Disconnect::Keep => {
                        if is_recorded(&mut run, &mut recorded).await {
                            run.keep().await;
                        }
                    }
                    Disconnect::Cancel => canceller.cancel(CancelReason::Asked),
                }
            }
            // Who has lost the connection may come back for the result itself.
            () = &mut patience, if !stopped && !impatient && !lost => {
                impatient = true;
                if is_recorded(&mut run, &mut recorded).await {
                    run.keep().await;
                    outlasted = true;
                    break;
                }
            }
            () = session.giving_up.cancelled() => break,
        }
    }
    let id = run.id().clone();
    if outlasted {
        tokio::join!(progress.finish(), logs.finish());
        if session.client_gone.is_cancelled() {
            return None;
        }
        tell_the_end(run, session, context);
        return Some(standing::running(&id));
    }
    let report = tokio::select! {
        biased;
        report = run.report() => Some(report),
        () = session.giving_up.cancelled() => None,
    };
    // No notification may follow the answer.
    tokio::join!(progress.finish(), logs.finish());
    let pointless = report.as_ref().is_none_or(|report| report.status == Status::Cancelled);
    if pointless && session.client_gone.is_cancelled() {
        return None;
    }
    resources::tell_changed(&context).await;
    Some(match report {
        Some(report) if report.is_of_death() => {
            standing::of_death(&id, !session.runner.is_unsettled(&id))
        }
        Some(report) => result::of_report(report),
        None => result::unconfirmed(&id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> JsonObject {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    #[test]
    fn arguments_become_a_task() {
        let (task, background) = to_task(object(json!({
            "task": "--do 'it'\n", "workspace": "sub", "mode": "read_only", "timeout": 90,
            "model": "m", "command": "git-commit", "verify": "make check",
            "session": "new", "session_fork": false, "background": true,
        })))
        .expect("good arguments");
        assert_eq!(task.text, "--do 'it'\n");
        assert_eq!(task.workspace, Some(PathBuf::from("sub")));
        assert_eq!(task.mode, Mode::ReadOnly);
        assert_eq!(task.timeout, Some(Duration::from_secs(90)));
        assert_eq!(task.model.as_deref(), Some("m"));
        assert_eq!(task.command.as_deref(), Some("git-commit"));
        assert_eq!(task.verify.as_deref(), Some("make check"));
        assert_eq!(task.session.as_deref(), Some("new"));
        assert!(background && !task.session_fork);
    }

    #[test]
    fn a_task_alone_is_enough() {
        let (task, background) = to_task(object(json!({"task": "x"}))).expect("good arguments");
        assert!(!background);
        assert_eq!(task.mode, Mode::Direct);
        assert_eq!((task.workspace, task.timeout), (None, None));
    }

    #[test]
    fn the_schema_and_the_reader_know_the_same_arguments() {
        let schema = input_schema(&Limits::default());
        let described: Vec<_> =
            schema["properties"].as_object().expect("properties").keys().cloned().collect();
        assert_eq!(described, ARGUMENTS, "in this order: serde_json must preserve it");
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["timeout"]["maximum"], 3600);
    }

    /// Every word of the tool costs context in every conversation.
    #[test]
    fn the_tool_is_short() {
        let mut tool = tool(&Limits::default());
        let whole = serde_json::to_string(&tool).expect("JSON").len();
        assert!(whole < 12_000, "{whole} bytes on the wire");
        // Hosts do not show the output schema to their model.
        tool.output_schema = None;
        let shown = serde_json::to_string(&tool).expect("JSON").len();
        assert!(shown < 1_900, "{shown} bytes in the model's context");
    }
}
