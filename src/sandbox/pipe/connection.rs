//! Connections that programs inside open to our ports: each is one of ours to a socket of the
//! gateway's.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

use super::frame::{Kind, PIECE, WINDOW, Wrong, frame};

/// One connection, as the reader of the pipe knows it.
#[derive(Debug)]
pub struct Connection {
    /// What came from inside; none after its end.
    for_us: Option<UnboundedSender<Bytes>>,
    waiting: Arc<AtomicUsize>,
    credit: Arc<Credit>,
    task: AbortHandle,
}

/// Bytes that PID 1 takes now.
#[derive(Debug)]
struct Credit {
    bytes: AtomicUsize,
    more: Notify,
}

impl Credit {
    async fn some(&self) -> usize {
        loop {
            let more = self.more.notified();
            match self.bytes.load(Ordering::Acquire) {
                0 => more.await,
                bytes => return bytes.min(PIECE),
            }
        }
    }
}

impl Connection {
    /// Connects to `socket` for `channel`; the task's end returns the channel.
    pub fn open(
        tasks: &mut JoinSet<u16>,
        channel: u16,
        socket: PathBuf,
        sends: UnboundedSender<Bytes>,
    ) -> Self {
        let (for_us, from_inside) = unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let bytes = AtomicUsize::new(WINDOW as usize);
        let credit = Arc::new(Credit { bytes, more: Notify::new() });
        let (theirs, taken) = (credit.clone(), waiting.clone());
        let task = tasks.spawn(async move {
            let carried = async {
                let (from_us, to_us) = UnixStream::connect(socket).await?.into_split();
                let in_order = hear(from_inside, to_us, &taken, channel, &sends);
                tokio::try_join!(in_order, tell(from_us, &theirs, channel, &sends)).map(drop)
            };
            if let Err(error) = carried.await {
                tracing::debug!("a connection from inside ends: {error}");
                // Nobody is there to be told where this fails.
                let _ = sends.send(frame(Kind::Reset, channel, b""));
            }
            channel
        });
        Self { for_us: Some(for_us), waiting, credit, task }
    }

    /// Takes what came from inside.
    pub fn take(&self, channel: u16, bytes: Bytes) -> Result<(), Wrong> {
        let before = self.waiting.fetch_add(bytes.len(), Ordering::AcqRel);
        if before + bytes.len() > WINDOW as usize {
            return Err(Wrong::Window(channel));
        }
        let Some(for_us) = &self.for_us else { return Err(Wrong::Channel(33, channel)) };
        // It may have ended by itself.
        let _ = for_us.send(bytes);
        Ok(())
    }

    /// Takes the end of what comes from inside.
    pub fn end(&mut self) {
        self.for_us = None;
    }

    /// Lets more bytes go inside.
    pub fn widen(&self, channel: u16, more: u32) -> Result<(), Wrong> {
        let before = self.credit.bytes.fetch_add(more as usize, Ordering::AcqRel);
        if before + more as usize > WINDOW as usize {
            return Err(Wrong::Window(channel));
        }
        self.credit.more.notify_one();
        Ok(())
    }

    pub fn reset(&self) {
        self.task.abort();
    }
}

/// Carries what comes from inside to a socket of ours.
async fn hear(
    mut from_inside: UnboundedReceiver<Bytes>,
    mut to_us: OwnedWriteHalf,
    waiting: &AtomicUsize,
    channel: u16,
    sends: &UnboundedSender<Bytes>,
) -> io::Result<()> {
    let mut taken = 0;
    while let Some(bytes) = from_inside.recv().await {
        to_us.write_all(&bytes).await?;
        taken += bytes.len();
        if taken >= WINDOW as usize / 4 {
            waiting.fetch_sub(taken, Ordering::AcqRel);
            let more = u32::try_from(std::mem::take(&mut taken)).unwrap_or(WINDOW);
            send(sends, Kind::Window, channel, &more.to_be_bytes())?;
        }
    }
    to_us.shutdown().await
}

/// Carries what a socket of ours says inside.
async fn tell(
    mut from_us: OwnedReadHalf,
    credit: &Credit,
    channel: u16,
    sends: &UnboundedSender<Bytes>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let room = credit.some().await;
        let read = from_us.read(&mut buffer[..room]).await?;
        if read == 0 {
            return send(sends, Kind::End, channel, b"");
        }
        credit.bytes.fetch_sub(read, Ordering::AcqRel);
        send(sends, Kind::Data, channel, &buffer[..read])?;
    }
}

fn send(sends: &UnboundedSender<Bytes>, kind: Kind, channel: u16, bytes: &[u8]) -> io::Result<()> {
    sends.send(frame(kind, channel, bytes)).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
