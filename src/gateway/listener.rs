//! Serves a unix socket to a client that may be hostile: everything it can open, send or leave
//! undone is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::io::InspectReader;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::respond::Body;
use super::route::FirstLine;

/// Serves HTTP until `stop`. One request a connection, whose [`Target`](super::route::Target) is
/// among the request's extensions.
pub async fn serve<H, F>(listener: UnixListener, limits: Limits, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let connection = move |stream| {
        let handle = handle.clone();
        let line = Arc::new(Mutex::new(FirstLine::default()));
        let noted = line.clone();
        let note = move |bytes: &[u8]| {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        };
        let service = service_fn(move |mut request: Request<Incoming>| {
            let target = line.lock().unwrap_or_else(PoisonError::into_inner).target();
            if let Some(target) = target {
                request.extensions_mut().insert(target);
            }
            handle(request)
        });
        async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                // The first line read is the request's, and nothing can stand behind its body.
                .keep_alive(false)
                .header_read_timeout(limits.header_time)
                .max_headers(limits.max_headers)
                .max_header_size(limits.max_header_bytes)
                .max_buf_size(limits.max_header_bytes.max(64 * 1024))
                .serve_connection(TokioIo::new(InspectReader::new(stream, note)), service)
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
