//! The tools, as hosts see them: each is one file and one line in the table.

mod apply_changes;
mod arguments;
mod cancel_run;
mod changes;
mod discard_changes;
mod entry;
mod get_run;
mod list_project_files;
mod list_runs;
mod project;
mod project_status;
mod read_project_file;
mod run_in_sandbox;
mod run_many;
mod runs;
mod search_project;
mod undo_changes;

use rmcp::RoleServer;
use rmcp::model::{CallToolResult, ErrorData, JsonObject, Tool};
use rmcp::service::RequestContext;
use serde_json::Value;

pub(super) use self::arguments::is_yes;
use self::entry::{Answer, Entry};
use super::session::Session;
use crate::config::Limits;
use crate::text;

pub(super) const RUN: &str = run_in_sandbox::NAME;

pub(super) const METHOD: &str = "tools/call";

const TABLE: &[Entry] = &[
    run_in_sandbox::ENTRY,
    run_many::ENTRY,
    get_run::ENTRY,
    list_runs::ENTRY,
    cancel_run::ENTRY,
    read_project_file::ENTRY,
    list_project_files::ENTRY,
    search_project::ENTRY,
    project_status::ENTRY,
    apply_changes::ENTRY,
    discard_changes::ENTRY,
    undo_changes::ENTRY,
];

/// All tools; their texts name the limits in force.
pub(super) fn all(limits: &Limits) -> Vec<Tool> {
    TABLE.iter().map(|entry| (entry.describe)(limits)).collect()
}

/// Starts a call of the tool with this name.
pub(super) fn call(
    name: &str,
    session: Session,
    arguments: JsonObject,
    context: RequestContext<RoleServer>,
) -> Result<Answer, ErrorData> {
    let entry = find(&name.into())?;
    Ok((entry.call)(session, arguments, context))
}

/// The answer to a call whose arguments are not even an object: some models write them as a string
/// of JSON, and some hosts pass that on.
pub(super) fn misshapen(params: Option<Value>) -> Result<CallToolResult, ErrorData> {
    let params = params.unwrap_or_default();
    let Entry { refuse, example, .. } = find(&params["name"])?;
    Ok(refuse(&format!("`arguments` must be a JSON object such as {example}")))
}

fn find(name: &Value) -> Result<&'static Entry, ErrorData> {
    TABLE.iter().find(|entry| *name == entry.name).ok_or_else(|| {
        let name = text::one_line(&name.as_str().map_or_else(|| name.to_string(), Into::into), 80);
        let known: Vec<_> = TABLE.iter().map(|entry| format!("`{}`", entry.name)).collect();
        let message = format!("there is no tool `{name}`; there are {}", known.join(", "));
        ErrorData::invalid_params(message, None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every word costs context in every conversation.
    #[test]
    fn all_tools_together_are_short() {
        let mut tools = all(&Limits::default());
        let bytes = |tools: &[Tool]| serde_json::to_string(tools).expect("JSON").len();
        let whole = bytes(&tools);
        assert!(whole < 15 * 1024, "{whole} bytes on the wire");
        // Hosts do not show output schemas to their model.
        for tool in &mut tools {
            tool.output_schema = None;
        }
        let shown = bytes(&tools);
        assert!(shown < 7 * 1024 + 640, "{shown} bytes of all hosts can show");
        // Most show their model no more than this.
        for tool in &mut tools {
            tool.annotations = None;
            tool.meta = None;
            tool.title = None;
        }
        let read = bytes(&tools);
        assert!(read < 6 * 1024 + 256, "{read} bytes in the model's context");
    }

    #[test]
    fn a_tool_is_called_by_the_name_that_it_tells() {
        for entry in TABLE {
            assert_eq!((entry.describe)(&Limits::default()).name, entry.name);
            let example: Value = serde_json::from_str(entry.example).expect("JSON");
            assert!(example.is_object());
        }
    }
}
