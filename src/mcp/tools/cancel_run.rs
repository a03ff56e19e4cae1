//! Ends a run, whichever process carries it out.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::runs::{self, RUN_ID};
use crate::config::Limits;
use crate::history::State;
use crate::mcp::session::Session;
use crate::mcp::standing;
use crate::runner::{Glance, Stopped, stop};

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: runs::refused,
    example: r#"{"run_id": "20260131-235959-k3f9"}"#,
};

const NAME: &str = "cancel_run";
const DESCRIPTION: &str = "Cancels a run and removes its container.";

/// How long the removal is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

fn tool(_: &Limits) -> Tool {
    runs::tool(NAME, DESCRIPTION, Value::Null, true, false)
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, &[RUN_ID]);
    let word = reader.required_text(RUN_ID);
    let entry = match runs::find(&session, reader, word).await {
        Ok(entry) => entry,
        Err(why) => return runs::refused(&why),
    };
    let stopped = tokio::select! {
        biased;
        stopped = stop(&entry, PATIENCE) => stopped,
        // It has been asked, and that is all that was wanted.
        () = context.ct.cancelled() => Ok(Stopped::NotYet),
        () = session.closing.cancelled() => Ok(Stopped::NotYet),
    };
    let note = match stopped {
        Err(error) => return runs::refused(&format!("run {} goes on: {error}", entry.id())),
        Ok(Stopped::Before(State::Died) | Stopped::Died) => {
            return standing::over(&session.runner, entry).await;
        }
        Ok(Stopped::Before(_)) => "it was over before; nothing was done",
        Ok(Stopped::Now) => "everything of it is gone",
        Ok(Stopped::NotYet) => {
            let mut value = standing::going_on(entry.id());
            let note = "it was asked to end, and is still removing its container";
            value.insert("note".into(), note.into());
            return CallToolResult::structured(Value::Object(value));
        }
    };
    let glance = Glance::at(&entry);
    CallToolResult::structured(json!({
        "run_id": glance.run_id, "status": glance.status, "note": note,
    }))
}
