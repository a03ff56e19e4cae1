//! Let the changes of a run go.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::changes;
use super::entry::{Entry, answered};
use crate::mcp::session::Session;
use crate::runner::Runner;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| changes::tool(NAME, DESCRIPTION, Value::Null),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: changes::refused,
    example: r#"{"run_id": "…"}"#,
};

const NAME: &str = "discard_changes";
const DESCRIPTION: &str = "Deletes a run's changes for good.";

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
    let done = changes::work(&session, &context, &run, Runner::discard);
    changes::answer(done.await.map(|discarded| json!(discarded)))
}
