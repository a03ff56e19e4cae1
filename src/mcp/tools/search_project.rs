//! Search the project.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::project::{self, Error, Wanted};
use crate::mcp::session::Session;
use crate::workspace::project::{Query, Selection};

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| project::tool(NAME, TITLE, DESCRIPTION, properties(), &["pattern"]),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: project::refused,
    example: r#"{"pattern": "fn main"}"#,
};

const NAME: &str = "search_project";
const TITLE: &str = "Search the project";
const DESCRIPTION: &str = "\
Searches files of the workspace for a regular expression of ripgrep, within lines.";
const ARGUMENTS: &[&str] = &[
    "pattern",
    "path",
    "glob",
    "hidden",
    "case_sensitive",
    "context",
    "max_results",
    "workspace",
    "run_id",
];

const MOST_CONTEXT: u64 = 10;
const MOST_RESULTS: u64 = 200;
const RESULTS: u64 = 50;

fn properties() -> Value {
    json!({
        "pattern": { "type": "string", "minLength": 1 },
        "path": { "type": "string", "description": "Folder or file." },
        "glob": { "type": "string", "description": "Such as *.rs or src/**; ! excludes." },
        "hidden": { "type": "boolean", "description": "Names with a leading dot too." },
        "case_sensitive": { "type": "boolean", "default": true },
        "context": {
            "type": "integer",
            "minimum": 0,
            "maximum": MOST_CONTEXT,
            "description": "Lines around each match.",
        },
        "max_results": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_RESULTS,
            "default": RESULTS,
        },
    })
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let query = Query {
        pattern: reader.required_text("pattern"),
        selection: Selection {
            path: reader.text("path").unwrap_or_default(),
            glob: reader.text("glob"),
            hidden: reader.flag("hidden").unwrap_or(false),
        },
        case_sensitive: reader.flag("case_sensitive").unwrap_or(true),
        context: size(reader.number("context", 0, MOST_CONTEXT).unwrap_or(0)),
        most: size(reader.number("max_results", 1, MOST_RESULTS).unwrap_or(RESULTS)),
    };
    let wanted = Wanted::read(&mut reader);
    let work = async {
        reader.finish()?;
        let session = session.clone();
        project::blocking(move || {
            let project = wanted.open(&session)?;
            Ok::<_, Error>(project.search(&query)?)
        })
        .await
    };
    project::answer(&session, &context, work).await
}
