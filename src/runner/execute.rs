//! The whole life of a run, on one page: wait for a place, prepare, start, follow, collect, clean
//! up, judge, report.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::cancel::Canceller;
use super::deadlines::labels;
use super::follow::{End, follow};
use super::prepare::{Prepared, prepare};
use super::room::{Room, remove_all};
use super::shared::Shared;
use super::story::{Story, millis};
use super::task::Checked;
use super::verdict::{self, Evidence, judge};
use super::{
    ChangeSummary, Error, Event, EventKind, Phase, Receipt, Report, SandboxReport, Timing, ToolUse,
    Usage, WorkspaceReport,
};
use crate::agent::opencode;
use crate::gateway::{Egress, Gateway, Options};
use crate::history::{self, Record};
use crate::ids::{Owner, RunId};
use crate::sandbox::{Policy, RunFolder, Sandbox, Spec, identity_mounts, mask_mount};
use crate::workspace::{Baseline, Kind, Mode};

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

/// What a run gathers on its way, besides its story.
#[derive(Debug)]
struct Findings {
    lap: Lap,
    timing: Timing,
    engine: String,
    image: String,
    user: String,
    receipt: Option<Receipt>,
    baseline: Option<Baseline>,
}

/// [`execute`], with a report even when it breaks down in a way that nobody thought of.
pub async fn guarded(job: Job) -> Report {
    let (shared, id) = (job.shared.clone(), job.id.clone());
    if let Ok(report) = AssertUnwindSafe(execute(job)).catch_unwind().await {
        return report;
    }
    tracing::error!("run {id} broke down; this is a fault of sandbox-mcp, please report it");
    if let Some((engine, _)) = shared.host.known()
        && let Err(error) = remove_all(engine, &id).await
    {
        tracing::error!("clean-up of run {id}: {error}");
    }
    Report::of_breakdown(id, "sandbox-mcp itself broke down; its log has the place")
}

async fn execute(job: Job) -> Report {
    let record = Record::create(&job.shared.state, &job.id)
        .inspect_err(|error| tracing::warn!("this run leaves no record: {error}"))
        .ok();
    let transcript = record.as_ref().map(|record| record.transcript().display().to_string());
    let output = job.shared.config.limits.output.bytes();
    let mut story = Story::new(job.asked, job.events.clone(), record, output);
    let mut room = Room::default();
    let mut found = Findings {
        lap: Lap(job.asked),
        timing: Timing::default(),
        engine: String::new(),
        image: String::new(),
        user: String::new(),
        receipt: None,
        baseline: None,
    };

    let place = tokio::select! {
        biased;
        reason = job.canceller.cancelled() => Err(End::Cancelled(reason)),
        place = job.shared.queue.enter(|ahead| story.tell(EventKind::Queued { ahead })) => Ok(place),
    };
    found.timing.queued_ms = found.lap.next();
    // The place is kept until everything is gone again.
    let (end, _place) = match place {
        Ok(place) => (live(&job, &mut story, &mut room, &mut found).await, Some(place)),
        Err(end) => (end, None),
    };

    story.phase(Phase::Cleaning);
    let (traffic, cleared) = room.clear(&job.id).await;
    let traffic = traffic.unwrap_or_default();
    story.phase(Phase::Collecting);
    // After the container is gone, so that nothing changes any more.
    let changes = match found.baseline.take() {
        Some(baseline) => collect(baseline).await,
        None => ChangeSummary::default(),
    };
    found.timing.cleanup_ms = found.lap.next();
    found.timing.total_ms = millis(job.asked.elapsed());

    let (mut status, mut error) = judge(&Evidence {
        end: &end,
        conversation: &story.conversation,
        traffic: &traffic,
        last_words: story.last_words(),
        timeout_seconds: job.task.timeout.as_secs(),
    });
    if let Err(uncleared) = cleared {
        // Work that left a container behind is not done, whatever the agent says.
        let (worse, failure) = uncleared.verdict();
        (status, error) = (worse, Some(failure));
    }
    let report = Report {
        run_id: job.id,
        status,
        answer: verdict::answer(status, &story.conversation, &traffic),
        error,
        workspace: WorkspaceReport {
            path: job.task.workspace.path().display().to_string(),
            mode: job.task.mode,
        },
        changes,
        usage: Usage::of(&traffic, &story.conversation),
        tools: story.conversation.tools().iter().map(ToolUse::of).collect(),
        timing: found.timing,
        sandbox: SandboxReport {
            engine: found.engine,
            image: found.image,
            user: found.user,
            receipt: found.receipt,
        },
        transcript,
    };
    keep(&job.shared, story, &report);
    report
}

/// From having a place to the end of the work. Leaves the undoing to its caller.
async fn live(job: &Job, story: &mut Story, room: &mut Room, found: &mut Findings) -> End {
    story.phase(Phase::Preparing);
    let prepared = tokio::select! {
        biased;
        reason = job.canceller.cancelled() => Err(End::Cancelled(reason)),
        prepared = prepare(&job.shared, &job.id, &job.task, story, room) => {
            prepared.map_err(End::Broken)
        }
    };
    found.timing.prepare_ms = found.lap.next();
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(end) => return end,
    };
    story.phase(Phase::Starting);
    let started = start(job, &prepared, room, found).await;
    found.timing.boot_ms = found.lap.next();
    let end = match started {
        Ok(()) => work(&job.task, &prepared, room, story, &job.canceller).await,
        Err(error) => End::Broken(error),
    };
    found.timing.agent_ms = found.lap.next();
    end
}

/// Makes everything, and checks the sandbox before anything of the task enters it. Not to be
/// dropped half way: an interrupted call to the engine leaves nobody knowing what was made.
async fn start(
    job: &Job,
    prepared: &Prepared,
    room: &mut Room,
    found: &mut Findings,
) -> Result<(), Error> {
    let Job { shared, id, task, .. } = job;
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
        egress: Egress::default(),
    })
    .await?;
    let gateway = room.gateway.insert(gateway);
    let mut mounts = prepared.mounts.clone();
    mounts.push(Policy::sockets_mount(gateway.folder().to_owned()));
    mounts.extend(
        identity_mounts(gateway.folder(), prepared.user)
            .map_err(io("write the sandbox's passwd and group"))?,
    );
    for mask in &prepared.masks {
        mounts.push(
            mask_mount(gateway.folder(), mask.relative(), mask.kind() == Kind::Dir)
                .map_err(io("write the sandbox's masks"))?,
        );
    }
    let policy = Policy::new(&shared.config, prepared.user, mounts);

    let baseline = (task.mode == Mode::Direct).then(|| {
        let workspace = task.workspace.clone();
        tokio::task::spawn_blocking(move || {
            Baseline::take(&workspace, crate::workspace::Limits::default())
        })
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

/// Milliseconds from lap to lap.
#[derive(Debug)]
struct Lap(Instant);

impl Lap {
    fn next(&mut self) -> u64 {
        let now = Instant::now();
        millis(now.duration_since(std::mem::replace(&mut self.0, now)))
    }
}
