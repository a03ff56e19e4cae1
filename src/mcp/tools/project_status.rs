//! Status of the project in git.

use futures_util::FutureExt;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::Entry;
use super::project::{self, Error};
use crate::mcp::session::Session;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| project::tool(NAME, TITLE, DESCRIPTION, properties(), &[]),
    call: |session, arguments, context| {
        async move { Some(call(session, arguments, context).await) }.boxed()
    },
    refuse: project::refused,
    example: "{}",
};

const NAME: &str = "project_status";
const TITLE: &str = "Status of the project in git";
const DESCRIPTION: &str = "\
Shows what git says of the workspace: branch, changed files and the last commits.";
const ARGUMENTS: &[&str] = &["workspace"];

fn properties() -> Value {
    json!({})
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let workspace = reader.text("workspace");
    let work = async {
        reader.finish()?;
        let opener = session.clone();
        let project =
            project::blocking(move || project::open(&opener, workspace.as_deref())).await?;
        Ok::<_, Error>(project.status().await?)
    };
    project::answer(&session, &context, work).await
}
