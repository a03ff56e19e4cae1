//! What the table of tools knows of each.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rmcp::RoleServer;
use rmcp::model::{CallToolResponse, CallToolResult, JsonObject, Tool};
use rmcp::service::RequestContext;

use crate::config::Limits;
use crate::mcp::session::Session;

/// Nothing when nobody is there to be answered.
pub(in crate::mcp) type Answer = BoxFuture<'static, Option<CallToolResponse>>;

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

/// A call that always has a result.
pub(super) fn answered(call: impl Future<Output = CallToolResult> + Send + 'static) -> Answer {
    call.map(|result| Some(result.into())).boxed()
}

/// A call that may find nobody to be answered.
pub(super) fn perhaps(
    call: impl Future<Output = Option<CallToolResult>> + Send + 'static,
) -> Answer {
    call.map(|result| result.map(Into::into)).boxed()
}
