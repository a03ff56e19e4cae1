//! One stream of frames between us and PID 1, over the engine's attachment.
//!
//! A task of its own reads all that comes, so that no channel waits for another one. What nobody
//! takes is bounded: by a window for each channel, and by a number for words.

mod connection;
mod frame;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};

use connection::Connection;
use frame::{Decoder, FIRST, PIECE, WINDOW, frame};
pub use frame::{Frame, Kind, STDERR, STDOUT, VERSION, Wrong};

use super::Error;
use crate::engine::{Attached, Output};

/// Channels that are no connection: two streams of an order, and lists.
const STREAMS: usize = 3;

/// Most words of PID 1 that wait to be taken.
const WORDS: usize = 64;

/// Most connections at once. PID 1 lets 96 in, and knows of an end before we do.
const CONNECTIONS: usize = 192;

/// Most frames that wait for a PID 1 that does not read. A task has up to 1,024.
const FRAMES: usize = 8_192;

/// Sockets of the gateway's by the ports inside that lead to them.
pub type Doors = HashMap<u16, PathBuf>;

/// Most bytes of what PID 1 says beside its frames, which is why it ends.
const LAST_WORDS: usize = 1 << 14;

/// Something that came from inside.
#[derive(Debug)]
pub enum Heard {
    Frame(Frame),
    /// Said by PID 1 beside its frames.
    Complaint(Bytes),
}

/// Our end. Dropping it closes PID 1's standard input, which ends the sandbox.
#[derive(Debug)]
pub struct Pipe {
    heard: UnboundedReceiver<Result<Heard, Error>>,
    words: Arc<AtomicUsize>,
    windows: Arc<Windows>,
    sends: Sends,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    /// What was taken of each channel, and not told yet.
    taken: [usize; STREAMS],
}

/// Bytes of each channel that came and were not told to be taken.
#[derive(Debug, Default)]
struct Windows([AtomicUsize; STREAMS]);

/// The place of a stream's channel among the streams.
fn place(channel: u16) -> Option<usize> {
    let at = usize::from(channel.checked_sub(STDOUT)?);
    (at < STREAMS).then_some(at)
}

impl Pipe {
    pub fn new(attached: Attached, doors: Doors) -> Self {
        let (heard_by, heard) = unbounded_channel();
        let (sends, sent) = Sends::new();
        let (words, windows) = (Arc::<AtomicUsize>::default(), Arc::<Windows>::default());
        let reader = Reader {
            decoder: Decoder::default(),
            heard: heard_by,
            words: words.clone(),
            windows: windows.clone(),
            sends: sends.clone(),
            doors,
            connections: HashMap::new(),
            tasks: JoinSet::new(),
        };
        Self {
            heard,
            words,
            windows,
            reader: tokio::spawn(reader.read(attached.output)),
            writer: tokio::spawn(write(attached.input, sent, sends.waiting.clone())),
            sends,
            taken: [0; STREAMS],
        }
    }

    /// Sends content in as many frames as it takes: at least one.
    pub fn send(&self, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        let none = bytes.is_empty().then_some(bytes);
        for piece in bytes.chunks(PIECE).chain(none) {
            let gone = |_| Error::Hung;
            self.sends.send(kind, 0, piece).map_err(gone)?;
        }
        Ok(())
    }

    /// The next thing that came; none when the container's output has ended. Safe to drop and call
    /// again.
    pub async fn next(&mut self) -> Option<Result<Heard, Error>> {
        let heard = self.heard.recv().await?;
        match &heard {
            Ok(Heard::Frame(Frame::Data(channel, bytes))) => self.take(*channel, bytes.len()),
            Ok(Heard::Frame(_)) => drop(self.words.fetch_sub(1, Ordering::Relaxed)),
            Ok(Heard::Complaint(_)) | Err(_) => {}
        }
        Some(heard)
    }

