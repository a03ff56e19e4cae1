//! Plain HTTP: one request on one connection, rebuilt on its way there and back.
//!
//! The head was judged already, byte for byte; hyper reads it again for us and takes care of the
//! bodies. Of what it reads only the path, the method and the headers that are not about the
//! connection go on.

use std::io::Cursor;
use std::sync::Mutex;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use super::Refusal;
use super::answer::Refused;
use super::head::Head;
use super::headers::end_to_end;
use super::meter::Metered;
use super::proxy::{Passed, Proxy, answer_and_close};

type Body = BoxBody<Bytes, hyper::Error>;

pub async fn serve(proxy: &Proxy, mut stream: UnixStream, passed: Passed) {
    let meter = proxy.meter();
    let opened = async {
        let upstream = Metered::new(proxy.connect(&passed).await?, meter.clone());
        let handshake = hyper::client::conn::http1::Builder::new()
            .max_headers(256)
            .max_buf_size(256 * 1024)
            .handshake::<_, Body>(TokioIo::new(upstream));
        handshake.await.map_err(|_| Refusal::Unreachable)
    };
    let (sender, connection) = match opened.await {
        Ok(opened) => opened,
        Err(reason) => {
            proxy.record(&passed.head, Err(reason));
            let answer = refused(&passed.head, reason).to_bytes();
            return answer_and_close(&mut stream, &answer).await;
        }
    };
    proxy.record(&passed.head, Ok(()));
    let connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let head = &passed.head;
    let sender = Mutex::new(Some(sender));
    let handle = service_fn(|request| {
        // There is one request on a connection; a second one finds no sender.
        let sender = sender.lock().ok().and_then(|mut sender| sender.take());
        forward(head, sender, request)
    });
    let (reader, writer) = stream.into_split();
    let io = tokio::io::join(Cursor::new(passed.bytes).chain(reader), writer);
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(proxy.bounds.head_time)
        .max_headers(64)
        .max_buf_size(proxy.bounds.head_bytes.max(64 * 1024))
        .keep_alive(false)
        .serve_connection(TokioIo::new(io), handle);
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::debug!(%error, "a plain request broke");
        },
        () = meter.idle(proxy.bounds.idle_time) => tracing::debug!("an idle plain request is closed"),
    }
    drop(connection);
    if proxy.is_spent() {
        proxy.record(head, Err(Refusal::Bytes));
    }
}

fn refused(head: &Head, reason: Refusal) -> Refused<'_> {
    Refused { reason, target: head.name.as_str(), port: head.port, why: "" }
}

async fn forward(
    head: &Head,
    sender: Option<SendRequest<Body>>,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    let Some(mut sender) = sender else { return Ok(unreachable(head)) };
    let Some(request) = rebuild(head, request) else { return Ok(unreachable(head)) };
    match sender.send_request(request).await {
        Ok(response) => Ok(returned(response).unwrap_or_else(|| unreachable(head))),
        Err(error) => {
            tracing::debug!(%error, "no answer to a plain request");
            Ok(unreachable(head))
        }
    }
}

/// The request as it goes on: to the host that was judged, whatever its headers say.
fn rebuild(head: &Head, request: Request<Incoming>) -> Option<Request<Body>> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let host = if head.port == 80 {
        head.name.to_string()
    } else {
        format!("{}:{}", head.name, head.port)
    };
    let mut rebuilt = Request::new(body.boxed());
    *rebuilt.method_mut() = parts.method;
    *rebuilt.uri_mut() = path.parse::<Uri>().ok()?;
    let headers = end_to_end(&parts.headers);
    rebuilt.headers_mut().insert(header::HOST, HeaderValue::from_str(&host).ok()?);
    for (name, value) in &headers {
        // The length is hyper's to write; it knows the body.
        if name != header::HOST && name != header::CONTENT_LENGTH {
            rebuilt.headers_mut().append(name, value.clone());
        }
    }
    Some(rebuilt)
}

/// The answer as it goes back, unless the server wants to speak something else than HTTP.
fn returned(response: Response<Incoming>) -> Option<Response<Body>> {
    let (parts, body) = response.into_parts();
    if parts.status.is_informational() {
        return None;
    }
    let mut returned = Response::new(body.boxed());
    *returned.status_mut() = parts.status;
    *returned.headers_mut() = end_to_end(&parts.headers);
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        returned.headers_mut().remove(header::CONTENT_LENGTH);
    }
    Some(returned)
}

fn unreachable(head: &Head) -> Response<Body> {
    let refused = refused(head, Refusal::Unreachable);
    let body = Full::new(Bytes::from(refused.text())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let reason = HeaderValue::from_static(refused.reason.as_str());
    response.headers_mut().insert("x-sandbox-refused", reason);
    response
}
