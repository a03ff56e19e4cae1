//! The way of one request: may it pass, what does it become, what came back.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::Limits;
use super::dialect::Dialect;
use super::ledger::Ledger;
use super::pump::{HEARTBEAT, Parties, Pump, Question, failure, heartbeat};
use super::request::{self, Rebuilt};
use super::respond::{self, Body};
use super::route::{self, Route};
use crate::model::{self, Endpoint, Fault, FaultKind, Upstream};

/// Pauses before a busy server is asked again. Two are enough to bridge a hiccup; longer trouble is
/// better told than waited for.
const RETRIES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];
/// A server that asks for more patience than this is not asked again.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);
/// Between two questions to a server that loads its model.
const LOADING: Duration = Duration::from_secs(1);
/// Refusals of one request that teach something.
const LESSONS: usize = 8;

#[derive(Debug)]
pub struct Relay {
    parties: Parties,
    upstream: Upstream,
    limits: Limits,
    /// What the server was seen to refuse in this run.
    dialect: Mutex<Dialect>,
    /// KiB of request bodies that may be in memory at one time.
    room: Arc<Semaphore>,
}

/// An answer that is waited for.
type Asking = Pin<Box<dyn Future<Output = Result<Pump, Fault>> + Send>>;

impl Relay {
    pub fn new(
        endpoint: Endpoint,
        limits: Limits,
        ledger: Arc<Ledger>,
    ) -> Result<Self, model::Error> {
        let upstream = Upstream::new(&endpoint)?;
        // Two of the largest bodies: a hostile sandbox can fill this, and then only waits for itself.
        let room = Arc::new(Semaphore::new(2 * kibibytes(limits.max_body) as usize));
        let parties = Parties { endpoint: Arc::new(endpoint), ledger };
        Ok(Self { parties, upstream, limits, dialect: Mutex::default(), room })
    }

