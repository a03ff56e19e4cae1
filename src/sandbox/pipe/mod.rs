//! One stream of frames between us and PID 1, over the engine's attachment.
//!
//! A task of its own reads all that comes, so that no channel waits for another one. What nobody
//! takes is bounded: by a window for each channel, and by a number for words.

mod frame;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use frame::{Decoder, PIECE, WINDOW, frame};
pub use frame::{Frame, Kind, STDERR, STDOUT, VERSION, Wrong};

use super::Error;
use crate::engine::{Attached, Output};

/// Most words of PID 1 that wait to be taken.
const WORDS: usize = 64;

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
    sends: UnboundedSender<Bytes>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    /// What was taken of each channel, and not told yet.
    taken: BTreeMap<u16, usize>,
}

/// Bytes of each channel that came and were not told to be taken.
#[derive(Debug, Default)]
struct Windows([AtomicUsize; 3]);

impl Windows {
    fn of(&self, channel: u16) -> Option<&AtomicUsize> {
        self.0.get(usize::from(channel.checked_sub(STDOUT)?))
    }
}

impl Pipe {
    pub fn new(attached: Attached) -> Self {
        let (heard_by, heard) = unbounded_channel();
        let (sends, sent) = unbounded_channel();
        let (words, windows) = (Arc::<AtomicUsize>::default(), Arc::<Windows>::default());
        let reading = read(attached.output, heard_by, words.clone(), windows.clone());
        Self {
            heard,
            words,
            windows,
            sends,
            reader: tokio::spawn(reading),
            writer: tokio::spawn(write(attached.input, sent)),
            taken: BTreeMap::new(),
        }
    }

    /// Sends content in as many frames as it takes: at least one.
    pub fn send(&self, kind: Kind, bytes: &[u8]) -> Result<(), Error> {
        let none = bytes.is_empty().then_some(bytes);
        for piece in bytes.chunks(PIECE).chain(none) {
            let gone = |_| Error::Hung;
            self.sends.send(frame(kind, 0, piece)).map_err(gone)?;
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
        let taken = self.taken.entry(channel).or_default();
        *taken += bytes;
        if *taken < WINDOW as usize / 4 {
            return;
        }
        let more = u32::try_from(std::mem::take(taken)).unwrap_or(WINDOW);
        if let Some(window) = self.windows.of(channel) {
            // Before it is sent: the answer may come at once.
            window.fetch_sub(more as usize, Ordering::Relaxed);
        }
        // Where nobody writes any more, nothing comes either.
        let _ = self.sends.send(frame(Kind::Window, channel, &more.to_be_bytes()));
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

async fn write(mut input: Pin<Box<dyn AsyncWrite + Send>>, mut sent: UnboundedReceiver<Bytes>) {
    while let Some(mut frame) = sent.recv().await {
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

async fn read(
    mut pieces: Pin<
        Box<dyn futures_util::Stream<Item = Result<Output, crate::engine::Error>> + Send>,
    >,
    heard: UnboundedSender<Result<Heard, Error>>,
    words: Arc<AtomicUsize>,
    windows: Arc<Windows>,
) {
    let (mut decoder, mut complained) = (Decoder::default(), 0);
    let ended = loop {
        match pieces.next().await {
            Some(Ok(Output::Stdout(piece))) => {
                decoder.add(&piece);
                if let Err(wrong) = pass(&mut decoder, &heard, &words, &windows) {
                    break Some(wrong.into());
                }
            }
            Some(Ok(Output::Stderr(piece))) => {
                complained += piece.len();
                if complained <= LAST_WORDS && heard.send(Ok(Heard::Complaint(piece))).is_err() {
                    return;
                }
            }
            Some(Err(error)) => break Some(error.into()),
            None if !decoder.is_empty() => break Some(Wrong::Cut.into()),
            None => break None,
        }
    };
    if let Some(error) = ended {
        // Nobody is left to hear it where this fails.
        let _ = heard.send(Err(error));
    }
}

/// Passes on what has come whole.
fn pass(
    decoder: &mut Decoder,
    heard: &UnboundedSender<Result<Heard, Error>>,
    words: &AtomicUsize,
    windows: &Windows,
) -> Result<(), Wrong> {
    while let Some(frame) = decoder.next()? {
        match &frame {
            Frame::Data(channel, bytes) => {
                let window = windows.of(*channel).ok_or(Wrong::Channel(33, *channel))?;
                let before = window.fetch_add(bytes.len(), Ordering::Relaxed);
                if before + bytes.len() > WINDOW as usize {
                    return Err(Wrong::Window(*channel));
                }
                // Else nothing would bound their number.
                if bytes.is_empty() {
                    return Err(Wrong::Length(0));
                }
            }
            _ if words.fetch_add(1, Ordering::Relaxed) >= WORDS => return Err(Wrong::Flood),
            _ => {}
        }
        // Nobody hears it where the sandbox is being removed.
        if heard.send(Ok(Heard::Frame(frame))).is_err() {
            break;
        }
    }
    Ok(())
}

/// Reads what a hostile PID 1 might say, for fuzzing.
pub(super) fn fuzz(bytes: &[u8]) {
    let (heard_by, mut heard) = unbounded_channel();
    let (words, windows) = (AtomicUsize::new(0), Windows::default());
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(bytes.first().map_or(1, |size| usize::from(*size).max(1))) {
        decoder.add(piece);
        if pass(&mut decoder, &heard_by, &words, &windows).is_err() {
            break;
        }
    }
    drop(heard_by);
    let mut kept = 0;
    while let Ok(Ok(Heard::Frame(frame))) = heard.try_recv() {
        let (Frame::Receipt(bytes)
        | Frame::Ended(bytes)
        | Frame::Said(bytes)
        | Frame::Data(_, bytes)) = &frame;
        kept += bytes.len();
        super::guest::hear(&frame);
    }
    assert!(kept <= 3 * WINDOW as usize + WORDS * (1 << 20), "{kept} bytes wait");
}
