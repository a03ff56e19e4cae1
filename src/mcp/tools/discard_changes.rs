//! Let the changes of a run go.

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool, ToolAnnotations};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::changes::{self, Error};
use super::entry::Entry;
use crate::mcp::session::Session;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| tool(),
    call: |session, arguments, context| {
        async move { Some(call(session, arguments, context).await) }.boxed()
    },
    refuse: changes::refused,
    example: r#"{"run_id": "…"}"#,
};

const NAME: &str = "discard_changes";
const DESCRIPTION: &str = "Deletes an isolated run's changes for good.";

fn tool() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": { "run_id": { "type": "string" } },
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
    let mut reader = Reader::new(arguments, &["run_id"]);
    let run = reader.required_text("run_id");
    if let Err(error) = reader.finish() {
        return changes::refused(&error.to_string());
    }
    let runner = session.runner.clone();
    let done = changes::work(&session, &context, move || {
        let entry = changes::find(&runner, &run)?;
        Ok::<_, Error>(runner.discard(&entry)?)
    });
    changes::answer(done.await.map(|discarded| {
        json!({ "run_id": discarded.run_id, "discarded": discarded.discarded, "state": discarded.state })
    }))
}
