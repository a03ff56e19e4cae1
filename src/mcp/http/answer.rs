//! What each request over HTTP is answered with.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, CONNECTION, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::accept::{Takes, one_piece};
use super::bodies::Bodies;
use super::door::Door;
use super::early;
use super::metrics::Metrics;
use super::places::Place;
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
    pub bodies: Bodies,
    /// Most answers that one session may wait for at once, and all clients without one together.
    pub each: usize,
    pub sessionless: Arc<Semaphore>,
    /// Cancelled when the server takes no more.
    pub closing: CancellationToken,
    /// The answers that are on their way.
    pub open: TaskTracker,
}

impl Answers {
    pub async fn answer(
        self,
        request: Request<Incoming>,
        place: Arc<Place>,
    ) -> Result<Response<Body>, Infallible> {
        let asked = request.headers().clone();
        let mut response = match self.door.check_host(request.uri(), &asked) {
            Ok(()) => match self.door.check_origin(&asked) {
                Ok(origin) => {
                    let mut response = self.route(request, origin.is_some(), &place).await;
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

    async fn route(
        &self,
        request: Request<Incoming>,
        from_a_page: bool,
        place: &Place,
    ) -> Response<Body> {
        let (path, method) = (request.uri().path(), request.method());
        // Several clients put a slash behind whatever they are given.
        let path = if path.strip_suffix('/') == Some(MCP) { MCP } else { path };
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
        if path != HEALTH {
            if let Err(refusal) = self.door.check_token(request.headers()) {
                return refusal.response();
            }
            if let Err(refusal) = place.is_a_clients().await {
                return refusal.response();
            }
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
        let body = self.bodies.read(&head.headers, body).await?;
        if body.is_greeting && session.is_some() {
            // A client that begins anew may still carry what it had before a restart of ours.
            head.headers.remove(SESSION);
            head.headers.remove(VERSION);
        }
        let takes = Takes::of(&head.headers);
        takes.settle(&mut head.headers, kind == Kind::Listens);
        if body.is_request && visit.session().is_some_and(|held| held.calls() > self.each) {
            return Err(too_many());
        }
        let share = if body.is_request && is_sessionless {
            Some(self.sessionless.clone().try_acquire_owned().map_err(|_| too_many())?)
        } else {
            None
        };
        let ends = head.method == Method::DELETE;
        let opens = head.method == Method::POST && (session.is_none() || body.is_greeting);
        let answer = (head.method == Method::POST).then(|| self.open.token());
        // Ending a session must not count as a use of it.
        if !ends {
            head.extensions.insert(visit.clone());
        }
        let request = Request::from_parts(head, Full::new(body.bytes));
        let (service, ping) = (self.mcp.clone(), self.ping);
        let mut response = if takes.wants_one_piece() {
            one_piece(service.handle(request).await).await?
        } else if is_sessionless {
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
        let replaced = session
            .filter(|_| kind == Kind::Listens && response.status() == StatusCode::OK)
            .map(|id| self.sessions.listens(&id));
        if replaced.is_some() {
            // Its end is to give back the place of its connection.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(|body| {
            let body = match replaced {
                Some(replaced) => until(replaced, body),
                None => body,
            };
            BodyExt::boxed(Watched::new(body, visit, (answer, share), lost))
        }))
    }
}

/// A stream that also ends when another one has taken its place.
fn until(replaced: CancellationToken, body: Body) -> Body {
    let ended = replaced.clone().drop_guard();
    let frames = BodyStream::new(body).take_until(replaced.cancelled_owned());
    BodyExt::boxed(StreamBody::new(frames.map(move |frame| {
        let _ = &ended;
        frame
    })))
}

fn too_many() -> Refusal {
    Refusal::new(
        StatusCode::TOO_MANY_REQUESTS,
        "this client waits for too many answers at once",
        "wait for one of them, or raise `[http] connections`",
    )
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