    pub async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        Ok(match route::route(&head) {
            Some(Route::Forward(path)) => match self.clone().forward(path, body).await {
                Ok(response) | Err(response) => response,
            },
            Some(Route::Models) => respond::models(&self.parties.endpoint),
            Some(Route::Model(id)) => respond::model(&self.parties.endpoint, id),
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
        self: Arc<Self>,
        path: &'static str,
        body: Incoming,
    ) -> Result<Response<Body>, Response<Body>> {
        let (asked, room) = self.read_body(body).await?;
        let rebuilt = request::rebuild(&asked, &self.parties.endpoint.model, &self.dialect());
        drop(asked);
        let rebuilt = rebuilt
            .map_err(|message| self.refuse(StatusCode::BAD_REQUEST, "invalid_request", &message))?;
        let started = self.parties.ledger.start(self.limits.max_requests);
        let number = started.map_err(|fault| respond::fault(&fault))?;
        let question = Question {
            number,
            tools: rebuilt.tools.clone(),
            max_tokens: rebuilt.max_tokens,
            plain: path == "/completions",
        };
        let parties = self.parties.clone();
        let streamed = rebuilt.streamed;
        if !streamed {
            let whole = self.whole(path, rebuilt, question, room).await;
            return whole
                .map(|body| respond::whole(StatusCode::OK, body))
                .map_err(|fault| respond::fault(&parties.record_fault(fault)));
        }
        let mut asking: Asking = Box::pin(self.stream(path, rebuilt, question, room));
        // Until an answer begins, a fault can be told with a status of its own. But an agent that
        // sees no head for minutes hangs up, so a slow answer's head is ours.
        let answer = match timeout(HEARTBEAT, asking.as_mut()).await {
            Ok(Ok(pump)) => Waited::Begun(Box::new(pump)),
            Ok(Err(fault)) => return Err(respond::fault(&parties.record_fault(fault))),
            Err(_) => Waited::Asked(asking, parties),
        };
        let chunks = stream::unfold(answer, Waited::next);
        Ok(respond::streamed(Box::pin(chunks)))
    }

    fn dialect(&self) -> Dialect {
        self.dialect.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refuse(&self, status: StatusCode, code: &str, message: &str) -> Response<Body> {
        self.parties.ledger.refuse();
        respond::refusal(status, code, message)
    }

    /// The whole request, because it is rebuilt: bounded in size, time, and with all others.
    async fn read_body(
        &self,
        body: Incoming,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Response<Body>> {
        let most = self.limits.max_body;
        let too_long = || {
            let message = format!("a request may have {most} bytes");
            self.refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message)
        };
        let size = body.size_hint().exact().map_or(Some(most), |size| usize::try_from(size).ok());
        let size = size.filter(|size| *size <= most).ok_or_else(too_long)?;
        let reading = async {
            let room = self.room.clone().acquire_many_owned(kibibytes(size)).await.ok()?;
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

    /// Asks the model, and returns when the answer has really begun.
    async fn stream(
        self: Arc<Self>,
        path: &'static str,
        rebuilt: Rebuilt,
        question: Question,
        room: OwnedSemaphorePermit,
    ) -> Result<Pump, Fault> {
        let started = Instant::now();
        let number = question.number;
        let until = started + self.limits.first_byte_timeout;
        let mut pump = self.ask(path, rebuilt, question, until).await?;
        drop(room);
        timeout_at(until, pump.begin()).await.map_err(|_| self.late())??;
        self.parties.ledger.first_byte(number, started.elapsed());
        Ok(pump)
    }

    async fn whole(
        self: Arc<Self>,
        path: &'static str,
        rebuilt: Rebuilt,
        question: Question,
        room: OwnedSemaphorePermit,
    ) -> Result<Bytes, Fault> {
        let started = Instant::now();
        let number = question.number;
        let until = started + self.limits.first_byte_timeout;
        let pump = self.ask(path, rebuilt, question, until).await?;
        drop(room);
        let whole = timeout_at(until, pump.whole()).await.map_err(|_| self.late())??;
        self.parties.ledger.first_byte(number, started.elapsed());
        Ok(whole)
    }

    fn late(&self) -> Fault {
        Fault::first_byte_timeout(self.limits.first_byte_timeout)
    }

    /// The answer, whose head is here.
    async fn ask(
        &self,
        path: &str,
        rebuilt: Rebuilt,
        question: Question,
        until: Instant,
    ) -> Result<Pump, Fault> {
        let response = self.send(path, rebuilt, until).await?;
        // Whatever else a server calls its answer, the reader tells what it is.
        if response.content_type == "text/html" {
            return Err(response.into_misfit().await);
        }
        let stall = self.limits.stall_timeout;
        Ok(Pump::new(response.body, question, self.parties.clone(), stall, until))
    }

    /// The head of a successful answer. A busy server (429, 503) is asked again twice at most, one
    /// that loads its model until `until`, and one that refuses a part of the request without it.
    async fn send(
        &self,
        path: &str,
        mut rebuilt: Rebuilt,
        until: Instant,
    ) -> Result<model::Response, Fault> {
        let ledger = &self.parties.ledger;
        let mut pauses = RETRIES.into_iter();
        let mut lessons = 0;
        let mut told = false;
        loop {
            ledger.sent(rebuilt.body.len());
            let sending = self.upstream.post(path, rebuilt.body.clone());
            let response = timeout_at(until, sending).await.map_err(|_| self.late())??;
            if response.is_success() {
                return Ok(response);
            }
            let asked_for = response.retry_after;
            let busy = matches!(response.status, 429 | 503);
            let fault = response.into_fault().await;
            if fault.kind == FaultKind::Loading && Instant::now() + LOADING < until {
                if !std::mem::replace(&mut told, true) {
                    ledger.waiting("the model server is loading its model");
                }
                ledger.retry();
                tokio::time::sleep(LOADING).await;
                continue;
            }
            let teaches = fault.kind == FaultKind::HttpStatus && lessons < LESSONS;
            if teaches && let Some(other) = self.learn(&fault, &rebuilt) {
                lessons += 1;
                ledger.retry();
                rebuilt = other;
                continue;
            }
            let pause = pauses.next().map(|usual| asked_for.unwrap_or(usual));
            match pause {
                Some(pause) if busy && pause <= MAX_RETRY_AFTER => {
                    ledger.retry();
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(fault),
            }
        }
    }

    /// The request without what the server refused, if it says what that is.
    fn learn(&self, fault: &Fault, refused: &Rebuilt) -> Option<Rebuilt> {
        let dialect = {
            let mut known = self.dialect.lock().unwrap_or_else(PoisonError::into_inner);
            let learned = known.learn(&fault.message, &refused.parameters);
            // Another request may have learned the same meanwhile; the outcome tells.
            tracing::debug!(learned, message = fault.message, "the server refused a request");
            known.clone()
        };
        let other = request::rebuild(&refused.body, &self.parties.endpoint.model, &dialect).ok()?;
        (other.body != refused.body).then_some(other)
    }
}

/// A streamed answer on its way, begun or not.
enum Waited {
    Asked(Asking, Parties),
    Begun(Box<Pump>),
    Ended,
}

impl Waited {
    /// The next bytes for the agent. Dropping the stream, as happens when the agent hangs up, drops
    /// the connection to the server, which then stops computing.
    async fn next(self) -> Option<(Bytes, Self)> {
        match self {
            Self::Asked(mut asking, parties) => match timeout(HEARTBEAT, asking.as_mut()).await {
                Err(_) => Some((heartbeat(), Self::Asked(asking, parties))),
                Ok(Ok(mut pump)) => Some((pump.next().await?, Self::Begun(Box::new(pump)))),
                Ok(Err(fault)) => Some((failure(&parties.record_fault(fault)), Self::Ended)),
            },
            Self::Begun(mut pump) => Some((pump.next().await?, Self::Begun(pump))),
            Self::Ended => None,
        }
    }
}

/// `bytes` in KiB, rounded up, for a semaphore.
fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}
