//! The tasks extension, for hosts that declare it: a call that outlasts them becomes a task whose id
//! is the run's, so tasks live in the record too, and are found again after a restart.

use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, CallToolResult, CreateTaskResult, DetailedTask, ErrorData, GetTaskResult,
    Task, TaskPayload, TaskStatus,
};
use rmcp::service::RequestContext;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::progress;
use super::session::Session;
use super::standing::{self, Lately};
use crate::history::{Entry, State};
use crate::runner::{Runner, Status, stop};

/// How often hosts may ask.
const POLL_MS: u64 = 2000;

/// Whether the host knows what a task is.
pub(super) fn are_known(context: &RequestContext<RoleServer>) -> bool {
    context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks())
}

/// The answer to a call whose run goes on: a task instead of the words for it.
pub(super) fn of_answer(runner: &Runner, answer: CallToolResult) -> CallToolResponse {
    let content = answer.structured_content.as_ref();
    let running = content.filter(|content| content["status"] == "running");
    let found =
        running.and_then(|content| standing::find(runner, content["run_id"].as_str()?).ok());
    match found {
        Some((entry, _)) => CallToolResponse::Task(CreateTaskResult::new(task(&entry))),
        None => answer.into(),
    }
}

/// `tasks/get`.
pub(super) async fn get(session: &Session, id: String) -> Result<GetTaskResult, ErrorData> {
    let entry = find(session, id).await?;
    let looked = entry.clone();
    let look = spawn_blocking(move || (looked.state(), task(&looked), Lately::of(&looked)));
    let (state, mut task, lately) = look.await.map_err(broken)?;
    if state == State::Running {
        let last = lately.map_err(broken)?.last().and_then(|last| progress::describe(&last.event));
        task.status_message = last.map(|line| crate::text::one_line(&line, 160));
        return Ok(GetTaskResult::new(DetailedTask::new(task, TaskPayload::Working)));
    }
    let answer = standing::over(&session.runner, entry).await;
    let status = answer.structured_content.as_ref().map(|content| content["status"].clone());
    let cancelled = serde_json::to_value(Status::Cancelled).map_err(broken)?;
    if status == Some(cancelled) {
        return Ok(GetTaskResult::new(DetailedTask::new(task, TaskPayload::Cancelled)));
    }
    let Value::Object(result) = serde_json::to_value(answer).map_err(broken)? else {
        return Err(broken("a result is no object"));
    };
    Ok(GetTaskResult::new(DetailedTask::new(task, TaskPayload::Completed { result })))
}

/// `tasks/cancel`: the run is asked to end; `tasks/get` tells when it has.
pub(super) async fn cancel(session: &Session, id: String) -> Result<(), ErrorData> {
    let entry = find(session, id).await?;
    stop(&entry, std::time::Duration::ZERO).await.map(drop).map_err(broken)
}

/// `tasks/update`: no run ever asks for anything.
pub(super) async fn update(session: &Session, id: String) -> Result<(), ErrorData> {
    find(session, id).await.map(drop)
}

async fn find(session: &Session, id: String) -> Result<Entry, ErrorData> {
    let runner = session.runner.clone();
    let found = spawn_blocking(move || standing::find(&runner, &id)).await.map_err(broken)?;
    found.map(|(entry, _)| entry).map_err(|why| ErrorData::invalid_params(why, None))
}

fn task(entry: &Entry) -> Task {
    let (began, changed) = entry.times();
    let [began, changed] = [began, changed].map(|time| {
        let time = jiff::Timestamp::try_from(time).unwrap_or_default();
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    });
    Task::new(entry.id().as_str(), TaskStatus::Working, began, changed)
        .with_poll_interval_ms(POLL_MS)
}

fn broken(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(format!("the run could not be looked at: {error}"), None)
}