    /// Lets PID 1 send more of a channel; not for each byte.
    fn take(&mut self, channel: u16, bytes: usize) {
        let Some(at) = place(channel) else { return };
        let taken = &mut self.taken[at];
        *taken += bytes;
        if *taken < WINDOW as usize / 4 {
            return;
        }
        let more = u32::try_from(std::mem::take(taken)).unwrap_or(WINDOW);
        // Before it is sent: the answer may come at once.
        self.windows.0[at].fetch_sub(more as usize, Ordering::Relaxed);
        // Where nobody writes any more, nothing comes either.
        let _ = self.sends.send(Kind::Window, channel, &more.to_be_bytes());
    }

    /// Closes both directions. An engine waits, and with it whoever asks it about the container,
    /// until somebody reads what the container still had to say.
    pub async fn hang_up(mut self) {
        for task in [&mut self.reader, &mut self.writer] {
            task.abort();
            // It was aborted, or had ended.
            let _ = task.await;
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Frames on their way to PID 1.
#[derive(Clone, Debug)]
struct Sends {
    frames: UnboundedSender<Bytes>,
    waiting: Arc<AtomicUsize>,
}

impl Sends {
    fn new() -> (Self, UnboundedReceiver<Bytes>) {
        let (frames, sent) = unbounded_channel();
        (Self { frames, waiting: Arc::default() }, sent)
    }

    /// Fails where nobody writes them any more.
    fn send(&self, kind: Kind, channel: u16, bytes: &[u8]) -> io::Result<()> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = self.frames.send(frame(kind, channel, bytes));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Returns when few frames wait: what comes from outside is not to fill the memory.
    async fn are_few(&self) {
        while self.waiting.load(Ordering::Relaxed) > FRAMES / 8 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn write(
    mut input: Pin<Box<dyn AsyncWrite + Send>>,
    mut sent: UnboundedReceiver<Bytes>,
    waiting: Arc<AtomicUsize>,
) {
    while let Some(mut frame) = sent.recv().await {
        waiting.fetch_sub(1, Ordering::Relaxed);
        let written = async {
            input.write_all_buf(&mut frame).await?;
            if sent.is_empty() { input.flush().await } else { Ok(()) }
        };
        if let Err(error) = written.await {
            tracing::debug!("the sandbox takes no more frames: {error}");
            // Not closed: how it ended is told by what it said.
            return std::future::pending().await;
        }
    }
}

/// The task that reads all that comes.
struct Reader {
    decoder: Decoder,
    heard: UnboundedSender<Result<Heard, Error>>,
    words: Arc<AtomicUsize>,
    windows: Arc<Windows>,
    sends: Sends,
    doors: Doors,
    connections: HashMap<u16, Connection>,
    /// Of the connections; they end with the reader.
    tasks: JoinSet<u16>,
}

impl Reader {
    async fn read(
        mut self,
        mut pieces: Pin<
            Box<dyn futures_util::Stream<Item = Result<Output, crate::engine::Error>> + Send>,
        >,
    ) {
        let mut complained = 0;
        let ended = loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                Some(ended) = self.tasks.join_next_with_id() => {
                    self.ended(&ended);
                    continue;
                }
            };
            // Also those that were reset: else nothing would bound their number.
            while self.tasks.len() > CONNECTIONS
                && let Some(ended) = self.tasks.join_next_with_id().await
            {
                self.ended(&ended);
            }
            match piece {
                Some(Ok(Output::Stdout(piece))) => {
                    self.decoder.add(&piece);
                    if let Err(wrong) = self.pass() {
                        break Some(wrong.into());
                    }
                }
                Some(Ok(Output::Stderr(piece))) => {
                    complained += piece.len();
                    let is_much = complained > LAST_WORDS;
                    if !is_much && self.heard.send(Ok(Heard::Complaint(piece))).is_err() {
                        return;
                    }
                }
                Some(Err(error)) => break Some(error.into()),
                // Also within a frame: how the container ended tells why.
                None => break None,
            }
        };
        if let Some(error) = ended {
            // Nobody is left to hear it where this fails.
            let _ = self.heard.send(Err(error));
        }
    }

    fn ended(&mut self, ended: &Result<(Id, u16), JoinError>) {
        // Those that were reset are forgotten already.
        if let Ok((id, channel)) = ended
            && self.connections.get(channel).is_some_and(|one| one.id() == *id)
        {
            self.connections.remove(channel);
        }
    }

    /// Passes on what has come whole.
    fn pass(&mut self) -> Result<(), Wrong> {
        while let Some(frame) = self.decoder.next()? {
            if self.sends.waiting.load(Ordering::Relaxed) > FRAMES {
                return Err(Wrong::Flood);
            }
            match frame {
                // Else nothing would bound their number.
                Frame::Data(_, bytes) if bytes.is_empty() => return Err(Wrong::Length(0)),
                Frame::Data(channel, bytes) if channel >= FIRST => {
                    // It may have been reset while this was on its way.
                    if let Some(one) = self.connections.get(&channel) {
                        one.take(channel, &bytes)?;
                    }
                    continue;
                }
                Frame::Open(channel, port) => {
                    self.open(channel, port)?;
                    continue;
                }
                Frame::End(channel) => {
                    self.connections.get(&channel).map(Connection::end);
                    continue;
                }
                Frame::Reset(channel) => {
                    if let Some(one) = self.connections.remove(&channel) {
                        one.reset();
                    }
                    continue;
                }
                Frame::Window(channel, more) => {
                    if let Some(one) = self.connections.get(&channel) {
                        one.widen(channel, more)?;
                    }
                    continue;
                }
                Frame::Data(channel, ref bytes) => {
                    let at = place(channel).ok_or(Wrong::Channel(33, channel))?;
                    let before = self.windows.0[at].fetch_add(bytes.len(), Ordering::Relaxed);
                    if before + bytes.len() > WINDOW as usize {
                        return Err(Wrong::Window(channel));
                    }
                }
                Frame::Receipt(_) | Frame::Ended(_) | Frame::Said(_) => {
                    if self.words.fetch_add(1, Ordering::Relaxed) >= WORDS {
                        return Err(Wrong::Flood);
                    }
                }
            }
            // Nobody hears it where the sandbox is being removed.
            if self.heard.send(Ok(Heard::Frame(frame))).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn open(&mut self, channel: u16, port: u16) -> Result<(), Wrong> {
        if self.connections.contains_key(&channel) {
            return Err(Wrong::Channel(32, channel));
        }
        let is_full = self.connections.len() >= CONNECTIONS;
        let Some(socket) = self.doors.get(&port).filter(|_| !is_full) else {
            // The sandbox is being removed where nobody takes it.
            let _ = self.sends.send(Kind::Reset, channel, b"");
            return Ok(());
        };
        let one = Connection::open(&mut self.tasks, channel, socket.clone(), self.sends.clone());
        self.connections.insert(channel, one);
        Ok(())
    }
}

/// Reads what a hostile PID 1 might say, for fuzzing.
pub(super) fn fuzz(bytes: &[u8]) {
    let (heard_by, mut heard) = unbounded_channel();
    let (sends, _sent) = Sends::new();
    let mut reader = Reader {
        decoder: Decoder::default(),
        heard: heard_by,
        words: Arc::default(),
        windows: Arc::default(),
        sends,
        doors: Doors::new(),
        connections: HashMap::new(),
        tasks: JoinSet::new(),
    };
    for piece in bytes.chunks(bytes.first().map_or(1, |size| usize::from(*size).max(1))) {
        reader.decoder.add(piece);
        if reader.pass().is_err() {
            break;
        }
    }
    let mut kept = 0;
    while let Ok(Ok(Heard::Frame(frame))) = heard.try_recv() {
        if let Frame::Receipt(bytes)
        | Frame::Ended(bytes)
        | Frame::Said(bytes)
        | Frame::Data(_, bytes) = &frame
        {
            kept += bytes.len();
        }
        super::guest::hear(&frame);
    }
    assert!(kept <= 3 * WINDOW as usize + WORDS * (1 << 20), "{kept} bytes wait");
}
