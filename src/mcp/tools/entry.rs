//! What the table of tools knows of each.

use futures_util::future::BoxFuture;
use rmcp::RoleServer;
use rmcp::model::{CallToolResult, JsonObject, Tool};
use rmcp::service::RequestContext;

use crate::config::Limits;
use crate::mcp::session::Session;

/// Nothing when nobody is there to be answered.
pub(in crate::mcp) type Answer = BoxFuture<'static, Option<CallToolResult>>;

/// One tool.
pub(super) struct Entry {
    pub name: &'static str,
    /// As hosts see it; its texts name the limits in force.
    pub describe: fn(&Limits) -> Tool,
    pub call: fn(Session, JsonObject, RequestContext<RoleServer>) -> Answer,
    /// The answer to a call that was not carried out.
    pub refuse: fn(&str) -> CallToolResult,
    /// Arguments as they should look.
    pub example: &'static str,
}
