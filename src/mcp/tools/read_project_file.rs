//! Read a file of the project.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::project::{self, Error, Wanted};
use crate::mcp::session::Session;
use crate::workspace::project::Range;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| project::tool(NAME, TITLE, DESCRIPTION, properties(), &["path"]),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: project::refused,
    example: r#"{"path": "src/main.rs"}"#,
};

const NAME: &str = "read_project_file";
const TITLE: &str = "Read a file of the project";
const DESCRIPTION: &str = "\
Reads text lines of a file in the workspace. `next_line` in the answer is the `start_line` to go \
on with.";
const ARGUMENTS: &[&str] = &["path", "start_line", "lines", "workspace", "run_id"];

/// More never fit into an answer.
const MOST_LINES: u64 = 10_000;

fn properties() -> Value {
    json!({
        "path": { "type": "string", "description": "Relative to the workspace." },
        "start_line": { "type": "integer", "minimum": 1, "default": 1 },
        "lines": { "type": "integer", "minimum": 1, "maximum": MOST_LINES },
    })
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let path = reader.required_text("path");
    let start = reader.number("start_line", 1, u64::MAX).unwrap_or(1);
    let range = Range { start, lines: reader.number("lines", 1, MOST_LINES) };
    let wanted = Wanted::read(&mut reader);
    let work = async {
        reader.finish()?;
        let session = session.clone();
        project::blocking(move || {
            let project = wanted.open(&session)?;
            Ok::<_, Error>(project.read(&path, range)?)
        })
        .await
    };
    project::answer(&session, &context, work).await
}
