//! The newest runs of the folders that the host may work in.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool};
use rmcp::service::RequestContext;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::runs;
use crate::config::Limits;
use crate::history::State;
use crate::mcp::resources;
use crate::mcp::session::Session;
use crate::mcp::shorten::fit;
use crate::mcp::standing;
use crate::mcp::untrusted::UNTRUSTED;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: runs::refused,
    example: "{}",
};

const NAME: &str = "list_runs";
const DESCRIPTION: &str = "Lists the newest runs.";
const ARGUMENTS: &[&str] = &["limit", "state"];

const STATES: &[(&str, State)] =
    &[("running", State::Running), ("ended", State::Ended), ("died", State::Died)];

const MOST: u64 = 50;
const USUAL: u64 = 10;

/// How much of the answer they may take together.
const ROOM: usize = 7 * 1024;

fn tool(_: &Limits) -> Tool {
    let states: Vec<_> = STATES.iter().map(|(word, _)| *word).collect();
    let properties = json!({
        "limit": { "type": "integer", "minimum": 1, "maximum": MOST, "default": USUAL },
        "state": { "type": "string", "enum": states },
    });
    runs::tool(NAME, DESCRIPTION, properties, false, true)
}

async fn call(
    session: Session,
    arguments: JsonObject,
    _: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let limit = reader.number("limit", 1, MOST).unwrap_or(USUAL);
    let state = reader.one_of("state", STATES);
    if let Err(error) = reader.finish() {
        return runs::refused(&error.to_string());
    }
    let listed = spawn_blocking(move || {
        let wanted = |state_of: &str| state.is_none_or(|state| state.as_str() == state_of);
        let glances = resources::glances(&session.runner, |glance| wanted(glance.state));
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut found: Vec<_> =
            glances.take(limit + 1).map(|glance| standing::line(&glance)).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let cut = fit(&mut found, ROOM) > 0;
        json!({ "more": more || cut, "untrusted": UNTRUSTED, "runs": found })
    });
    match listed.await {
        Ok(value) => CallToolResult::structured(value),
        Err(error) => runs::refused(&error.to_string()),
    }
}
