//! Serves a unix socket to a client that may be hostile: everything it can open, send or leave
//! undone is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::respond::Body;

/// Serves HTTP until `stop`.
pub async fn serve<H, F>(listener: UnixListener, limits: Limits, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let connection = move |stream| {
        let handle = handle.clone();
        async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_time)
                .max_headers(limits.max_headers)
                .max_header_size(limits.max_header_bytes)
                .max_buf_size(limits.max_header_bytes.max(64 * 1024))
                .serve_connection(TokioIo::new(stream), service_fn(handle))
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection from the sandbox ended");
            }
        }
    };
    accept(listener, limits.max_connections, stop, connection).await;
}

/// Gives each connection to `handle`, so many at a time, until `stop`; then connections are dropped
/// where they stand, and it returns when they are gone.
pub async fn accept<H, F>(listener: UnixListener, most: usize, stop: CancellationToken, handle: H)
where
    H: Fn(UnixStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    loop {
        // Without a free place nothing is accepted: the rest waits in the kernel's short queue and
        // costs us nothing.
        let accepting = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, accepted) = accepting => match accepted {
                Ok((stream, _)) => {
                    let connection = handle(stream);
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                // Out of file descriptors, most likely; they come back when connections end.
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection from the sandbox");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    connections.shutdown().await;
}
