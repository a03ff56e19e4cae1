//! What each request over HTTP is answered with.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONNECTION, CONTENT_LENGTH, ORIGIN,
    VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::door::Door;
use super::early;
use super::metrics::Metrics;
use super::refusal::{Body, Refusal, whole};
use super::sessions::{Kind, Sessions};
use super::visit::{Visit, Watched};
use crate::mcp::server::Server;

/// Where each thing is.
pub(super) const MCP: &str = "/mcp";
const HEALTH: &str = "/healthz";
const METRICS: &str = "/metrics";

const SESSION: &str = "mcp-session-id";
const VERSION: &str = "mcp-protocol-version";

/// The version from which on there are no sessions.
const WITHOUT_SESSIONS: &str = "2026-07-28";

/// How long a body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(30);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const EXPOSITION: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What scripts of pages may send.
const PAGES_MAY_SEND: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, \
     mcp-method, mcp-name",
);

/// A stranger gets one answer for a connection: of many, one who reads none of them would keep its
/// place for ever.
fn without_token(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What answers on all connections.
#[derive(Clone)]
pub(super) struct Answers {
    pub door: Arc<Door>,
    pub mcp: StreamableHttpService<Server, Sessions>,
    pub sessions: Arc<Sessions>,
    pub metrics: Arc<Metrics>,
    /// Between two signs of life on a stream.
    pub ping: Duration,
    /// Longest body.
    pub longest: usize,
    /// Cancelled when the server takes no more.
    pub closing: CancellationToken,
    /// The answers that are on their way.
    pub open: TaskTracker,
}

impl Answers {
    pub async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let asked = request.headers().clone();
        let mut response = match self.door.check_host(request.uri(), &asked) {
            Ok(()) => match self.door.check_origin(&asked) {
                Ok(origin) => {
                    let mut response = self.route(request, origin.is_some()).await;
                    if let Some(origin) = origin {
                        open_to(origin, response.headers_mut());
                    }
                    response
                }
                Err(refusal) => refusal.response(),
            },
            Err(refusal) => refusal.response(),
        };
        if self.closing.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.metrics.answered(response.status());
        Ok(response)
    }

    async fn route(&self, request: Request<Incoming>, from_a_page: bool) -> Response<Body> {
        let (path, method) = (request.uri().path(), request.method());
        let read = [Method::GET, Method::HEAD].contains(method);
        let known = [MCP, HEALTH, METRICS].contains(&path);
        if known && from_a_page && *method == Method::OPTIONS {
            return without_token(whole(StatusCode::NO_CONTENT, TEXT, String::new()));
        }
        if path == HEALTH && read {
            return without_token(whole(StatusCode::OK, TEXT, "ok\n".into()));
        }
        if !known {
            let hint = "MCP is at /mcp; there are /healthz and /metrics besides";
            return Refusal::new(StatusCode::NOT_FOUND, "there is nothing here", hint).response();
        }
        if path != HEALTH
            && let Err(refusal) = self.door.check_token(request.headers())
        {
            return refusal.response();
        }
        match path {
            MCP => self.mcp(request).await.unwrap_or_else(Refusal::response),
            METRICS if read => whole(StatusCode::OK, EXPOSITION, self.exposition().await),
            _ => Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this can be read only", "use GET")
                .response(),
        }
    }

    async fn exposition(&self) -> String {
        self.metrics.exposition(&self.sessions).await
    }

    async fn mcp(&self, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        if self.closing.is_cancelled() {
            let hint = "its runs on record are there for the next one";
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is shutting down",
                hint,
            ));
        }
        let (mut head, body) = request.into_parts();
        let text =
            |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let session = text(SESSION).map(ToOwned::to_owned);
        let is_sessionless = text(VERSION).is_some_and(|version| version >= WITHOUT_SESSIONS);
        let kind = if head.method == Method::GET { Kind::Listens } else { Kind::Call };
        let known = session.as_deref().filter(|_| !is_sessionless);
        let visit = Arc::new(Visit::new(known.and_then(|id| self.sessions.find(id)), kind));
        // Before anything is started: the client may leave at any time.
        let lost = visit.lost.clone().drop_guard();
        let body = self.read(&head.headers, body).await?;
        let ends = head.method == Method::DELETE;
        let opens = head.method == Method::POST && session.is_none();
        let answer = (head.method == Method::POST).then(|| self.open.token());
        // Ending a session must not count as a use of it.
        if !ends {
            head.extensions.insert(visit.clone());
        }
        let request = Request::from_parts(head, Full::new(body));
        let (service, ping) = (self.mcp.clone(), self.ping);
        let mut response = if is_sessionless {
            early::answered(async move { service.handle(request).await }, ping).await
        } else {
            service.handle(request).await
        };
        if ends && response.status() == StatusCode::ACCEPTED {
            // It is done and not only accepted, and the Python SDK takes nothing else for success.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        if response.status() == StatusCode::ACCEPTED {
            // Nobody waits for what comes of a notification.
            visit.is_over();
        }
        if opens
            && response.status() == StatusCode::INTERNAL_SERVER_ERROR
            && self.sessions.is_full()
        {
            let message =
                format!("all {} sessions of this server are in use", self.sessions.count());
            let hint = "end one, wait, or raise `[http] sessions`";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, &message, hint));
        }
        Ok(response.map(|body| BodyExt::boxed(Watched::new(body, visit, answer, lost))))
    }

    /// The whole body, within its bounds.
    async fn read(&self, headers: &HeaderMap, mut body: Incoming) -> Result<Bytes, Refusal> {
        let too_long = || {
            Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!("a message may have at most {} bytes", self.longest),
                "the longest task is `limits.task`",
            )
        };
        let told =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if told.is_some_and(|told: usize| told > self.longest) {
            return Err(too_long());
        }
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let mut read = BytesMut::new();
        loop {
            let frame = timeout(BODY_PAUSE, body.frame()).await.map_err(|_| {
                let message = "the body did not come";
                Refusal::new(StatusCode::REQUEST_TIMEOUT, message, "send it without long pauses")
            })?;
            match frame {
                None => return Ok(read.freeze()),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if read.len() + data.len() > self.longest {
                        return Err(too_long());
                    }
                    read.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    let message = format!("the body broke off: {error}");
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, &message, "send it again"));
                }
            }
        }
    }
}

/// Lets a page that may use this server read the answer.
fn open_to(origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, DELETE, OPTIONS"),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, PAGES_MAY_SEND);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SESSION));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(VARY, HeaderValue::from(ORIGIN));
}
