//! The tool that runs several tasks in one call, or one task several times for the best result.

use std::path::PathBuf;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::{BadArguments, Reader};
use super::entry::{Entry, perhaps};
use super::run_in_sandbox::{MODES, meta};
use crate::config::{Disconnect, Keep, Limits};
use crate::mcp::many::{answer, running};
use crate::mcp::progress::{Progress, Several};
use crate::mcp::session::Session;
use crate::mcp::{patience, resources, result};
use crate::runner::{CancelReason, Many, Pick, Report, Run, Step, Task, is_verified};
use crate::workspace::Mode;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| perhaps(call(session, arguments, context)),
    refuse: result::refused,
    example: r#"{"tasks": ["…", "…"]}"#,
};

const NAME: &str = "run_many";

const TITLE: &str = "Run several coding tasks in sandboxes";

const DESCRIPTION: &str = "\
run_in_sandbox for several tasks at once, isolated by default. `repeat` tries each several times; \
`pick` chooses one result by `verify`.";

const ARGUMENTS: &[&str] =
    &["tasks", "repeat", "pick", "verify", "workspace", "mode", "timeout", "model", "background"];

/// More in one call would wait for one another for too long.
const MOST: usize = 16;
const MOST_REPEATS: u64 = 8;

const PICKS: &[(&str, Pick)] = &[
    ("all", Pick::All),
    ("first_verified", Pick::FirstVerified),
    ("best_verified", Pick::BestVerified),
];

