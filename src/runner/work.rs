//! The work itself: the check before, the agent, the agent again where that is worth it, the check
//! after.

use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::follow::{Bounds, End, Workplace};
use super::live::{Asks, Looker};
use super::overseer::Overseer;
use super::prepare::Prepared;
use super::pulse::Pulse;
use super::resume::{self, Continued};
use super::story::millis;
use super::task::Checked;
use super::verdict::Evidence;
use super::verify::{self, Verify};
use super::{Phase, job::Job, room::Room, story::Story};
use crate::agent::opencode;
use crate::gateway::Record as Traffic;
use crate::history::Entry;
use crate::sandbox::{Order, RunFolder};
use crate::workspace::changeset::{Moment, Steps};
use crate::workspace::layer::Layer;
use crate::workspace::mirror;

/// How long the sandbox may take to become empty once the run's time is up.
const SETTLE: Duration = Duration::from_secs(10);

/// What came of it besides its end.
#[derive(Debug, Default)]
pub struct Done {
    pub verify: Option<Verify>,
    pub continued: Vec<Continued>,
    /// What passed through the gateway in the last part of the agent's own work. What else passed,
    /// by the check's doing, is no witness.
    pub witness: Option<Traffic>,
}

/// From a sandbox that is ready to the end of all work in it.
pub async fn work(
    job: &Job,
    prepared: &Prepared,
    room: &mut Room,
    story: &mut Story,
    overseers: Vec<Overseer>,
    (done, steps): (&mut Done, &mut Option<Steps>),
) -> End {
    let (Some(sandbox), Some(gateway)) = (&mut room.sandbox, &mut room.gateway) else {
        unreachable!("a started run has a sandbox and a gateway");
    };
    story.phase(Phase::Working);
    let deadline = Instant::now() + job.task.timeout;
    let mut environment = prepared.openings.environment.clone();
    environment.extend(opencode::environment(&prepared.request(&job.task)));
    let bounds = Bounds { canceller: &job.canceller, deadline, overseers };
    let mut desk = Desk {
        job,
        layer: room.layer.as_ref(),
        folder: room.folder.as_ref().map(RunFolder::path),
        steps,
        prepared,
        environment,
        deadline,
        place: Workplace { sandbox, gateway, story, bounds },
        done,
    };
    match desk.all().await {
        Ok(end) | Err(end) => end,
    }
}

struct Desk<'a> {
    job: &'a Job,
    prepared: &'a Prepared,
    environment: Vec<(String, String)>,
    deadline: Instant,
    place: Workplace<'a>,
    done: &'a mut Done,
    layer: Option<&'a Layer>,
    /// The run's private folder.
    folder: Option<&'a Path>,
    steps: &'a mut Option<Steps>,
}

