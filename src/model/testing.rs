//! A model server for tests: a real socket that answers, byte for byte, what a test says.

use std::future::Future;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::sse;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Request line and headers.
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON request")
    }
}

/// The connection that a request came on.
#[derive(Debug)]
pub struct Line(pub TcpStream);

impl Line {
    pub async fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have hung up, which is some tests' point.
        let _ = self.0.write_all(bytes.as_ref()).await;
        let _ = self.0.flush().await;
    }

    pub async fn reply(&mut self, status: u16, headers: &str, body: &str) {
        let length = body.len();
        self.raw(format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}"))
            .await;
    }

    pub async fn json(&mut self, status: u16, body: &Value) {
        self.reply(status, "content-type: application/json\r\n", &body.to_string()).await;
    }

    pub async fn begin_stream(&mut self) {
        self.raw("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
    }

    pub async fn chunk(&mut self, bytes: &[u8]) {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.raw(chunk).await;
    }

    pub async fn event(&mut self, json: &Value) {
        self.chunk(&sse::encode(json)).await;
    }

    pub async fn end_stream(&mut self) {
        self.raw("0\r\n\r\n").await;
    }

    /// A whole well-formed stream.
    pub async fn answer(&mut self, events: &[Value]) {
        self.begin_stream().await;
        for event in events {
            self.event(event).await;
        }
        self.chunk(&sse::encode_done()).await;
        self.end_stream().await;
    }

    /// Waits until the other side hangs up.
    pub async fn hung_up(&mut self) {
        let mut rest = [0; 1024];
        while self.0.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    }
}

/// A server on a loopback port; it stops when dropped.
#[derive(Debug)]
pub struct Server {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    /// Answers each request with `script`, which also gets its number, counted from 0.
    pub async fn start<S, F>(script: S) -> Self
    where
        S: Fn(usize, Seen, Line) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.expect("a port"), script)
    }

    pub fn start_on<S, F>(listener: TcpListener, script: S) -> Self
    where
        S: Fn(usize, Seen, Line) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, log) = (script.clone(), log.clone());
                connections.spawn(async move {
                    let mut line = Line(stream);
                    if let Some(request) = Box::pin(read(&mut line.0)).await {
                        let number = {
                            let mut log = log.lock().expect("a log");
                            log.push(request.clone());
                            log.len() - 1
                        };
                        script(number, request, line).await;
                    }
                });
            }
        });
        Self { port, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// A server that answers each path with one JSON value, and others with 404.
    pub async fn of_json(routes: &[(&'static str, Value)]) -> Self {
        let routes: Arc<[_]> = routes.into();
        Self::start(move |_, seen, mut line| {
            let routes = routes.clone();
            async move {
                match routes.iter().find(|(path, _)| *path == seen.path()) {
                    Some((_, body)) => line.json(200, body).await,
                    None => line.reply(404, "", "404 page not found").await,
                }
            }
        })
        .await
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("a log").clone()
    }
}

/// A port on which nobody listens.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut seen = Seen { head, body: bytes.split_off(head_end + 4) };
    let length = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while seen.body.len() < length {
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        seen.body.extend_from_slice(&buffer[..read]);
    }
    Some(seen)
}

pub fn text(text: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
}

pub fn tool_call(index: u64, name: &str, arguments: &str) -> Value {
    let function = json!({"name": name, "arguments": arguments});
    let call = json!({"index": index, "id": format!("id-{index}"), "type": "function", "function": function});
    json!({"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": null}]})
}

pub fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

pub fn usage(input: u64, output: u64) -> Value {
    json!({"choices": [], "usage": {"prompt_tokens": input, "completion_tokens": output}})
}

/// A client on a unix socket.
pub fn client_on(socket: &std::path::Path) -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().tls_certs_only([]).unix_socket(socket);
    builder.build().expect("a client")
}
