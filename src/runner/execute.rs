//! The whole life of a run, on one page: wait for a place, prepare, start, follow, collect, clean
//! up, judge, report.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::follow::{End, follow};
use super::prepare::{Prepared, prepare};
use super::room::Room;
use super::run::{Canceller, Shared};
use super::story::{Story, millis};
use super::task::Checked;
use super::verdict::{Evidence, judge};
use super::{
    ChangeSummary, Error, Event, EventKind, Phase, Receipt, Report, SandboxReport, Timing, ToolUse,
    Usage, WorkspaceReport,
};
use crate::agent::opencode;
use crate::gateway::{Gateway, Options};
use crate::history::{self, Record};
use crate::ids::{Owner, RunId};
use crate::sandbox::{Labels, Policy, RunFolder, Sandbox, Spec};
use crate::workspace::{Baseline, Mode};

/// How much longer than the agent its container may live, so that the deadlines never race.
const CONTAINER_GRACE: u64 = 30;
/// How much longer than the container its remains may lie before anyone may remove them.
const REMAINS_GRACE: u64 = 60;

/// A run to be.
#[derive(Debug)]
pub struct Job {
    pub shared: Arc<Shared>,
    pub id: RunId,
    pub task: Checked,
    pub asked: Instant,
    pub events: mpsc::UnboundedSender<Event>,
    pub canceller: Canceller,
}

/// What is known of a run besides its story when it has ended.
#[derive(Debug, Default)]
struct Findings {
    engine: String,
    image: String,
    user: String,
    receipt: Option<Receipt>,
    baseline: Option<Baseline>,
}

/// [`execute`], with a report even when it breaks down in a way that nobody thought of.
pub async fn guarded(job: Job) -> Report {
    let (shared, id) = (job.shared.clone(), job.id.clone());
    match AssertUnwindSafe(execute(job)).catch_unwind().await {
        Ok(report) => report,
        Err(_) => {
            tracing::error!("run {id} broke down; this is a fault of sandbox-mcp, please report it");
            if let Some((engine, _)) = shared.host.known()
                && let Err(error) = super::room::remove_all(engine, &id).await
            {
                tracing::error!("clean-up of run {id}: {error}");
            }
            Report::of_breakdown(id, "sandbox-mcp itself broke down; its log has the place")
        }
    }
}

pub async fn execute(job: Job) -> Report {
    let Job { shared, id, task, asked, events, canceller } = job;
    let record = Record::create(&shared.state, &id)
        .inspect_err(|error| tracing::warn!("this run leaves no record: {error}"))
        .ok();
    let transcript = record.as_ref().map(|record| record.transcript().display().to_string());
    let output = shared.config.limits.output.bytes();
    let mut story = Story::new(asked, events, record, output);
    let mut timing = Timing::default();
    let mut room = Room::default();
    let mut found = Findings::default();

    let mut lap = Lap(asked);
    let place = tokio::select! {
        biased;
        reason = canceller.cancelled() => Err(End::Cancelled(reason)),
        place = shared.queue.enter(|ahead| story.tell(EventKind::Queued { ahead })) => Ok(place),
    };
    timing.queued_ms = lap.next();

    let end = match &place {
        Err(_) => None,
        Ok(_) => {
            story.phase(Phase::Preparing);
            let prepared = tokio::select! {
                biased;
                reason = canceller.cancelled() => Err(End::Cancelled(reason)),
                prepared = prepare(&shared, &id, &task, &mut story, &mut room) => {
                    prepared.map_err(End::Broken)
                }
            };
            timing.prepare_ms = lap.next();
            Some(match prepared {
                Err(end) => end,
                Ok(prepared) => {
                    story.phase(Phase::Starting);
                    let started =
                        start(&shared, &id, &task, &prepared, &mut room, &mut found).await;
                    timing.boot_ms = lap.next();
                    match started {
                        Err(error) => End::Broken(error),
                        Ok(()) => work(&task, &prepared, &mut room, &mut story, &canceller).await,
                    }
                }
            })
        }
    };
    let end = match (end, place.as_ref()) {
        (Some(end), _) => end,
        (None, Err(End::Cancelled(reason))) => End::Cancelled(*reason),
        (None, _) => unreachable!("a run without a place was cancelled"),
    };
    timing.agent_ms = lap.next();

    story.phase(Phase::Cleaning);
    let (traffic, cleared) = room.clear(&id).await;
    let traffic = traffic.unwrap_or_default();
    // After the container is gone, so that nothing changes any more.
    let changes = match found.baseline.take() {
        Some(baseline) => collect(baseline).await,
        None => ChangeSummary::default(),
    };
    timing.cleanup_ms = lap.next();
    drop(place);

    let (mut status, mut error) = judge(&Evidence {
        end: &end,
        conversation: &story.conversation,
        traffic: &traffic,
        last_words: story.last_words(),
        timeout_seconds: task.timeout.as_secs(),
    });
    if let Err(uncleared) = cleared {
        // Work that left a container behind is not done, whatever the agent says.
        let (worse, failure) = uncleared.verdict();
        (status, error) = (worse, Some(failure));
    }
    timing.total_ms = millis(asked.elapsed());
    let report = Report {
        run_id: id.clone(),
        status,
        answer: story.conversation.answer(),
        error,
        workspace: WorkspaceReport {
            path: task.workspace.path().display().to_string(),
            mode: task.mode,
        },
        changes,
        usage: Usage {
            requests: traffic.requests,
            steps: story.conversation.steps(),
            input_tokens: traffic.input_tokens,
            output_tokens: traffic.output_tokens,
            reasoning_tokens: traffic.reasoning_tokens,
        },
        tools: story
            .conversation
            .tools()
            .iter()
            .map(|tool| ToolUse {
                name: tool.name.clone(),
                calls: tool.calls,
                errors: tool.errors,
            })
            .collect(),
        timing,
        sandbox: SandboxReport {
            engine: found.engine,
            image: found.image,
            user: found.user,
            receipt: found.receipt,
        },
        transcript,
    };
    keep(&shared, story, &report);
    report
}

