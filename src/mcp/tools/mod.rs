//! The tools, as hosts see them.

mod arguments;
pub(super) mod run_in_sandbox;

use rmcp::model::Tool;

use crate::config::Limits;

/// All tools; their texts name the limits in force.
pub(super) fn all(limits: &Limits) -> Vec<Tool> {
    vec![run_in_sandbox::tool(limits)]
}
