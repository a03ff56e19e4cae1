//! Put back what applying the changes of a run has replaced.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::changes;
use super::entry::{Entry, answered};
use crate::mcp::session::Session;
use crate::text::one_line;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| changes::tool(NAME, DESCRIPTION, Value::Null),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: changes::refused,
    example: r#"{"run_id": "…"}"#,
};

const NAME: &str = "undo_changes";
const DESCRIPTION: &str = "Undoes apply_changes.";

/// A host waits for the answer, and so for no other run for long.
const WAIT: Duration = Duration::from_secs(10);
/// The number of restored paths that are listed.
const MOST: usize = 30;

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
    let done =
        changes::work(&session, &context, &run, |runner, entry| runner.undo(entry, Some(WAIT)));
    changes::answer(done.await.map(|undone| {
        let restored = undone.restored.iter().take(MOST).map(|path| one_line(path, 200));
        json!({
            "run_id": undone.run_id,
            "workspace": undone.workspace,
            "state": undone.state,
            "restored": restored.collect::<Vec<_>>(),
            "more": undone.restored.len().saturating_sub(MOST),
            "kept_folders": undone.kept_folders.len(),
        })
    }))
}
