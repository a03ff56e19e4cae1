//! The tool that runs one task, from a call's arguments to its answer.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, MetaObject, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::{BadArguments, Reader};
use super::entry::Entry;
use crate::config::Limits;
use crate::mcp::logs::Logs;
use crate::mcp::progress::Progress;
use crate::mcp::session::Session;
use crate::mcp::{resources, result};
use crate::runner::{CancelReason, Run, Status, Task};
use crate::workspace::Mode;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| call(session, arguments, context).boxed(),
    refuse: result::refused,
    example: r#"{"task": "…"}"#,
};

const NAME: &str = "run_in_sandbox";

const TITLE: &str = "Run a coding task in a sandbox";

const DESCRIPTION: &str = "\
Runs one coding task with a local agent in a fresh hardened container without network and returns \
its answer, the changed files and a verdict in `status`. Takes seconds to minutes. The agent sees \
only `task` and the workspace folder, so say all it needs: goal, paths, constraints, and how to \
check the result.";

const ARGUMENTS: &[&str] = &["task", "workspace", "mode", "timeout", "model", "command"];

const MODES: &[(&str, Mode)] =
    &[("direct", Mode::Direct), ("isolated", Mode::Isolated), ("read_only", Mode::ReadOnly)];

/// Claude Code shows only the beginning of results beyond its own bound; ours stay far below this.
const MAX_RESULT_CHARS: u32 = 50_000;

fn tool(limits: &Limits) -> Tool {
    let mut meta = MetaObject::new();
    meta.insert("anthropic/maxResultSizeChars".into(), MAX_RESULT_CHARS.into());
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
                "description": "What the agent is to do; it sees nothing else of the conversation.",
            },
            "workspace": {
                "type": "string",
                "description": "Folder to work in; by default the one the server was started in.",
            },
            "mode": {
                "type": "string",
                "enum": modes,
                "default": MODES[0].0,
                "description": "direct: edits the folder itself. read_only: for questions and \
                                reviews. isolated: edits a view of its own; the \
                                folder stays as it is.",
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
        },
        "required": ["task"],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("written as an object") };
    schema
}

fn to_task(arguments: JsonObject) -> Result<Task, BadArguments> {
    let mut arguments = Reader::new(arguments, ARGUMENTS);
    let task = Task {
        text: arguments.required_text("task"),
        workspace: arguments.text("workspace").map(PathBuf::from),
        mode: arguments.one_of("mode", MODES).unwrap_or(MODES[0].1),
        timeout: arguments.seconds("timeout").map(Duration::from_secs),
        model: arguments.text("model"),
        command: arguments.text("command"),
    };
    arguments.finish().map(|()| task)
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
    let task = match to_task(arguments) {
        Ok(task) => task,
        Err(error) => return Some(result::refused(&error.to_string())),
    };
    match session.runner.start(task) {
        Ok(run) => follow(run, &session, context).await,
        Err(error) => Some(result::refused(&error.to_string())),
    }
}

/// Tells the host what happens until the run is over; cancels it as soon as nobody wants it.
async fn follow(
    mut run: Run,
    session: &Session,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let heartbeat = Duration::from_secs(session.runner.config().mcp.heartbeat);
    let mut progress = Progress::start(&context, run.id(), heartbeat);
    let mut logs = Logs::start(&context, run.id(), &session.level);
    let canceller = run.canceller();
    let mut stopped = false;
    loop {
        tokio::select! {
            biased;
            () = context.ct.cancelled(), if !stopped => {
                stopped = true;
                canceller.cancel(CancelReason::Asked);
                progress.silence();
                logs.silence();
            }
            () = session.closing.cancelled(), if !stopped => {
                stopped = true;
                canceller.cancel(CancelReason::Shutdown);
            }
            event = run.next_event() => match event {
                Some(event) => {
                    progress.see(&event.event);
                    logs.see(&event.event);
                }
                None => break,
            },
            () = session.giving_up.cancelled() => break,
        }
    }
    let id = run.id().clone();
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
    Some(report.map_or_else(|| result::unconfirmed(&id), result::of_report))
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
        let task = to_task(object(json!({
            "task": "--do 'it'\n", "workspace": "sub", "mode": "read_only", "timeout": 90,
            "model": "m", "command": "git-commit",
        })))
        .expect("good arguments");
        assert_eq!(task.text, "--do 'it'\n");
        assert_eq!(task.workspace, Some(PathBuf::from("sub")));
        assert_eq!(task.mode, Mode::ReadOnly);
        assert_eq!(task.timeout, Some(Duration::from_secs(90)));
        assert_eq!(task.model.as_deref(), Some("m"));
        assert_eq!(task.command.as_deref(), Some("git-commit"));
    }

    #[test]
    fn a_task_alone_is_enough() {
        let task = to_task(object(json!({"task": "x"}))).expect("good arguments");
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
