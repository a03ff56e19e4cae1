//! Connections that programs inside open to our ports: each is one of ours to a socket of the
//! gateway's.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::Sends;
use super::frame::{Kind, PIECE, WINDOW, Wrong};

/// One connection, as the reader of the pipe knows it.
#[derive(Debug)]
pub struct Connection {
    inbox: Arc<Inbox>,
    credit: Arc<Credit>,
    task: AbortHandle,
}

/// Bytes that came from inside. In one piece, because a window can be filled byte by byte.
#[derive(Debug, Default)]
struct Inbox {
    bytes: Mutex<(BytesMut, bool)>,
    /// Bytes that came and were not told to be taken.
    window: AtomicUsize,
    more: Notify,
}

impl Inbox {
    /// Takes all that is there; none after the end.
    async fn take(&self) -> Option<BytesMut> {
        loop {
            let more = self.more.notified();
            {
                let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                if !bytes.0.is_empty() {
                    return Some(bytes.0.split());
                }
                if bytes.1 {
                    return None;
                }
            }
            more.await;
        }
    }
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
    pub fn open(tasks: &mut JoinSet<u16>, channel: u16, socket: PathBuf, sends: Sends) -> Self {
        let inbox = Arc::<Inbox>::default();
        let bytes = AtomicUsize::new(WINDOW as usize);
        let credit = Arc::new(Credit { bytes, more: Notify::new() });
        let (theirs, ours) = (credit.clone(), inbox.clone());
        let task = tasks.spawn(async move {
            let carried = async {
                let (from_us, to_us) = UnixStream::connect(socket).await?.into_split();
                let heard = hear(&ours, to_us, channel, &sends);
                tokio::try_join!(heard, tell(from_us, &theirs, channel, &sends)).map(drop)
            };
            if let Err(error) = carried.await {
                tracing::debug!("a connection from inside ends: {error}");
                // Nobody is there to be told where this fails.
                let _ = sends.send(Kind::Reset, channel, b"");
            }
            channel
        });
        Self { inbox, credit, task }
    }

    pub fn id(&self) -> Id {
        self.task.id()
    }

    /// Takes what came from inside.
    pub fn take(&self, channel: u16, bytes: &Bytes) -> Result<(), Wrong> {
        let before = self.inbox.window.fetch_add(bytes.len(), Ordering::AcqRel);
        if before + bytes.len() > WINDOW as usize {
            return Err(Wrong::Window(channel));
        }
        let mut kept = self.inbox.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.1 {
            return Err(Wrong::Channel(33, channel));
        }
        kept.0.extend_from_slice(bytes);
        self.inbox.more.notify_one();
        Ok(())
    }

    /// Takes the end of what comes from inside.
    pub fn end(&self) {
        self.inbox.bytes.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.inbox.more.notify_one();
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

/// Carries what comes from inside to a socket of ours. Where that takes no more, its answer may
/// still be on the way: the rest is thrown away.
async fn hear(
    inbox: &Inbox,
    mut to_us: OwnedWriteHalf,
    channel: u16,
    sends: &Sends,
) -> io::Result<()> {
    let (mut taken, mut is_open) = (0, true);
    while let Some(bytes) = inbox.take().await {
        is_open = is_open && to_us.write_all(&bytes).await.is_ok();
        taken += bytes.len();
        if taken >= WINDOW as usize / 4 {
            inbox.window.fetch_sub(taken, Ordering::AcqRel);
            let more = u32::try_from(std::mem::take(&mut taken)).unwrap_or(WINDOW);
            sends.send(Kind::Window, channel, &more.to_be_bytes())?;
        }
    }
    // It may be closed by now, too.
    let _ = to_us.shutdown().await;
    Ok(())
}

/// Carries what a socket of ours says inside.
async fn tell(
    mut from_us: OwnedReadHalf,
    credit: &Credit,
    channel: u16,
    sends: &Sends,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let room = credit.some().await;
        sends.are_few().await;
        let read = from_us.read(&mut buffer[..room]).await?;
        if read == 0 {
            return sends.send(Kind::End, channel, b"");
        }
        credit.bytes.fetch_sub(read, Ordering::AcqRel);
        sends.send(Kind::Data, channel, &buffer[..read])?;
    }
}
