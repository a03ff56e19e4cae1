//! The whole life of a run, on one page: wait for a place, prepare, start, follow, collect, clean
//! up, judge, report.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;
use tokio::task::spawn_blocking;

use super::commits;
use super::deadlines::labels;
use super::direct;
use super::follow::End;
use super::git;
use super::isolated;
use super::job::Job;
use super::kept::{self, Looked};
use super::overseer::Overseer;
use super::prepare::{Prepared, prepare};
use super::queue::Place;
use super::room::{Cleared, Room, remove_all};
use super::session;
use super::settle::settle;
use super::shared::Shared;
use super::story::{Story, millis};
use super::survey;
use super::verdict::{self, Evidence, judge};
use super::work::{Done, work};
use super::{
    ChangeSummary, EgressReport, Error, EventKind, Phase, Receipt, Report, SandboxReport, Timing,
    ToolUse, Usage, WorkspaceReport,
};
use crate::gateway::{Gateway, Options};
use crate::history::{self, Retention};
use crate::sandbox::{Policy, Spec, identity_mounts, mask_mount};
use crate::workspace::mirror;

/// What a run gathers on its way, besides its story.
#[derive(Debug)]
struct Findings {
    lap: Lap,
    timing: Timing,
    engine: String,
    image: String,
    user: String,
    receipt: Option<Receipt>,
    done: Done,
    looked: Looked,
}

impl Findings {
    fn new(asked: Instant) -> Self {
        Self {
            lap: Lap(asked),
            timing: Timing::default(),
            engine: String::new(),
            image: String::new(),
            user: String::new(),
            receipt: None,
            done: Done::default(),
            looked: Looked::default(),
        }
    }
}

/// [`execute`], with a report even when it breaks down in a way that nobody thought of.
pub async fn guarded(job: Job) -> Report {
    let (shared, id) = (job.shared.clone(), job.id.clone());
    if let Ok(report) = AssertUnwindSafe(Box::pin(execute(job))).catch_unwind().await {
        return report;
    }
    tracing::error!("run {id} broke down; this is a fault of sandbox-mcp, please report it");
    if let Some((engine, _)) = shared.host.known()
        && let Err(error) = remove_all(engine, &id).await
    {
        tracing::error!("clean-up of run {id}: {error}");
    }
    let report = Report::of_breakdown(id, "sandbox-mcp itself broke down; its log has the place");
    // The story is lost with its record; without a report the run would seem to go on.
    if let Err(error) = history::close(&shared.state, &report.run_id, &report) {
        tracing::warn!("{error}");
    }
    report
}

/// Remarks on what was found of runs that died.
fn tell_news(job: &Job, story: &mut Story) {
    for told in job.shared.host.news() {
        story.remark(&told);
    }
}

