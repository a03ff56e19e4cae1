//! List files of the project.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::project::{self, Error, Wanted};
use crate::mcp::session::Session;
use crate::workspace::project::Selection;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| project::tool(NAME, TITLE, DESCRIPTION, properties(), &[]),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: project::refused,
    example: r#"{"path": "src"}"#,
};

const NAME: &str = "list_project_files";
const TITLE: &str = "List files of the project";
const DESCRIPTION: &str = "\
Lists files of the workspace that no .gitignore hides. `next_cursor` in the answer is the \
`cursor` to go on with.";
const ARGUMENTS: &[&str] = &["path", "glob", "hidden", "cursor", "workspace", "run_id"];

fn properties() -> Value {
    json!({
        "path": { "type": "string", "description": "Folder, relative to the workspace." },
        "glob": { "type": "string", "description": "Such as *.rs or src/**; ! excludes." },
        "hidden": { "type": "boolean", "description": "Names with a leading dot too." },
        "cursor": { "type": "string" },
    })
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let selection = Selection {
        path: reader.text("path").unwrap_or_default(),
        glob: reader.text("glob"),
        hidden: reader.flag("hidden").unwrap_or(false),
    };
    let cursor = reader.text("cursor");
    let wanted = Wanted::read(&mut reader);
    let work = async {
        reader.finish()?;
        let session = session.clone();
        project::blocking(move || {
            let project = wanted.open(&session)?;
            Ok::<_, Error>(project.list(&selection, cursor.as_deref())?)
        })
        .await
    };
    project::answer(&session, &context, work).await
}
