//! The folders that a host says it works in, where this program was started in no project.
//!
//! Desktop hosts start their servers in `/` or in the home folder and tell the project as a root of
//! the client. On standard input the host is whoever started us, so its roots are worth as much as
//! the folder that it starts us in. Over HTTP a client is anybody with the token, and is not asked.

#![expect(deprecated, reason = "roots are deprecated in 2026-07-28 and alive in all hosts")]

use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::RequestContext;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::session::{Session, is_stateless};
use crate::workspace::of_uri;

/// Longest wait of the first call for a host that says that it has roots.
const PATIENCE: Duration = Duration::from_secs(3);

/// Number of times that a silent host is asked. The second time is when a call needs the answer: some
/// hosts take no request of ours while they introduce themselves.
const TIMES: u8 = 2;

/// The number of times that the host was asked since its roots last changed. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots(Arc<Mutex<u8>>);

impl Roots {
    pub async fn have_changed(&self) {
        *self.0.lock().await = 0;
    }
}

/// Asks ahead, so that the first call need not wait.
pub(super) fn learn_soon(session: &Session, context: &RequestContext<RoleServer>) {
    let (session, context) = (session.clone(), context.clone());
    tokio::spawn(async move { learn(&session, &context).await });
}

/// Asks the host for its roots, where they are needed and not known.
pub(super) async fn learn(session: &Session, context: &RequestContext<RoleServer>) {
    let has_roots = context.client_capabilities().is_some_and(|client| client.roots.is_some());
    let is_http = context.extensions.get::<http::request::Parts>().is_some();
    // From 2026-07-28 on a server asks nothing.
    if !has_roots || is_http || is_stateless(context) || session.runner.has_project() {
        return;
    }
    let mut times = session.roots.0.lock().await;
    if *times >= TIMES {
        return;
    }
    *times += 1;
    match timeout(PATIENCE, context.peer.list_roots()).await {
        Ok(Ok(told)) => {
            *times = TIMES;
            session.runner.adopt(told.roots.iter().filter_map(|root| of_uri(&root.uri)));
        }
        Ok(Err(error)) => tracing::warn!("the host did not tell its roots: {error}"),
        Err(_) => tracing::warn!("the host did not tell its roots in time"),
    }
}
