//! Carry the changes of a run over into its workspace.

use std::time::Duration;

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::changes::{self, Error};
use super::entry::Entry;
use crate::mcp::session::Session;
use crate::runner::ApplyOptions;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| tool(),
    call: |session, arguments, context| {
        async move { Some(call(session, arguments, context).await) }.boxed()
    },
    refuse: changes::refused,
    example: r#"{"run_id": "…"}"#,
};

const NAME: &str = "apply_changes";
const DESCRIPTION: &str = "Copies an isolated run's changes into its workspace, all or none.";
const ARGUMENTS: &[&str] = &["run_id", "only", "allow_protected", "dry_run"];

/// A host waits for the answer, and so for no other run for long.
const WAIT: Duration = Duration::from_secs(10);

fn tool() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {
            "run_id": { "type": "string" },
            "only": { "type": "array", "items": { "type": "string" } },
            "allow_protected": { "type": "boolean" },
            "dry_run": { "type": "boolean" },
        },
        "required": ["run_id"],
        "additionalProperties": false,
    });
    let Value::Object(schema) = schema else { unreachable!("written as an object") };
    Tool::new(NAME, DESCRIPTION, schema).with_annotations(ToolAnnotations::from_raw(
        None,
        Some(false),
        Some(true),
        Some(true),
        Some(false),
    ))
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let run = reader.required_text("run_id");
    let options = ApplyOptions {
        only: reader.texts("only"),
        allow_protected: reader.flag("allow_protected").unwrap_or(false),
        dry_run: reader.flag("dry_run").unwrap_or(false),
        wait: Some(WAIT),
    };
    if let Err(error) = reader.finish() {
        return changes::refused(&error.to_string());
    }
    let runner = session.runner.clone();
    let done = changes::work(&session, &context, move || {
        let entry = changes::find(&runner, &run)?;
        Ok::<_, Error>(runner.apply(&entry, &options, |_| {})?)
    });
    changes::answer(done.await.map(|applied| changes::of_applied(&applied)))
}