fn tool(limits: &Limits) -> Tool {
    let modes: Vec<_> = MODES.iter().map(|(word, _)| *word).collect();
    let picks: Vec<_> = PICKS.iter().map(|(word, _)| *word).collect();
    let schema = json!({
        "type": "object",
        "properties": {
            "tasks": {
                "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MOST,
            },
            "repeat": { "type": "integer", "minimum": 1, "maximum": MOST_REPEATS, "default": 1 },
            "pick": { "type": "string", "enum": picks, "default": PICKS[0].0 },
            "verify": { "type": "string" },
            "workspace": { "type": "string" },
            "mode": { "type": "string", "enum": modes, "default": "isolated" },
            "timeout": { "type": "integer", "minimum": 1, "maximum": limits.max_timeout },
            "model": { "type": "string" },
            "background": { "type": "boolean" },
        },
        "required": ["tasks"],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("written as an object") };
    Tool::new(NAME, DESCRIPTION, schema)
        .with_title(TITLE)
        .with_annotations(ToolAnnotations::from_raw(
            None,
            Some(false),
            Some(true),
            Some(false),
            Some(false),
        ))
        .with_meta(meta())
}

/// What a call asks for.
#[derive(Debug)]
struct Asked {
    tasks: Vec<Task>,
    pick: Pick,
    background: bool,
}

fn read(arguments: JsonObject) -> Result<Asked, String> {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let texts = reader.texts("tasks");
    let repeat = reader.number("repeat", 1, MOST_REPEATS).unwrap_or(1);
    let pick = reader.one_of("pick", PICKS).unwrap_or_default();
    let one = Task {
        workspace: reader.text("workspace").map(PathBuf::from),
        mode: reader.one_of("mode", MODES).unwrap_or(Mode::Isolated),
        timeout: reader.seconds("timeout").map(Duration::from_secs),
        model: reader.text("model"),
        verify: reader.text("verify"),
        ..Task::new("")
    };
    let background = reader.flag("background").unwrap_or(false);
    reader.finish().map_err(|error: BadArguments| error.to_string())?;
    if texts.is_empty() {
        return Err("`tasks` is empty; give a list of strings, one for each task".to_owned());
    }
    let repeat = usize::try_from(repeat).unwrap_or(1);
    let count = texts.len() * repeat;
    if count > MOST {
        return Err(format!("these are {count} runs (`tasks` times `repeat`); allowed are {MOST}"));
    }
    if pick != Pick::All && background {
        return Err("`pick` needs a call that waits; leave `background` out".to_owned());
    }
    let tasks = texts
        .into_iter()
        .flat_map(|text| std::iter::repeat_n(Task { text, ..one.clone() }, repeat));
    Ok(Asked { tasks: tasks.collect(), pick, background })
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    if session.closing.is_cancelled() {
        return Some(result::refused("the server is shutting down"));
    }
    let Asked { tasks, pick, background } = match read(arguments) {
        Ok(asked) => asked,
        Err(why) => return Some(result::refused(&why)),
    };
    // Nothing can be verified without a check, and each run would be paid for in vain.
    let checked = |task: &Task| session.runner.has_verify(task);
    if pick != Pick::All && !tasks.iter().all(checked) {
        let why = "`pick` needs `verify`, a command that tells whether a result is good";
        return Some(result::refused(why));
    }
    let mut runs: Vec<Run> = Vec::new();
    for (at, task) in tasks.into_iter().enumerate() {
        match session.runner.start(task) {
            Ok(run) => runs.push(run),
            // Those that have begun are cancelled as they are dropped.
            Err(error) => return Some(result::refused(&format!("task {}: {error}", at + 1))),
        }
    }
    let many = Many::new(runs);
    if background {
        return Some(leave(many, &session).await);
    }
    follow(many, pick, &session, context).await
}

async fn leave(mut many: Many, session: &Session) -> CallToolResult {
    let kept = tokio::select! {
        biased;
        () = session.closing.cancelled() => false,
        kept = many.keep() => kept,
    };
    if !kept {
        return result::refused("a run could leave no record, so its result would be lost");
    }
    running(many.ids())
}

/// Tells the host what happens until all is over, or for as long as the host bears it; cancels
/// everything as soon as nobody wants it.
async fn follow(
    mut many: Many,
    pick: Pick,
    session: &Session,
    context: RequestContext<RoleServer>,
) -> Option<CallToolResult> {
    let settings = &session.runner.config().mcp;
    let count = many.ids().len();
    let first = format!("started {count} runs");
    let mut progress = Progress::start(&context, first, Duration::from_secs(settings.heartbeat));
    let patience = async {
        match patience::of(settings, &context) {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(patience);
    // What nobody picks from goes on by itself; picking needs us.
    let mut kept = settings.keep == Keep::All && pick == Pick::All && many.keep().await;
    let mut reports: Vec<Option<Report>> = vec![None; count];
    let mut several = Several::new(count);
    let (mut stopped, mut impatient, mut lost) = (false, false, false);
    let disconnect = session.runner.config().http.disconnect;
    let outlasted = loop {
        tokio::select! {
            biased;
            () = context.ct.cancelled(), if !stopped => {
                stopped = true;
                many.cancel(session.withdrawal(kept));
                progress.silence();
            }
            () = session.closing.cancelled(), if !stopped => {
                if kept {
                    break true;
                }
                stopped = true;
                many.cancel(session.parting());
            }
            step = many.next() => match step {
                Some((at, Step::Event(event))) => {
                    progress.see_of(&mut several, at + 1, &event.event);
                },
                Some((at, Step::Ended(report))) => {
                    progress.ended(&mut several, at + 1, report.status);
                    if pick == Pick::FirstVerified && is_verified(&report) {
                        many.cancel(CancelReason::Asked);
                    }
                    reports[at] = Some(*report);
                }
                None => break false,
            },
            () = session.lost.cancelled(), if !stopped && !lost => {
                lost = true;
                match disconnect {
                    Disconnect::Keep => kept = kept || pick == Pick::All && many.keep().await,
                    Disconnect::Cancel => many.cancel(CancelReason::Asked),
                }
            }
            // Who has lost the connection may come back for the result itself.
            () = &mut patience, if !stopped && !impatient && !lost => {
                impatient = true;
                if many.keep().await {
                    break true;
                }
            }
            () = session.giving_up.cancelled() => break false,
        }
    };
    progress.finish().await;
    if (outlasted || stopped) && session.client_gone.is_cancelled() {
        return None;
    }
    if outlasted {
        return Some(running(many.ids()));
    }
    resources::tell_changed(&context).await;
    Some(answer(many.ids(), reports, pick))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<Asked, String> {
        let Value::Object(object) = value else { panic!("an object") };
        super::read(object)
    }

    #[test]
    fn tasks_are_isolated_and_repeated_as_asked() {
        let asked = read(json!({ "tasks": ["a", "b"] })).expect("good");
        let texts: Vec<_> = asked.tasks.iter().map(|task| task.text.as_str()).collect();
        assert_eq!(texts, ["a", "b"]);
        assert!(asked.tasks.iter().all(|task| task.mode == Mode::Isolated));
        assert_eq!((asked.pick, asked.background), (Pick::All, false));
        let asked = read(json!({
            "tasks": "a", "repeat": 3, "pick": "best_verified", "verify": "true", "mode": "direct",
            "timeout": 9, "model": "m", "workspace": "w",
        }))
        .expect("good");
        assert_eq!(asked.tasks.len(), 3);
        assert_eq!(asked.tasks[2].verify.as_deref(), Some("true"));
        assert_eq!(asked.tasks[2].mode, Mode::Direct);
        assert_eq!(asked.pick, Pick::BestVerified);
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (arguments, part) in [
            (json!({}), "`tasks` is empty"),
            (json!({ "tasks": [] }), "`tasks` is empty"),
            (json!({ "tasks": [1] }), "a list of strings"),
            (json!({ "tasks": vec!["a"; 17] }), "17 runs"),
            (json!({ "tasks": ["a", "b", "c"], "repeat": 8 }), "24 runs"),
            (json!({ "tasks": ["a"], "repeat": 9 }), "from 1 to 8"),
            (json!({ "tasks": ["a"], "pick": "worst" }), "`best_verified`"),
            (json!({ "tasks": ["a"], "pick": "first_verified", "background": true }), "waits"),
            (json!({ "task": "a" }), "did you mean `tasks`"),
        ] {
            let why = read(arguments).expect_err("refused");
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn the_schema_and_the_reader_know_the_same_arguments() {
        let tool = tool(&Limits::default());
        let schema = tool.input_schema["properties"].as_object().expect("properties");
        assert_eq!(schema.keys().collect::<Vec<_>>(), ARGUMENTS);
    }
}
