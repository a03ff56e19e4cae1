//! Asking the person at the host for a yes that no model may give.
//!
//! Up to 2025-11-25 the host is asked while its call waits. From 2026-07-28 on the call is answered
//! with the question, and the host calls again with what the person said: see `questions`.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::service::{RequestContext, ServiceError};

use super::questions::{Said, form, said};
use super::session::{Session, is_stateless};
use super::{patience, progress::Progress};
use crate::text;

/// How long a person may take, where the host does not give up its call before.
const LONGEST: Duration = Duration::from_secs(300);

/// How a person can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a request of ours, while the call waits.
    Request,
    /// By the answer to the call.
    Answer,
}

/// How the person at this host can be asked, if at all.
pub(super) fn way(context: &RequestContext<RoleServer>) -> Option<Way> {
    let elicitation = context.client_capabilities()?.elicitation?;
    // Before there were other ways than forms, nothing had to be said of them.
    let forms = elicitation.form.is_some() || elicitation.url.is_none();
    let way = if is_stateless(context) { Way::Answer } else { Way::Request };
    forms.then_some(way)
}

/// Asks by a request of ours, and waits for the answer, for as long as the host bears the call.
pub(super) async fn ask(
    session: &Session,
    context: &RequestContext<RoleServer>,
    question: &str,
) -> Said {
    let settings = &session.runner.config().mcp;
    let limit = patience::of(settings, context).unwrap_or(LONGEST).min(LONGEST);
    let heartbeat = Duration::from_secs(settings.heartbeat);
    let progress = Progress::start(context, "waiting for a person's answer".into(), heartbeat);
    let asked = context.peer.create_elicitation_with_timeout(form(question), Some(limit));
    let said = tokio::select! {
        biased;
        () = context.ct.cancelled() => Said::Withdrawn,
        () = session.closing.cancelled() => Said::Withdrawn,
        // The host may not show it any more, and the person would answer into nothing.
        () = session.lost.cancelled() => Said::Lost,
        answer = asked => match answer {
            Ok(answer) => said(&answer),
            Err(ServiceError::Timeout { .. }) => Said::TooLate,
            Err(error) => Said::NotAsked(text::one_line(&error.to_string(), 200)),
        },
    };
    progress.finish().await;
    said
}
