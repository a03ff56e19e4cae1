//! What the arguments of prompts and resources may be, for hosts that offer it while their user types.
//!
//! As everywhere, nothing is told of other folders than those that this host may work in.

use std::path::Path;

use rmcp::model::{
    ArgumentInfo, CompleteRequestParams, CompleteResult, CompletionInfo, ErrorData, Reference,
};
use tokio::task::spawn_blocking;

use super::prompts::{self, Kind};
use super::resources;
use crate::runner::Runner;
use crate::text::one_line;

const MOST: usize = CompletionInfo::MAX_VALUES;

/// A longer beginning is nobody's.
const LONGEST: usize = 4096;

pub(super) async fn of(
    runner: &Runner,
    request: CompleteRequestParams,
) -> Result<CompleteResult, ErrorData> {
    let ArgumentInfo { name, value, .. } = request.argument;
    let kind = match request.r#ref {
        Reference::Prompt(prompt) => prompts::kind(&prompt.name, &name)?,
        Reference::Resource(resource) if resources::is_template(&resource.uri) && name == "id" => {
            Kind::Run
        }
        other => return Err(unknown(&other, &name)),
    };
    let workspace = request.context.and_then(|context| context.arguments?.remove("workspace"));
    let runner = runner.clone();
    let found = spawn_blocking(move || {
        // One more than fits, to know that there are more.
        candidates(&runner, kind, &value, workspace.as_deref()).into_iter().take(MOST + 1).collect()
    });
    let failed = |why: String| ErrorData::internal_error(why, None);
    let mut values: Vec<String> = found.await.map_err(|error| failed(error.to_string()))?;
    let more = values.len() > MOST;
    values.truncate(MOST);
    CompletionInfo::with_pagination(values, None, more).map(CompleteResult::new).map_err(failed)
}

fn unknown(reference: &Reference, name: &str) -> ErrorData {
    let what = match reference {
        Reference::Resource(resource) => one_line(&resource.uri, 80),
        _ => "this".to_owned(),
    };
    let name = one_line(name, 60);
    ErrorData::invalid_params(format!("`{what}` has no argument `{name}` to be completed"), None)
}

fn candidates(runner: &Runner, kind: Kind, typed: &str, workspace: Option<&str>) -> Vec<String> {
    if typed.len() > LONGEST {
        return Vec::new();
    }
    let begins = |value: &String| value.starts_with(typed);
    match kind {
        Kind::Free => Vec::new(),
        Kind::Command => crate::sandbox::image::commands().into_iter().filter(begins).collect(),
        Kind::Workspace => {
            let roots = runner.roots().into_iter().map(|root| root.display().to_string());
            roots.filter(begins).collect()
        }
        Kind::Run => resources::ids(runner, typed).take(MOST + 1).collect(),
        Kind::Session => {
            let folder =
                workspace.and_then(|folder| runner.workspace(Some(Path::new(folder))).ok());
            let here = |session: &crate::session::Glance| {
                folder.as_ref().is_none_or(|folder| folder.path() == session.workspace)
                    && runner.may_tell_of(&session.workspace)
            };
            let sessions = crate::session::list(runner.state()).into_iter().filter(here);
            let ids = sessions.map(|session| session.session.to_string());
            std::iter::once(crate::session::NEW.to_owned()).chain(ids).filter(begins).collect()
        }
    }
}
