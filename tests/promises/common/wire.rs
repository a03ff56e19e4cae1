//! The scripted model's HTTP side: connections, SSE frames, and faults on the wire.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::model::{Answer, MODEL, Part, Purpose, Reply, Request, State};

type Piece = Result<Frame<Bytes>, std::io::Error>;
type Body = StreamBody<ReceiverStream<Piece>>;

/// Accepts, on a fresh loopback port unless there is a listener, until the state says that the
/// server is gone.
pub(super) async fn serve(
    state: Arc<State>,
    listener: Option<std::net::TcpListener>,
) -> SocketAddr {
    let listener = match listener {
        Some(listener) => TcpListener::from_std(listener).expect("a socket for tokio"),
        None => TcpListener::bind("127.0.0.1:0").await.expect("a loopback port"),
    };
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        // Dropping the set breaks every connection, as a dying server would.
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = state.gone.cancelled() => break,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { break };
                    stream.set_nodelay(true).ok();
                    let state = state.clone();
                    connections.spawn(async move {
                        let service = service_fn(move |request| answer(state.clone(), request));
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await
                            .ok();
                    });
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    address
}

async fn answer(
    state: Arc<State>,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        headers: head.headers.iter().map(header).collect(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        purpose: Purpose::Other,
    };
    let streamed = request.body["stream"] == true;
    Ok(match state.receive(request) {
        Reply::Answer(answer) if streamed => stream(state, answer).await,
        Reply::Answer(answer) => plain(200, &[], whole(&answer).to_string()),
        Reply::Plain { status, headers, body } => plain(status, &headers, body),
        Reply::Silence => {
            let watch = HangUp(Some(state));
            std::future::pending::<()>().await;
            drop(watch);
            unreachable!("pending for ever")
        }
        Reply::Vanish => {
            state.vanished.store(true, Ordering::SeqCst);
            state.gone.cancel();
            std::future::pending().await
        }
    })
}

/// Dropped by hyper when the client leaves before its answer has begun.
struct HangUp(Option<Arc<State>>);

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.hung_up();
        }
    }
}

fn plain(status: u16, headers: &[(&'static str, String)], body: String) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(1);
    let length = body.len();
    sender.try_send(Ok(Frame::data(Bytes::from(body)))).expect("room for one");
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(receiver)));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let map = response.headers_mut();
    map.insert("content-type", HeaderValue::from_static("application/json"));
    map.insert("content-length", HeaderValue::from(length));
    for (name, value) in headers {
        map.insert(*name, value.parse().expect("a header value"));
    }
    response
}

/// The answer as one object, for requests that did not ask for a stream.
fn whole(answer: &Answer) -> Value {
    let mut text = String::new();
    let mut calls = Vec::new();
    for part in &answer.parts {
        match part {
            Part::Text(words) => text.push_str(words),
            Part::Call { name, args } => calls.push(json!({
                "id": format!("call_{}", calls.len()), "type": "function",
                "function": {"name": name, "arguments": args.to_string()},
            })),
            _ => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": text});
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    json!({
        "id": "chatcmpl-0", "object": "chat.completion", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
        "usage": usage(answer),
    })
}

fn usage(answer: &Answer) -> Value {
    let tokens = answer.tokens;
    json!({
        "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    })
}

async fn stream(state: Arc<State>, mut answer: Answer) -> Response<Body> {
    let waits = |part: &Part| matches!(part, Part::Pause(_) | Part::Gate(_));
    let head_at = answer.parts.iter().position(|part| !waits(part)).unwrap_or(answer.parts.len());
    let mut held = HangUp(Some(state.clone()));
    for part in answer.parts.drain(..head_at) {
        pass_time(&part).await;
    }
    held.0 = None;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            left = speak(&sender, &answer) => if left.is_err() { state.hung_up() },
            () = sender.closed() => state.hung_up(),
        }
    });
    let mut response = Response::new(StreamBody::new(ReceiverStream::new(receiver)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

async fn pass_time(part: &Part) {
    match part {
        Part::Pause(time) => tokio::time::sleep(*time).await,
        Part::Gate(gate) => gate.wait().await,
        _ => {}
    }
}

/// The client has left.
struct Left;

async fn speak(to: &mpsc::Sender<Piece>, answer: &Answer) -> Result<(), Left> {
    event(to, &chunk(&json!({"role": "assistant", "content": ""}), None)).await?;
    let mut calls = 0;
    for part in &answer.parts {
        match part {
            Part::Text(text) => event(to, &chunk(&json!({"content": text}), None)).await?,
            Part::Reasoning(text) => {
                event(to, &chunk(&json!({"reasoning_content": text}), None)).await?;
            }
            Part::Call { name, args } => {
                let args = args.to_string();
                let middle = (0..=args.len() / 2).rev().find(|at| args.is_char_boundary(*at));
                let (first, rest) = args.split_at(middle.unwrap_or(0));
                call(to, calls, Some(name), first).await?;
                call(to, calls, None, rest).await?;
                calls += 1;
            }
            Part::HalfCall { name, args } => {
                call(to, calls, Some(name), args).await?;
                calls += 1;
            }
            Part::Raw(bytes) => raw(to, bytes).await?,
            Part::Pause(_) | Part::Gate(_) => pass_time(part).await,
            Part::Cut => {
                let broken = std::io::Error::other("cut by the script");
                return to.send(Err(broken)).await.map_err(|_| Left);
            }
            Part::End => return Ok(()),
            Part::Stall => {
                to.closed().await;
                return Err(Left);
            }
        }
    }
    event(to, &chunk(&json!({}), Some(&answer.finish))).await?;
    let mut closing = chunk(&json!({}), None);
    closing["choices"] = json!([]);
    closing["usage"] = usage(answer);
    event(to, &closing).await?;
    raw(to, "data: [DONE]\n\n").await
}

async fn call(
    to: &mpsc::Sender<Piece>,
    at: usize,
    name: Option<&str>,
    args: &str,
) -> Result<(), Left> {
    let mut delta = json!({"index": at, "function": {"arguments": args}});
    if let Some(name) = name {
        let serial = CALLS.fetch_add(1, Ordering::Relaxed);
        delta["id"] = json!(format!("call_{serial}"));
        delta["type"] = json!("function");
        delta["function"]["name"] = json!(name);
    }
    event(to, &chunk(&json!({"tool_calls": [delta]}), None)).await
}

/// Ids of tool calls never repeat.
static CALLS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn chunk(delta: &Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

async fn event(to: &mpsc::Sender<Piece>, data: &Value) -> Result<(), Left> {
    raw(to, &format!("data: {data}\n\n")).await
}

async fn raw(to: &mpsc::Sender<Piece>, text: &str) -> Result<(), Left> {
    to.send(Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))).await.map_err(|_| Left)
}
