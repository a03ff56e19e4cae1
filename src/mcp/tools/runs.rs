//! What the tools for runs on record share.

use rmcp::model::{CallToolResult, ContentBlock, Tool, ToolAnnotations};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::arguments::Reader;
use crate::history::Entry;
use crate::mcp::session::Session;
use crate::mcp::standing;

pub(super) const RUN_ID: &str = "run_id";

/// A tool about one run, or about all.
pub(super) fn tool(
    name: &'static str,
    description: &'static str,
    properties: Value,
    about_one: bool,
    read_only: bool,
) -> Tool {
    let mut all = Map::new();
    if about_one {
        all.insert(RUN_ID.into(), json!({ "type": "string" }));
    }
    if let Value::Object(properties) = properties {
        all.extend(properties);
    }
    let mut schema = Map::new();
    schema.insert("type".into(), "object".into());
    schema.insert("properties".into(), all.into());
    if about_one {
        schema.insert("required".into(), json!([RUN_ID]));
    }
    schema.insert("additionalProperties".into(), false.into());
    let annotations = ToolAnnotations::from_raw(None, Some(read_only), None, None, None);
    Tool::new(name, description, schema).with_annotations(annotations)
}

/// The run that a call is about, if all its arguments are right and this host may hear of it.
pub(super) async fn find(session: &Session, reader: Reader, word: String) -> Result<Entry, String> {
    reader.finish().map_err(|error| error.to_string())?;
    let runner = session.runner.clone();
    let found = spawn_blocking(move || standing::find(&runner, &word)).await;
    found.map_err(|error| error.to_string())?.map(|(entry, _)| entry)
}

pub(super) fn refused(why: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(format!("Nothing was done: {why}."))])
}