impl Desk<'_> {
    async fn all(&mut self) -> Result<End, End> {
        let task: &Checked = &self.job.task;
        let Some(command) = &task.verify else { return Ok(self.agent().await) };
        let within = Duration::from_secs(task.config.limits.verify_timeout);
        self.done.verify = Some(Verify::of(command));
        let start = self.moment().await;
        let before = self.check(command, within, "before").await?;
        if before.could_not_start() {
            self.place.story.remark("`verify` could not be run before the agent began");
        }
        self.note(|verify| verify.before = Some(before));
        if let (Some(start), Some(before)) = (start, self.moment().await) {
            *self.steps = Some(Steps { start, before, after: None });
        }

        let end = self.agent().await;
        let empty = match &end {
            End::Ended(_) => true,
            End::Stalled(_) | End::Endless => self.place.settle().await.is_ok(),
            // Nothing was finished, or there is no sandbox or no time left.
            _ => false,
        };
        if empty {
            // The check's own time ends with the run's; what comes after it is the clearing up.
            self.place.bounds.deadline = self.deadline + SETTLE;
            if let Some(steps) = self.steps.take() {
                let after = self.moment().await;
                // Without this moment nothing can be told apart.
                *self.steps = after.map(|after| Steps { after: Some(after), ..steps });
            }
            let after = self.check(command, within, "after").await?;
            let passed = after.passed();
            if !passed {
                let remark = format!("`verify` failed after the agent's work: {}", after.label());
                self.place.story.remark(&remark);
            }
            self.note(|verify| (verify.after, verify.passed) = (Some(after), passed));
        }
        Ok(end)
    }

    /// Looks at what is written, when nothing lives in the sandbox; none where that is too much.
    async fn moment(&mut self) -> Option<Moment> {
        if let Err(error) = self.place.sandbox.bring_back(mirror::take).await {
            tracing::warn!("{error}");
            return None;
        }
        let (written, entries) = self.layer.map(|layer| (layer.written(), layer.most_entries()))?;
        spawn_blocking(move || Moment::of(&written, entries)).await.ok().flatten()
    }

    fn note(&mut self, what: impl FnOnce(&mut Verify)) {
        self.done.verify.as_mut().map(what);
    }

    async fn check(
        &mut self,
        command: &str,
        within: Duration,
        when: &str,
    ) -> Result<verify::Check, End> {
        self.place.story.notice(&format!("verify {when} the agent: {command}"));
        let until = self.deadline.min(Instant::now() + within);
        let check = verify::check(&mut self.place, command, &self.environment, until).await?;
        let told = format!("verify {when} the agent: {}", check.label());
        self.place.story.notice(&told);
        Ok(check)
    }

    /// The agent's own work, in as many parts as it takes and is allowed.
    async fn agent(&mut self) -> End {
        let task: &Checked = &self.job.task;
        let abilities = &self.prepared.abilities;
        let request = self.prepared.request(task);
        let mut argv = opencode::argv(&request, abilities);
        let mut words = Cow::Borrowed(task.text.as_str());
        let entry = Entry::of(&self.job.shared.state, &self.job.id);
        let place = self.folder.filter(|_| self.layer.is_some()).zip(entry.as_ref());
        let asks = place.map(|(folder, entry)| Asks::listen(folder, entry)).transpose();
        let mut asks = asks.unwrap_or_else(|error| {
            tracing::warn!("nobody can look at this run while it goes on: {error}");
            None
        });
        loop {
            let end = self.part(&argv, &words, asks.as_mut()).await;
            let Some(witness) = &self.done.witness else { return end };
            let reason = resume::reason(&Evidence {
                end: &end,
                conversation: &self.place.story.conversation,
                traffic: witness,
                last_words: self.place.story.last_words(),
                timeout_seconds: task.timeout.as_secs(),
            });
            let Some(reason) = reason else { return end };
            let most = task.config.agent.continues;
            if self.done.continued.len() >= most as usize {
                return end;
            }
            match &self.place.story.session {
                Some(session) if abilities.session_flag => {
                    argv = opencode::resumed(&request, abilities, session);
                    words = Cow::Borrowed(reason.prompt());
                }
                // It never began to speak, so there is nothing to go on with but the task.
                None if self.place.story.conversation.steps() == 0 => {}
                _ => return end,
            }
            if !matches!(end, End::Ended(_))
                && let Err(other) = self.place.settle().await
            {
                return match other {
                    End::Cancelled(_) | End::Overseen(_) => other,
                    _ => end,
                };
            }
            self.place.story.remark(reason.remark());
            self.place.story.resume();
            let at_ms = millis(self.job.asked.elapsed());
            self.done.continued.push(Continued { reason, at_ms });
        }
    }

    /// One start of the agent, to its end, and what the gateway saw of it.
    async fn part(&mut self, argv: &[String], words: &str, asks: Option<&mut Asks>) -> End {
        let before = self.place.gateway.record();
        let order = Order { argv, environment: &self.environment, task: words.as_bytes() };
        let end = match self.place.order(&order) {
            Ok(()) => {
                let pulse = Pulse::new(&self.job.task.config);
                let (job, layer, steps) = (self.job, self.layer, self.steps.as_ref());
                self.place
                    .follow(pulse, Looker { asks, job, layer, steps, deadline: self.deadline })
                    .await
            }
            Err(end) => end,
        };
        let mut seen = self.place.gateway.record();
        seen.requests -= before.requests;
        seen.finish_reasons.drain(..before.finish_reasons.len());
        self.done.witness = Some(seen);
        end
    }
}