/// Makes everything, and checks the sandbox before anything of the task enters it. Not to be
/// dropped half way: an interrupted call to the engine leaves nobody knowing what was made.
async fn start(
    shared: &Shared,
    id: &RunId,
    task: &Checked,
    prepared: &Prepared,
    room: &mut Room,
    found: &mut Findings,
) -> Result<(), Error> {
    let io = |what| move |source| Error::Io { what, source };
    found.engine = format!("{} {}", prepared.facts.name, prepared.facts.version);
    found.image.clone_from(&prepared.image);
    found.user = prepared.user.to_string();

    let owner = Owner::current().map_err(io("read our own start time"))?;
    let folder = RunFolder::create(&shared.runtime, id, &owner)
        .map_err(io("make the run's socket folder"))?;
    let folder = room.folder.insert(folder);
    let user = (prepared.user.uid(), prepared.user.gid());
    let limits = crate::gateway::Limits::new(&shared.config);
    let gateway = Gateway::open(Options {
        folder: folder.path().join("run"),
        owner: Some(user),
        endpoint: prepared.endpoint.clone(),
        limits,
    })
    .await?;
    let gateway = room.gateway.insert(gateway);
    let mut mounts = prepared.mounts.clone();
    mounts.push(Policy::sockets_mount(gateway.folder().to_owned()));
    mounts.extend(
        crate::sandbox::identity_mounts(gateway.folder(), prepared.user)
            .map_err(io("write the sandbox's passwd and group"))?,
    );
    let policy = Policy::new(&shared.config, prepared.user, mounts);

    let baseline = (task.mode == Mode::Direct).then(|| {
        let workspace = task.workspace.clone();
        tokio::task::spawn_blocking(move || Baseline::take(&workspace, crate::workspace::Limits::default()))
    });
    let argv = opencode::argv(&prepared.request(task), &prepared.abilities);
    let labels = labels(id, owner, task.timeout);
    let spec = Spec { image: &prepared.image, argv: &argv, labels: &labels };
    let sandbox = Sandbox::start(&prepared.engine, &policy, &spec).await?;
    let sandbox = room.sandbox.insert(sandbox);
    found.receipt = Some(sandbox.receipt(&policy).await?);
    // The agent must not begin before its folder has been looked at.
    if let Some(baseline) = baseline {
        found.baseline = baseline.await.ok();
    }
    Ok(())
}

/// Gives the agent its task and follows it to its end.
async fn work(
    task: &Checked,
    prepared: &Prepared,
    room: &mut Room,
    story: &mut Story,
    canceller: &Canceller,
) -> End {
    let (Some(sandbox), Some(gateway)) = (&mut room.sandbox, &mut room.gateway) else {
        unreachable!("a started run has a sandbox and a gateway");
    };
    story.phase(Phase::Working);
    let deadline = tokio::time::Instant::now() + task.timeout;
    let environment = opencode::environment(&prepared.request(task));
    tokio::select! {
        biased;
        reason = canceller.cancelled() => return End::Cancelled(reason),
        sent = sandbox.go(&environment, task.text.as_bytes()) => {
            if let Err(error) = sent {
                return End::Broken(error.into());
            }
        }
    }
    follow(sandbox, gateway, story, canceller, deadline).await
}

async fn collect(baseline: Baseline) -> ChangeSummary {
    tokio::task::spawn_blocking(move || baseline.changes()).await.unwrap_or_else(|error| {
        tracing::error!("the changes could not be collected: {error}");
        ChangeSummary { truncated: true, ..ChangeSummary::default() }
    })
}

/// Writes the closing report and makes room for the next.
fn keep(shared: &Shared, mut story: Story, report: &Report) {
    let Some(record) = story.take_record() else { return };
    if let Err(error) = record.finish(report) {
        tracing::warn!("{error}");
    }
    if let Err(error) = history::prune(&shared.state, shared.config.history.keep) {
        tracing::warn!("old records were not removed: {error}");
    }
}

/// The labels of everything that is made for a run.
pub(super) fn labels(id: &RunId, owner: Owner, timeout: Duration) -> Labels {
    let now = jiff::Timestamp::now().as_second();
    let seconds = timeout.as_secs() + CONTAINER_GRACE;
    Labels {
        run: id.clone(),
        owner,
        container_deadline: now.saturating_add_unsigned(seconds),
        deadline: now.saturating_add_unsigned(seconds + REMAINS_GRACE),
    }
}

/// Milliseconds from lap to lap.
struct Lap(Instant);

impl Lap {
    fn next(&mut self) -> u64 {
        let now = Instant::now();
        millis(now.duration_since(std::mem::replace(&mut self.0, now)))
    }
}
