//! The owner's side: a process with one run.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Frame, Order, OwnerLog, Word, line};
use crate::history;
use crate::runner::{CancelReason, Canceller, Run, Runner};

/// How long clean-up may take after the run has ended.
const CLEAN_UP: Duration = Duration::from_secs(10);

/// How long the client may take to read the last frames.
const LAST_FRAMES: Duration = Duration::from_secs(5);

/// Does what the order on standard input says, to the end of its one run.
pub async fn own(log: &OwnerLog) -> io::Result<()> {
    let stops = Stops::listen()?;
    let input = pipe::Receiver::from_owned_fd(handle(io::stdin())?)?;
    let output = pipe::Sender::from_owned_fd(handle(io::stdout())?)?;
    let mut input = BufReader::new(input);
    let mut order = Vec::new();
    input.read_until(b'\n', &mut order).await?;
    let order: Order = serde_json::from_slice(&order)?;

    let (frames, queue) = mpsc::unbounded_channel();
    log.tell(frames.clone());
    let writer = tokio::spawn(write_all(output, queue));
    match begin(order, log) {
        Ok((runner, run)) => follow(runner, run, input, stops, &frames).await,
        Err(why) => tell(&frames, Frame::Refused(why)),
    }
    drop(frames);
    log.hang_up();
    // Whoever does not read has the record.
    let _ = timeout(LAST_FRAMES, writer).await;
    Ok(())
}

/// The same pipe under another number, which closing standard input would not have.
fn handle(stream: impl AsFd) -> io::Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned()
}

fn begin(order: Order, log: &OwnerLog) -> Result<(Runner, Run), String> {
    let options = order.options()?;
    let runner = Runner::new(order.config, options).map_err(|error| error.to_string())?;
    if let Some(facts) = order.facts {
        runner.hear(facts);
    }
    log.keep_in(history::owner_log(runner.state(), &order.id));
    let run = runner.start_as(order.id, order.task).map_err(|error| error.to_string())?;
    Ok((runner, run))
}

async fn follow(
    runner: Runner,
    mut run: Run,
    input: BufReader<pipe::Receiver>,
    mut stops: Stops,
    frames: &mpsc::UnboundedSender<Frame>,
) {
    let recorded = run.begun().await.unwrap_or(false);
    tell(frames, Frame::Begun { recorded });
    let canceller = run.canceller();
    let listener = tokio::spawn(listen(input, canceller.clone()));
    loop {
        tokio::select! {
            event = run.next_event() => match event {
                Some(event) => tell(frames, Frame::Event(event)),
                None => break,
            },
            () = stops.next() => canceller.cancel(CancelReason::Asked),
        }
    }
    let report = run.report().await;
    // The client may take the report for the end of everything.
    let left = runner.shutdown(CLEAN_UP).await;
    if !left.is_empty() {
        tracing::error!("the run's clean-up does not end");
    }
    tell(frames, Frame::Report(Box::new(report)));
    listener.abort();
}

/// Heeds the client; at the end of the lifeline it is gone.
async fn listen(mut input: BufReader<pipe::Receiver>, canceller: Canceller) {
    let mut kept = false;
    let mut said = Vec::new();
    loop {
        said.clear();
        match input.read_until(b'\n', &mut said).await {
            Ok(0) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                tracing::warn!("the client cannot be heard any more: {error}");
                break;
            }
            Ok(_) => {}
        }
        match serde_json::from_slice(&said) {
            Ok(Word::Keep) => kept = true,
            Ok(Word::Cancel) => canceller.cancel(CancelReason::Asked),
            Ok(Word::Left) => canceller.cancel(CancelReason::Left),
            Ok(Word::Shutdown) => canceller.cancel(CancelReason::Shutdown),
            // A word that was cut when the client died is none.
            Err(error) => tracing::warn!("the client said what is no word: {error}"),
        }
    }
    if !kept {
        canceller.cancel(CancelReason::Shutdown);
    }
}

fn tell(frames: &mpsc::UnboundedSender<Frame>, frame: Frame) {
    // Nobody listens any more: the record has it.
    let _ = frames.send(frame);
}

/// Writes frames until nobody reads.
async fn write_all(mut output: pipe::Sender, mut queue: mpsc::UnboundedReceiver<Frame>) {
    while let Some(frame) = queue.recv().await {
        let written = match line(&frame) {
            Ok(line) => output.write_all(&line).await,
            Err(error) => Err(error.into()),
        };
        if written.is_err() {
            return;
        }
    }
}

/// The signals that ask us to end the run.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stops {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
