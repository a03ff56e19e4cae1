//! The way of one request: may it pass, what does it become, what came back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::Limits;
use super::ledger::Ledger;
use super::pump::{Pump, record_fault};
use super::request::{self, Rebuilt};
use super::respond::{self, Body};
use super::route::{self, Route};
use crate::model::{self, Answer, Endpoint, Fault, FaultKind, Reader, Redactor, Upstream};

/// Pauses before a busy server is asked again. Two are enough to bridge a hiccup; longer trouble is
/// better told than waited for.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
/// A server that asks for more patience than this is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Most bytes of an answer that is not streamed.
const MAX_WHOLE: usize = 16 * 1024 * 1024;

#[derive(Debug)]
pub struct Relay {
    endpoint: Arc<Endpoint>,
    upstream: Upstream,
    limits: Limits,
    ledger: Arc<Ledger>,
    /// KiB of request bodies that may be in memory at one time.
    room: Semaphore,
}

impl Relay {
    pub fn new(
        endpoint: Endpoint,
        limits: Limits,
        ledger: Arc<Ledger>,
    ) -> Result<Self, model::Error> {
        let upstream = Upstream::new(&endpoint)?;
        // Two of the largest bodies: a hostile sandbox can fill this, and then only waits for itself.
        let room = Semaphore::new(2 * kibibytes(limits.max_body) as usize);
        Ok(Self { endpoint: Arc::new(endpoint), upstream, limits, ledger, room })
    }

