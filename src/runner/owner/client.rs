//! The client's side: starts the owner of a run, hears it, and speaks for whoever holds the run.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tracing::level_filters::LevelFilter;

use super::{Frame, Order, Word, line};
use crate::ids::RunId;
use crate::runner::cancel::{CancelReason, Canceller};
use crate::runner::run::Begun;
use crate::runner::shared::Shared;
use crate::runner::{Event, Report, Task};
use crate::stderr;

/// The kernel's own link to the running program. It leads to the file that we were started from
/// even when another version has taken its place.
const OURSELVES: &str = "/proc/self/exe";

/// What the follower of an owner tells whoever holds the run, and hears from it.
#[derive(Debug)]
pub struct Ends {
    pub events: mpsc::UnboundedSender<Event>,
    pub begun: oneshot::Sender<Begun>,
    /// Each is answered when the owner has the word.
    pub keep: mpsc::Receiver<oneshot::Sender<()>>,
    pub canceller: Canceller,
}

/// Starts a process for the run; what comes of it is the report. The process is there when this
/// returns, and has its order when the future has been polled.
pub fn start(
    shared: &Shared,
    id: RunId,
    task: Task,
    ends: Ends,
) -> io::Result<impl Future<Output = Report> + Send + 'static> {
    let order = line(&Order::new(id.clone(), task, shared))?;
    let mut command = Command::new(OURSELVES);
    command
        .arg0(env!("CARGO_PKG_NAME"))
        .args(verbosity())
        .arg("own")
        .current_dir(shared.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the pipes to it are missing"));
    };
    let owner = Owner { child, input: Some(input), kept: false, told: None };
    Ok(owner.follow(id, order, output, ends))
}

/// The owner is to say as much as we do.
fn verbosity() -> &'static [&'static str] {
    match LevelFilter::current() {
        LevelFilter::OFF | LevelFilter::ERROR => &["--quiet"],
        LevelFilter::WARN => &[],
        LevelFilter::INFO => &["-v"],
        _ => &["-vv"],
    }
}

#[derive(Debug)]
struct Owner {
    child: Child,
    /// The lifeline.
    input: Option<ChildStdin>,
    kept: bool,
    /// Why the run was cancelled.
    told: Option<CancelReason>,
}

impl Owner {
    async fn follow(
        mut self,
        id: RunId,
        order: Vec<u8>,
        output: ChildStdout,
        ends: Ends,
    ) -> Report {
        let Ends { events, begun, mut keep, canceller } = ends;
        let mut begun = Some(begun);
        let mut frames = BufReader::new(output).split(b'\n');
        self.write(&order).await;
        let mut report = None;
        loop {
            tokio::select! {
                biased;
                Some(done) = keep.recv() => {
                    self.say(Word::Keep).await;
                    self.kept = true;
                    // Whoever asked may have gone away.
                    let _ = done.send(());
                }
                reason = canceller.cancelled(), if self.told.is_none() => {
                    self.told = Some(reason);
                    if self.kept && reason != CancelReason::Asked {
                        return Report::of_breakdown(id, "the run goes on without this program");
                    }
                    self.say(match reason {
                        CancelReason::Asked => Word::Cancel,
                        CancelReason::Left => Word::Left,
                        CancelReason::Shutdown => Word::Shutdown,
                    })
                    .await;
                }
                frame = frames.next_segment() => {
                    let Ok(Some(frame)) = frame else { break };
                    match serde_json::from_slice(&frame) {
                        Ok(Frame::Begun { recorded }) => {
                            begun.take().map(|begun| begun.send(Ok(recorded)));
                        }
                        // Nobody may be listening any more.
                        Ok(Frame::Event(event)) => drop(events.send(event)),
                        Ok(Frame::Log(line)) => stderr::write(line.as_bytes()),
                        Ok(Frame::Refused(why)) => {
                            begun.take().map(|begun| begun.send(Err(why.clone())));
                            report = Some(Report::of_breakdown(id.clone(), &why));
                        }
                        Ok(Frame::Report(told)) => report = Some(*told),
                        Err(error) => tracing::error!("run {id}: its process said: {error}"),
                    }
                }
            }
        }
        // No event can come any more, and the process is gone before anybody hears of the end.
        drop(events);
        self.input = None;
        let ended = self.child.wait().await;
        report.unwrap_or_else(|| {
            let how = match ended.map(|status| (status.signal(), status.code())) {
                Ok((Some(signal), _)) => format!("was killed by signal {signal}"),
                Ok((None, code)) => format!("ended with code {}", code.unwrap_or_default()),
                Err(error) => format!("was lost: {error}"),
            };
            tracing::error!("the process of run {id} {how}");
            Report::of_death(id, &how)
        })
    }

    async fn say(&mut self, word: Word) {
        match line(&word) {
            Ok(line) => self.write(&line).await,
            Err(error) => tracing::error!("an owner was not told {word:?}: {error}"),
        }
    }

    /// A pipe that nobody reads is the pipe of a process that has ended, which is seen elsewhere.
    async fn write(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input
            && let Err(error) = input.write_all(bytes).await
        {
            tracing::debug!("the owner of a run no longer listens: {error}");
            self.input = None;
        }
    }
}
