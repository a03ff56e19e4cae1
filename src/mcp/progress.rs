//! Progress notifications: what the agent is doing, at most once a second, at least at every
//! heartbeat.
//!
//! The events of a run only change what would be said next. A task of its own says it, so a host
//! that does not read its pipe holds up nothing but its own progress.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::runner::{EventKind, Status};
use crate::text;

/// Between two messages; what happens faster is replaced by what happens last.
const GAP: Duration = Duration::from_secs(1);

/// Hosts time out on silence; none is known that does so before this.
const LONGEST_SILENCE: Duration = Duration::from_secs(10);

/// Claude Code cuts messages here.
const LONGEST_MESSAGE: usize = 200;

/// How many of several runs find room in one message, when each has much to say.
const AT_ONCE: usize = 4;

/// How long an answer waits for a notification that is being written.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The progress of one run, silent when the host did not ask for it.
#[derive(Debug)]
pub(super) struct Progress(Option<Teller>);

#[derive(Debug)]
struct Teller {
    activity: watch::Sender<Activity>,
    task: JoinHandle<()>,
}

impl Progress {
    pub(super) fn start(
        context: &RequestContext<RoleServer>,
        first: String,
        heartbeat: Duration,
    ) -> Self {
        Self(context.meta.get_progress_token().map(|token| {
            let (activity, watched) = watch::channel(Activity::new(first));
            let pace = Pace::new(watched, heartbeat);
            Teller { activity, task: tokio::spawn(tell(context.peer.clone(), token, pace)) }
        }))
    }

    /// Notes what the run is doing now. Never waits.
    pub(super) fn see(&self, event: &EventKind) {
        self.note(describe(event));
    }

    /// Notes what one of several runs is doing.
    pub(super) fn see_of(&self, several: &mut Several, number: usize, event: &EventKind) {
        self.note(describe(event).map(|line| several.line(number, &line)));
    }

    /// Notes how one of several runs has ended.
    pub(super) fn ended(&self, several: &mut Several, number: usize, status: Status) {
        self.note(Some(several.line(number, status.label())));
    }

    fn note(&self, line: Option<String>) {
        if let (Some(teller), Some(line)) = (&self.0, line) {
            teller.activity.send_replace(Activity::new(line));
        }
    }

    /// Says nothing more, not even what is due: the host has withdrawn its request.
    pub(super) fn silence(&mut self) {
        if let Some(teller) = self.0.take() {
            teller.task.abort();
        }
    }