async fn execute(mut job: Job) -> Report {
    let record = job.record.take();
    let transcript = record.as_ref().map(|record| record.transcript().display().to_string());
    let output = job.task.config.limits.output.bytes();
    let mut story = Story::new(job.asked, job.events.clone(), record, output);
    let mut room = Room::default();
    let mut found = Findings::new(job.asked);

    settle(&job.shared, &job.task, &mut story).await;
    tell_news(&job, &mut story);
    let place = wait(&job, &mut story).await;
    found.timing.queued_ms = found.lap.next();
    // The place is kept until everything is gone again.
    let (end, _place) = match place {
        Ok(place) => (Box::pin(live(&job, &mut story, &mut room, &mut found)).await, place),
        Err(end) => (end, None),
    };

    story.phase(Phase::Cleaning);
    // The folder stays until all is collected: it is what the next process would go by.
    let engine = room.engine.clone();
    let Cleared { traffic, failed: cleared, folder, layer, session, gone } =
        room.clear(&job.id).await;
    let traffic = traffic.unwrap_or_default();
    story.phase(Phase::Collecting);
    let (mut view, mut changes) = (None, ChangeSummary::default());
    // After the container is gone, so that nothing changes any more.
    if let Some(layer) = layer {
        let engine = engine.as_ref().filter(|_| gone);
        let closed = kept::close(&job, layer, std::mem::take(&mut found.looked), engine).await;
        closed.remarks.iter().for_each(|remark| story.remark(remark));
        (view, changes) = (closed.view, closed.changes);
    }
    let session =
        session.and_then(|held| session::close(held, &job.id, story.session.as_deref(), gone));
    drop(folder);
    tell_news(&job, &mut story);

    let Done { verify, continued, witness } = found.done;
    let witness = witness.as_ref().unwrap_or(&traffic);
    let evidence = Evidence {
        end: &end,
        conversation: &story.conversation,
        traffic: witness,
        last_words: story.last_words(),
        timeout_seconds: job.task.timeout.as_secs(),
    };
    let (mut status, mut error) = judge(&evidence);
    let answer = story.without_secrets(&verdict::answer(status, &evidence));
    let doubt = verdict::doubt(status, &evidence);
    if let Err(uncleared) = cleared {
        // Work that left a container behind is not done, whatever the agent says.
        let (worse, failure) = uncleared.verdict();
        (status, error) = (worse, Some(failure));
    }
    story.remarks.extend(doubt);
    let is_passed = verify.as_ref().is_none_or(|it| it.passed);
    direct::close(&job, status, is_passed, &mut changes, &mut story).await;
    found.timing.cleanup_ms = found.lap.next();
    found.timing.total_ms = millis(job.asked.elapsed());
    let report = Report {
        run_id: job.id.clone(),
        status,
        answer,
        error,
        verify,
        session,
        workspace: WorkspaceReport {
            path: job.task.workspace.path().display().to_string(),
            project: job.task.project.as_ref().map(|file| file.display().to_string()),
            mode: job.task.mode,
            view,
        },
        changes,
        remarks: std::mem::take(&mut story.remarks),
        continued,
        egress: EgressReport::of(&traffic.egress),
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
    keep(&job.shared, story, &report).await;
    report
}

async fn wait(job: &Job, story: &mut Story) -> Result<Option<Place>, End> {
    let entered = tokio::select! {
        biased;
        reason = job.canceller.cancelled() => return Err(End::Cancelled(reason)),
        place = job.shared.queue.enter(|ahead| {
            story.tell(EventKind::Queued { ahead });
        }) => place,
    };
    // A full disk is no reason to refuse work.
    Ok(entered
        .inspect_err(|error| {
            story.remark(&format!("this run waited for no place among the others: {error}"));
        })
        .ok())
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
    let started = match start(job, &prepared, story, room, found).await {
        Ok(overseer) => session::oversee(overseer, room.session.as_ref()).await,
        Err(error) => Err(error),
    };
    // From now on the engine keeps it for the container's sake.
    room.image = None;
    let started = match started {
        Ok(overseers) => git::oversee(overseers, &job.task, room.layer.as_ref()).await,
        Err(error) => Err(error),
    };
    let started = match (started, &room.sandbox) {
        (Ok(mut overseers), Some(sandbox)) => {
            let watched = isolated::watch_copies(&job.task, sandbox).await;
            watched.map(|overseer| {
                overseers.extend(overseer);
                overseers
            })
        }
        (started, _) => started,
    };
    found.timing.boot_ms = found.lap.next();
    let end = match started {
        Ok(overseers) => {
            let told = (&mut found.done, &mut found.looked.steps);
            work(job, &prepared, room, story, overseers, told).await
        }
        Err(error) => match job.canceller.cancelled().now_or_never() {
            Some(reason) => End::Cancelled(reason),
            None => End::Broken(error),
        },
    };
    found.timing.agent_ms = found.lap.next();
    if let Some(sandbox) = &mut room.sandbox {
        let is_quiet = survey::quiet(sandbox).await;
        if let Some(layer) = &room.layer {
            if is_quiet {
                found.looked.packed = commits::pack(sandbox, layer).await;
            }
            found.looked.merged = survey::last_look(sandbox, layer).await;
        }
        // Beside an agent that lives on, nothing is brought. Another sandbox does when it is gone.
        if is_quiet {
            match sandbox.bring_back(mirror::take).await {
                Ok(()) => found.looked.is_brought = true,
                // Without a layer nobody comes after us for the session.
                Err(error) if room.layer.is_none() && matches!(end, End::Ended(_)) => {
                    return End::Broken(error.into());
                }
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
    end
}

/// Makes everything, and checks the sandbox before anything of the task enters it. Not to be
/// dropped half way: an interrupted call to the engine leaves nobody knowing what was made.
async fn start(
    job: &Job,
    prepared: &Prepared,
    story: &mut Story,
    room: &mut Room,
    found: &mut Findings,
) -> Result<Option<Overseer>, Error> {
    let Job { id, task, .. } = job;
    let io = |what| move |source| Error::Io { what, source };
    found.engine = format!("{} {}", prepared.facts.name, prepared.facts.version);
    found.image.clone_from(&prepared.image);
    found.user = prepared.user.to_string();

    let Some(folder) = &room.folder else { unreachable!("a prepared run has its folder") };
    let user = (prepared.user.uid(), prepared.user.gid());
    let limits = crate::gateway::Limits::new(&task.config);
    let gateway = Gateway::open(Options {
        folder: folder.path().join("run"),
        owner: Some(user),
        endpoint: prepared.endpoint.clone(),
        limits,
        egress: prepared.openings.egress.clone(),
    })
    .await?;
    let gateway = room.gateway.insert(gateway);
    let mut mounts = prepared.mounts.clone();
    mounts.extend(gateway.authority().map(|file| Policy::authority_mount(file.to_owned())));
    let sockets = gateway.folder().to_owned();
    mounts.extend(
        identity_mounts(gateway.folder(), prepared.user)
            .map_err(io("write the sandbox's passwd and group"))?,
    );
    for (mask, is_folder) in &prepared.masks {
        mounts.push(
            mask_mount(gateway.folder(), prepared.inside.join(mask), *is_folder)
                .map_err(io("write the sandbox's masks"))?,
        );
    }
    let labels = labels(id, prepared.owner.clone(), task.timeout);
    let spec = Spec { image: &prepared.image, labels: &labels, sockets: Some(&sockets) };
    if task.has_view() {
        let is_rootless = prepared.facts.rootless;
        let site = isolated::Site {
            engine: &prepared.engine,
            user: prepared.user,
            inside: &prepared.inside,
            is_rootless,
            earlier: prepared.earlier.as_ref(),
        };
        let layer = &mut room.layer;
        let started = isolated::start(job, site, layer, mounts, &spec, story).await?;
        room.sandbox = Some(started.sandbox);
        tell_missing(&started.receipt, story);
        found.receipt = Some(started.receipt);
        // What is mounted is what has the name; this must still be what was checked.
        task.workspace.recheck()?;
        git::recheck(&prepared.repository)?;
        let Some(layer) = &room.layer else { unreachable!("it was started with one") };
        return isolated::watch(task, layer).await.map(Some);
    }
    let policy = Policy::new(&task.config, prepared.user, prepared.inside.clone(), mounts);
    let started = isolated::begin(job, &prepared.engine, &policy, &spec, story).await?;
    room.sandbox = Some(started.sandbox);
    tell_missing(&started.receipt, story);
    found.receipt = Some(started.receipt);
    Ok(None)
}

fn tell_missing(receipt: &Receipt, story: &mut Story) {
    if !receipt.without.is_empty() {
        let missing = receipt.without.join(", ");
        story.remark(&format!(
            "the engine does not give each control, which `sandbox.accept` allows: {missing}"
        ));
    }
}

/// Writes the closing report and makes room for the next.
async fn keep(shared: &Shared, mut story: Story, report: &Report) {
    let Some(record) = story.take_record() else { return };
    if let Err(error) = record.finish(report) {
        tracing::warn!("{error}");
    }
    let retention = Retention::from(&shared.config.history);
    let (state, id) = (shared.state.clone(), report.run_id.clone());
    let pruned = spawn_blocking(move || {
        if let Err(error) = history::prune(&state, &retention, Some(&id), commits::forget_commits) {
            tracing::warn!("old records remain: {error}");
        }
        if let Err(error) = crate::session::prune(&state, &retention) {
            tracing::warn!("old sessions remain: {error}");
        }
    });
    if let Err(error) = pruned.await {
        tracing::error!("old records remain: {error}");
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
