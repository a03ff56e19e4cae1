//! How a run stands, and its result once it is over.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool};
use rmcp::service::RequestContext;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::runs::{self, RUN_ID};
use crate::config::Limits;
use crate::history::{self, State};
use crate::mcp::patience;
use crate::mcp::progress::Progress;
use crate::mcp::session::Session;
use crate::mcp::standing::{self, Lately};

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: tool,
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: runs::refused,
    example: r#"{"run_id": "20260131-235959-k3f9"}"#,
};

const NAME: &str = "get_run";
const DESCRIPTION: &str = "\
Waits for a run and returns its result, or how it stands.";
const WAIT: &str = "wait_seconds";

const LONGEST_WAIT: u64 = 600;
const USUAL_WAIT: u64 = 30;

/// How often the record is looked at: the run is another process's.
const LOOK: Duration = Duration::from_millis(200);

fn tool(_: &Limits) -> Tool {
    let properties = json!({
        WAIT: {
            "type": "integer", "minimum": 0, "maximum": LONGEST_WAIT, "default": USUAL_WAIT,
        },
    });
    runs::tool(NAME, DESCRIPTION, properties, true, true)
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, &[RUN_ID, WAIT]);
    let word = reader.required_text(RUN_ID);
    let wait = reader.number(WAIT, 0, LONGEST_WAIT).unwrap_or(USUAL_WAIT);
    let entry = match runs::find(&session, reader, word).await {
        Ok(entry) => entry,
        Err(why) => return runs::refused(&why),
    };
    let settings = &session.runner.config().mcp;
    let patience = patience::of(settings, &context).unwrap_or(Duration::MAX);
    let deadline = Instant::now() + Duration::from_secs(wait).min(patience);
    let heartbeat = Duration::from_secs(settings.heartbeat);
    let progress = Progress::start(&context, format!("waiting for run {}", entry.id()), heartbeat);
    let answer = follow(&session, &context, entry, deadline, &progress).await;
    progress.finish().await;
    answer
}

async fn follow(
    session: &Session,
    context: &RequestContext<RoleServer>,
    entry: history::Entry,
    deadline: Instant,
    progress: &Progress,
) -> CallToolResult {
    let mut seen = 0;
    loop {
        let looked = entry.clone();
        let look = spawn_blocking(move || (looked.state(), Lately::of(&looked))).await;
        let lately = match look {
            Ok((State::Running, Ok(lately))) => lately,
            Ok((State::Running, Err(error))) => return standing::unreadable(&error.to_string()),
            Ok((State::Ended | State::Died, _)) => {
                return standing::over(&session.runner, entry).await;
            }
            Err(error) => return standing::unreadable(&error.to_string()),
        };
        if let Some(last) = lately.last().filter(|last| last.seq > seen) {
            seen = last.seq;
            progress.see(&last.event);
        }
        if Instant::now() >= deadline {
            return standing::stands(&entry, &lately);
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            () = context.ct.cancelled() => return standing::stands(&entry, &lately),
            () = session.closing.cancelled() => return standing::stands(&entry, &lately),
        }
    }
}