    /// Ends the notifications: when this returns, none will follow.
    pub(super) async fn finish(self) {
        let Some(Teller { activity, mut task }) = self.0 else { return };
        drop(activity);
        if timeout(LAST_WORD, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// What each of several runs does. All of them are in each message, because between two messages
/// the busiest one would have the last word for ever.
#[derive(Debug)]
pub(super) struct Several {
    count: usize,
    /// The one that did something last first.
    lines: Vec<(usize, String)>,
}

impl Several {
    pub(super) fn new(count: usize) -> Self {
        Self { count, lines: Vec::new() }
    }

    fn line(&mut self, number: usize, line: &str) -> String {
        let share = LONGEST_MESSAGE / self.count.clamp(1, AT_ONCE);
        let line = text::one_line(&format!("[{number}/{}] {line}", self.count), share - 2);
        self.lines.retain(|(other, _)| *other != number);
        self.lines.insert(0, (number, line));
        let lines: Vec<_> = self.lines.iter().map(|(_, line)| line.as_str()).collect();
        lines.join("; ")
    }
}

async fn tell(peer: Peer<RoleServer>, token: ProgressToken, mut pace: Pace) {
    let mut said = 0_u32;
    while let Some(message) = pace.next().await {
        said += 1;
        let progress =
            ProgressNotificationParam::new(token.clone(), said.into()).with_message(message);
        if peer.notify_progress(progress).await.is_err() {
            return;
        }
    }
}

/// One line about an event; none where what was said before stays true.
pub(super) fn describe(event: &EventKind) -> Option<String> {
    Some(match event {
        EventKind::Queued { ahead: 0 } => "queued: next in line".to_owned(),
        EventKind::Queued { ahead: 1 } => "queued: 1 run ahead".to_owned(),
        EventKind::Queued { ahead } => format!("queued: {ahead} runs ahead"),
        EventKind::Phase { phase } => phase.label().into(),
        EventKind::Notice { message } => message.clone(),
        EventKind::Step { number } => format!("step {number}: thinking"),
        EventKind::ToolStarted { name, title } => tool(name, title),
        EventKind::ToolFinished { name, title, ok: true, .. } => {
            format!("{}: done", short(&tool(name, title)))
        }
        EventKind::ToolFinished { name, title, ok: false, exit } => {
            let exit = exit.map(|code| format!(" (exit {code})")).unwrap_or_default();
            format!("{}: failed{exit}", short(&tool(name, title)))
        }
        EventKind::Text { text } => format!("says: {text}"),
        EventKind::ModelAnswer { .. } | EventKind::Egress { refused: None, .. } => return None,
        EventKind::Egress { refused: Some(why), host, port } => {
            format!("{host}:{port} refused: {why}")
        }
        EventKind::Trouble { message } => format!("trouble: {message}"),
    })
}

fn tool(name: &str, title: &str) -> String {
    if title.is_empty() { name.into() } else { format!("{name}: {title}") }
}

/// Leaves room for what is said about the line.
fn short(line: &str) -> String {
    text::one_line(line, LONGEST_MESSAGE - 40)
}

/// What the run is doing, since when.
#[derive(Debug)]
struct Activity {
    line: String,
    since: Instant,
}

impl Activity {
    fn new(line: String) -> Self {
        Self { line, since: Instant::now() }
    }

    fn fresh(&self) -> String {
        text::one_line(&self.line, LONGEST_MESSAGE)
    }

    fn continued(&self) -> String {
        let still = if self.line.starts_with("queued") { "still" } else { "still working:" };
        format!("{still} {} ({} s)", short(&self.line), self.since.elapsed().as_secs())
    }
}

/// When to say what. Ends when nobody can change the activity any more.
struct Pace {
    activity: watch::Receiver<Activity>,
    heartbeat: Duration,
    last: Option<Instant>,
}

impl Pace {
    fn new(activity: watch::Receiver<Activity>, heartbeat: Duration) -> Self {
        Self { activity, heartbeat: heartbeat.clamp(GAP, LONGEST_SILENCE), last: None }
    }

    /// The next message, when it is due.
    async fn next(&mut self) -> Option<String> {
        let changed = match self.last {
            None => true,
            Some(last) => self.changes_before(last + self.heartbeat).await?,
        };
        if changed && let Some(last) = self.last {
            while self.changes_before(last + GAP).await? {}
        }
        self.last = Some(Instant::now());
        let activity = self.activity.borrow_and_update();
        Some(if changed { activity.fresh() } else { activity.continued() })
    }

    /// Whether there was a change before `then`; nothing when there can be none any more.
    async fn changes_before(&mut self, then: Instant) -> Option<bool> {
        tokio::select! {
            change = self.activity.changed() => change.ok().map(|()| true),
            () = sleep_until(then) => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Phase;

    const HEARTBEAT: Duration = Duration::from_secs(8);

    fn pace() -> (watch::Sender<Activity>, Pace) {
        let (sender, watched) = watch::channel(Activity::new("started".into()));
        (sender, Pace::new(watched, HEARTBEAT))
    }

    fn say(sender: &watch::Sender<Activity>, line: &str) {
        sender.send_replace(Activity::new(line.into()));
    }

    #[test]
    fn of_several_runs_each_is_in_the_message() {
        let mut two = Several::new(2);
        assert_eq!(two.line(1, "working"), "[1/2] working");
        two.line(2, &"x".repeat(300));
        let line = two.line(2, &"y".repeat(300));
        assert!(line.len() <= LONGEST_MESSAGE + "…".len(), "{line}");
        assert!(line.starts_with("[2/2] yyy") && line.ends_with("; [1/2] working"), "{line}");
        let mut many = Several::new(16);
        let last = (1..=16).map(|number| many.line(number, "working")).last().expect("lines");
        assert!(last.starts_with("[16/16] working; [15/16] working; "), "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_word_comes_at_once_and_the_next_a_second_later() {
        let (sender, mut pace) = pace();
        let start = Instant::now();
        assert_eq!(pace.next().await.as_deref(), Some("started"));
        assert_eq!(start.elapsed(), Duration::ZERO);
        say(&sender, "a");
        say(&sender, "b");
        assert_eq!(pace.next().await.as_deref(), Some("b"), "the latest wins");
        assert_eq!(start.elapsed(), GAP);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_events_is_a_message_a_second() {
        let (sender, mut pace) = pace();
        let flood = tokio::spawn(async move {
            for number in 0..1000 {
                say(&sender, &format!("event {number}"));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let start = Instant::now();
        let mut said = 0;
        while pace.next().await.is_some() {
            said += 1;
        }
        flood.await.expect("flood");
        assert!((10..=12).contains(&said), "{said} messages in {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_what_still_goes_on() {
        let (sender, mut pace) = pace();
        pace.next().await;
        say(&sender, "bash: cargo test");
        assert_eq!(pace.next().await.as_deref(), Some("bash: cargo test"));
        assert_eq!(pace.next().await.as_deref(), Some("still working: bash: cargo test (9 s)"));
        assert_eq!(pace.next().await.as_deref(), Some("still working: bash: cargo test (17 s)"));
        say(&sender, "queued: 2 runs ahead");
        pace.next().await;
        assert_eq!(pace.next().await.as_deref(), Some("still queued: 2 runs ahead (9 s)"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_change_is_said_at_once_and_the_end_ends_it() {
        let (sender, mut pace) = pace();
        pace.next().await;
        tokio::time::advance(Duration::from_secs(5)).await;
        let before = Instant::now();
        say(&sender, "x");
        assert_eq!(pace.next().await.as_deref(), Some("x"));
        assert_eq!(before.elapsed(), Duration::ZERO);
        say(&sender, "never said: a second has not passed");
        drop(sender);
        assert_eq!(pace.next().await, None);
        assert_eq!(before.elapsed(), Duration::ZERO);
    }

    #[test]
    fn no_silence_is_longer_than_hosts_bear() {
        let (_, watched) = watch::channel(Activity::new(String::new()));
        assert_eq!(Pace::new(watched.clone(), Duration::MAX).heartbeat, LONGEST_SILENCE);
        assert_eq!(Pace::new(watched, Duration::ZERO).heartbeat, GAP);
    }

    #[tokio::test]
    async fn messages_are_one_line_and_never_too_long() {
        let activity = Activity::new("ü\n".repeat(500));
        for message in [activity.fresh(), activity.continued()] {
            assert!(message.chars().count() <= LONGEST_MESSAGE, "{message}");
            assert!(!message.contains('\n'));
        }
        let event = EventKind::ToolFinished {
            name: "bash".into(),
            title: "x".repeat(500),
            ok: false,
            exit: Some(101),
        };
        let line = Activity::new(describe(&event).expect("said"));
        assert!(line.fresh().ends_with(": failed (exit 101)"));
        assert!(line.continued().chars().count() <= LONGEST_MESSAGE);
    }

    #[test]
    fn events_read_well() {
        let read = |event| describe(&event).unwrap_or_default();
        let started = EventKind::ToolStarted { name: "bash".into(), title: "cargo test".into() };
        assert_eq!(read(started), "bash: cargo test");
        assert_eq!(read(EventKind::Phase { phase: Phase::Starting }), "starting the sandbox");
        assert_eq!(read(EventKind::Step { number: 3 }), "step 3: thinking");
        assert_eq!(read(EventKind::Queued { ahead: 1 }), "queued: 1 run ahead");
    }
}
