//! Counts what passes to and from the outside, and ends what is idle or too much.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::gateway::ledger::Ledger;

/// Watches one connection. The bytes are those of the whole run.
#[derive(Debug)]
pub struct Meter {
    ledger: Arc<Ledger>,
    most: u64,
    began: Instant,
    /// Milliseconds from the beginning to the last byte.
    last: AtomicU64,
}

impl Meter {
    pub fn new(ledger: Arc<Ledger>, most: u64) -> Arc<Self> {
        Arc::new(Self { ledger, most, began: Instant::now(), last: AtomicU64::new(0) })
    }

    fn moved(&self, sent: usize, received: usize) -> io::Result<()> {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
        if self.ledger.egress_moved(sent as u64, received as u64) > self.most {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    /// Ready when nothing has moved for `limit`.
    pub async fn idle(&self, limit: Duration) {
        loop {
            let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
            if last.elapsed() >= limit {
                return;
            }
            tokio::time::sleep_until(last + limit).await;
        }
    }
}

/// A connection to the outside with a meter on it.
#[derive(Debug)]
pub struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> Metered<S> {
    pub fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.meter.moved(0, buffer.filled().len() - before)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = written {
            self.meter.moved(written, 0)?;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_only_when_nothing_moves_either_way() {
        let (near, mut far) = tokio::io::duplex(64);
        let meter = Meter::new(Arc::new(Ledger::new().0), 1000);
        let mut near = Metered::new(near, meter.clone());
        let limit = Duration::from_secs(60);
        let started = Instant::now();
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                near.write_all(b"x").await.expect("written");
                tokio::time::sleep(Duration::from_secs(50)).await;
                far.write_all(b"y").await.expect("written");
                near.read_u8().await.expect("read");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = moving => {}
            () = meter.idle(limit) => {}
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(360) && took < Duration::from_secs(362), "{took:?}");
    }

    #[tokio::test]
    async fn connections_share_the_bytes_of_a_run() {
        let ledger = Arc::new(Ledger::new().0);
        let (one, _one) = tokio::io::duplex(64);
        let (two, mut other) = tokio::io::duplex(64);
        let mut one = Metered::new(one, Meter::new(ledger.clone(), 10));
        let mut two = Metered::new(two, Meter::new(ledger.clone(), 10));
        one.write_all(b"123456").await.expect("within");
        other.write_all(b"123456").await.expect("written");
        let error = two.read_u64().await.expect_err("too much");
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        let record = ledger.record().egress;
        assert_eq!((record.bytes_sent, record.bytes_received), (6, 6));
    }
}
