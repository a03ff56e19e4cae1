//! The head of an answer before the answer.
//!
//! From protocol 2026-07-28 on rmcp waits for the first message before it sends a head, because the
//! status depends on it. A call that says nothing for long would look dead to clients and proxies,
//! so after a while the head goes out with signs of life, and what comes then comes as an event.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::refusal::Body;

const EVENTS: &str = "text/event-stream";

/// A comment, which clients drop.
const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

/// Waits for the answer, but for its head no longer than `ping`. Dropping it, or the body that comes
/// of it, drops `answer`.
pub(super) async fn answered(
    answer: impl Future<Output = Response<Body>> + Send + 'static,
    ping: Duration,
) -> Response<Body> {
    let mut answer = Box::pin(answer);
    match tokio::time::timeout(ping, &mut answer).await {
        Ok(response) => response,
        Err(_) => with_head(answer, ping),
    }
}

fn with_head(
    answer: impl Future<Output = Response<Body>> + Send + Unpin + 'static,
    ping: Duration,
) -> Response<Body> {
    let (pieces, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        let gone = pieces.clone();
        tokio::select! {
            () = gone.closed() => {}
            () = fill(&pieces, answer, ping) => {}
        }
    });
    let frames = ReceiverStream::new(taken).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Ends early when nobody takes the pieces.
async fn fill(
    pieces: &mpsc::Sender<Bytes>,
    mut answer: impl Future<Output = Response<Body>> + Unpin,
    ping: Duration,
) {
    let response = loop {
        if pieces.send(SIGN_OF_LIFE).await.is_err() {
            return;
        }
        if let Ok(response) = tokio::time::timeout(ping, &mut answer).await {
            break response;
        }
    };
    let is_a_stream = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == EVENTS);
    let mut body = response.into_body();
    if !is_a_stream {
        // An error in one object, whose status can no longer be told.
        let Ok(whole) = body.collect().await;
        let whole = whole.to_bytes();
        let event = [b"data: ", whole.trim_ascii(), b"\n\n"].concat();
        if pieces.send(event.into()).await.is_err() {
            tracing::debug!("nobody took the error");
        }
        return;
    }
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && pieces.send(data).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::Full;
    use tokio_util::sync::CancellationToken;

    use super::*;

    const PING: Duration = Duration::from_secs(1);

    fn response(kind: &'static str, status: StatusCode, body: &'static str) -> Response<Body> {
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())).boxed());
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    async fn after(pause: Duration, response: Response<Body>) -> (StatusCode, String) {
        let answer = async move {
            tokio::time::sleep(pause).await;
            response
        };
        let response = answered(answer, PING).await;
        let status = response.status();
        let Ok(body) = response.into_body().collect().await;
        (status, String::from_utf8(body.to_bytes().into()).expect("text"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_soon_comes_as_it_is() {
        let error = response("application/json", StatusCode::NOT_FOUND, "{}");
        assert_eq!(after(PING / 2, error).await, (StatusCode::NOT_FOUND, "{}".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_late_comes_behind_signs_of_life() {
        let stream = response(EVENTS, StatusCode::OK, "data: {}\n\n");
        let (status, body) = after(PING * 7 / 2, stream).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ":\n\n:\n\n:\n\ndata: {}\n\n"));
        let error = response("application/json", StatusCode::NOT_FOUND, "{\"error\":1}\n");
        let (status, body) = after(PING * 3 / 2, error).await;
        assert_eq!((status, body.as_str()), (StatusCode::OK, ":\n\ndata: {\"error\":1}\n\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_drops_the_call() {
        let dropped = CancellationToken::new();
        let guard = dropped.clone().drop_guard();
        let answer = async move {
            let _guard = guard;
            std::future::pending().await
        };
        let response = answered(answer, PING).await;
        assert!(!dropped.is_cancelled());
        drop(response);
        dropped.cancelled().await;
    }
}