    pub async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        Ok(match route::route(&head) {
            Some(Route::Forward(path)) => match self.forward(path, body).await {
                Ok(response) | Err(response) => response,
            },
            Some(Route::Models) => respond::models(&self.endpoint),
            Some(Route::Model(id)) => respond::model(&self.endpoint, id),
            None => {
                let asked = format!("{} {}", head.method, route::target(&head).unwrap_or("?"));
                let asked = crate::text::one_line(crate::text::prefix(&asked, 200), 100);
                tracing::debug!(asked, "refused");
                let message = format!("`{asked}` does not pass; what passes is {}", route::ALLOWED);
                self.refuse(StatusCode::FORBIDDEN, "not_allowed", &message)
            }
        })
    }

    /// Either outcome is what the agent gets.
    async fn forward(
        &self,
        path: &'static str,
        body: Incoming,
    ) -> Result<Response<Body>, Response<Body>> {
        let (asked, room) = self.read_body(body).await?;
        let rebuilt = request::rebuild(&asked, &self.endpoint.model);
        drop(asked);
        let Rebuilt { body, streamed } = rebuilt
            .map_err(|message| self.refuse(StatusCode::BAD_REQUEST, "invalid_request", &message))?;
        let number =
            self.ledger.start(self.limits.max_requests).map_err(|fault| respond::fault(&fault))?;
        let asked = self.ask(number, path, body, streamed).await;
        drop(room);
        asked.map_err(|fault| respond::fault(&record_fault(&self.ledger, &self.endpoint, fault)))
    }

    fn refuse(&self, status: StatusCode, code: &str, message: &str) -> Response<Body> {
        self.ledger.refuse();
        respond::refusal(status, code, message)
    }

    /// The whole request, because it is rebuilt: bounded in size, time, and with all others.
    async fn read_body(
        &self,
        body: Incoming,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Response<Body>> {
        let most = self.limits.max_body;
        let too_long = || {
            let message = format!("a request may have {most} bytes");
            self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message)
        };
        let size = body.size_hint().exact().map_or(Some(most), |size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= most).ok_or_else(too_long)?;
        let reading = async {
            let room = self.room.acquire_many(kibibytes(size)).await.ok()?;
            let body = Limited::new(body, most).collect().await.ok()?.to_bytes();
            Some((body, room))
        };
        match timeout(self.limits.body_time, reading).await {
            Ok(Some(read)) => Ok(read),
            Ok(None) => Err(too_long()),
            Err(_) => {
                let message = "the request took too long to arrive";
                Err(self.refuse(StatusCode::REQUEST_TIMEOUT, "too_slow", message))
            }
        }
    }

    /// Asks the model, and returns when the answer has really begun: until then a fault can be told
    /// with a status of its own.
    async fn ask(
        &self,
        number: u64,
        path: &'static str,
        body: Bytes,
        streamed: bool,
    ) -> Result<Response<Body>, Fault> {
        let started = Instant::now();
        let response = self.send(path, &body).await?;
        match (streamed, response.content_type.as_str()) {
            (true, "text/event-stream" | "text/plain" | "") => {
                self.stream(number, started, response).await
            }
            (_, "application/json" | "application/problem+json" | "text/plain" | "") => {
                self.whole(number, started, response, streamed).await
            }
            _ => Err(response.into_misfit().await),
        }
    }

    /// The head of a successful answer. A busy server (429, 503) is asked again, twice at most.
    async fn send(&self, path: &str, body: &Bytes) -> Result<model::Response, Fault> {
        let mut pauses = RETRIES.into_iter();
        loop {
            self.ledger.sent(body.len());
            let patience = self.limits.first_byte_timeout;
            let sending = self.upstream.post(path, body.clone());
            let response = timeout(patience, sending)
                .await
                .map_err(|_| Fault::first_byte_timeout(patience))??;
            if response.is_success() {
                return Ok(response);
            }
            let asked_for = response.retry_after;
            let busy = matches!(response.status, 429 | 503);
            let pause = pauses.next().map(|usual| asked_for.unwrap_or(usual));
            match pause {
                Some(pause) if busy && pause <= MAX_RETRY_AFTER => {
                    self.ledger.retry();
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(response.into_fault().await),
            }
        }
    }

    async fn stream(
        &self,
        number: u64,
        started: Instant,
        response: model::Response,
    ) -> Result<Response<Body>, Fault> {
        let mut pump = Pump {
            body: response.body,
            reader: Reader::default(),
            redactor: Redactor::new(self.endpoint.api_key.clone()),
            number,
            stall_timeout: self.limits.stall_timeout,
            endpoint: self.endpoint.clone(),
            ledger: self.ledger.clone(),
            ended: false,
        };
        let patience = self.limits.first_byte_timeout;
        let left = patience.saturating_sub(started.elapsed());
        let first = match timeout(left, pump.body.next()).await {
            Ok(Some(first)) => first?,
            Ok(None) => {
                let message = "the server ended its answer before it had begun";
                return Err(Fault::new(FaultKind::StreamCut, message));
            }
            Err(_) => return Err(Fault::first_byte_timeout(patience)),
        };
        self.ledger.first_byte(number, started.elapsed());
        let first = pump.read(first)?;
        let first = futures_util::stream::once(std::future::ready(first));
        Ok(respond::streamed(Box::pin(first.chain(pump.into_stream()))))
    }

    async fn whole(
        &self,
        number: u64,
        started: Instant,
        mut response: model::Response,
        streamed: bool,
    ) -> Result<Response<Body>, Fault> {
        let patience = self.limits.first_byte_timeout;
        let left = patience.saturating_sub(started.elapsed());
        let body = timeout(left, response.read_all(MAX_WHOLE))
            .await
            .map_err(|_| Fault::first_byte_timeout(patience))??;
        self.ledger.received(body.len());
        self.ledger.first_byte(number, started.elapsed());
        let mut redactor = Redactor::new(self.endpoint.api_key.clone());
        let body = [redactor.pass(body), redactor.rest()].concat();
        let mut answer = Answer::default();
        let mut calls = Vec::new();
        answer.push_whole(&body, &mut calls)?;
        if streamed {
            let message = "the server answered a streamed request with one JSON object";
            return Err(Fault::new(FaultKind::NotJson, message));
        }
        for call in calls {
            self.ledger.tool_call(number, call);
        }
        self.ledger.answered(number, &answer);
        Ok(respond::whole(StatusCode::OK, body))
    }
}

/// `bytes` in KiB, rounded up, for a semaphore.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
