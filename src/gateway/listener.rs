//! Serves HTTP on a unix socket to a client that may be hostile: everything it can open, send or
//! leave undone is bounded.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::respond::Body;

/// Serves until `stop`; then connections are dropped where they stand, and it returns when they
/// are gone.
pub async fn serve<H, F>(listener: UnixListener, limits: Limits, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limits.max_connections));
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
                    let handle = handle.clone();
                    connections.spawn(async move {
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
