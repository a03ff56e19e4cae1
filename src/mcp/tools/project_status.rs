//! Status of the project in git.

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject};
use rmcp::service::RequestContext;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::arguments::Reader;
use super::entry::{Entry, answered};
use super::project::{self, Error, Wanted};
use crate::mcp::session::Session;
use crate::text;
use crate::workspace::changeset::Manifest;
use crate::workspace::project::StatusReport;

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    describe: |_| project::tool(NAME, TITLE, DESCRIPTION, properties(), &[]),
    call: |session, arguments, context| answered(call(session, arguments, context)),
    refuse: project::refused,
    example: "{}",
};

const NAME: &str = "project_status";
const TITLE: &str = "Status of the project in git";
const DESCRIPTION: &str = "\
Shows what git says of the workspace: branch, changed files and the last commits.";
/// What the names of changed files may take as JSON.
const ROOM: usize = 6 * 1024;
const LONGEST: usize = 500;

const ARGUMENTS: &[&str] = &["workspace", "run_id"];

fn properties() -> Value {
    json!({})
}

async fn call(
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> CallToolResult {
    let mut reader = Reader::new(arguments, ARGUMENTS);
    let wanted = Wanted::read(&mut reader);
    let work = async {
        reader.finish()?;
        let opener = session.clone();
        let (project, changes) = project::blocking(move || {
            Ok::<_, Error>((wanted.open(&opener)?, wanted.changes(&opener)?))
        })
        .await?;
        match changes {
            // Git knows nothing of it, and needs not: the list is by itself what it would say.
            Some(changes) => Ok(Status::Run(RunStatus::of(&changes))),
            None => Ok::<_, Error>(Status::Git(project.status().await?)),
        }
    };
    project::answer(&session, &context, work).await
}

enum Status {
    Git(StatusReport),
    Run(RunStatus),
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Git(status) => status.serialize(serializer),
            Self::Run(status) => status.serialize(serializer),
        }
    }
}

/// What a run changed in its own view.
#[derive(Serialize)]
struct RunStatus {
    changed_total: usize,
    truncated: bool,
    changed: Vec<RunChange>,
}

#[derive(Serialize)]
struct RunChange {
    change: &'static str,
    path: String,
}

impl RunStatus {
    fn of(changes: &Manifest) -> Self {
        let mut room = ROOM;
        let all = changes.changes.iter().map(|change| RunChange {
            change: change.word(),
            path: text::one_line(&change.path.to_string(), LONGEST),
        });
        let listed: Vec<_> = all
            .take_while(|one| {
                let length = one.path.chars().map(text::json_length).sum::<usize>() + 40;
                let fits = length <= room;
                room = room.saturating_sub(length);
                fits
            })
            .collect();
        let changed_total = changes.changes.len();
        let truncated = listed.len() < changed_total || !changes.complete;
        Self { changed_total, truncated, changed: listed }
    }
}
