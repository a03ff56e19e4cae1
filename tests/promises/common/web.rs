//! The real binary over HTTP, and clients that see single requests, headers and events.
//!
//! Each request has a connection of its own, so that dropping an answer breaks its connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Finished, PATIENCE, Product, Running, Workspace};

/// A host that waits as long as it takes, as in [`super::mcp`].
const PATIENT: &str = "claude-code";

/// One server process.
pub struct Web {
    pub server: Running,
    pub address: SocketAddr,
    pub token: String,
}

impl Web {
    /// Starts `serve --http` at a free port in the workspace.
    pub async fn start(product: &Product, workspace: &Workspace) -> Self {
        let mut command = product.command(["serve", "--http", "127.0.0.1:0"]);
        command.current_dir(workspace.path());
        let mut server = product.start(command);
        server.close_stdin();
        let address = server
            .stderr
            .until("the address", |text, _| {
                let (first, _) = text.split_once('\n')?;
                let address = first.strip_prefix("serving MCP at http://")?.strip_suffix("/mcp");
                Some(address.expect("at /mcp").parse().expect("an address"))
            })
            .await;
        let token = std::fs::read_to_string(product.folder("state").join("http-token"));
        let token = token.expect("a token").trim().to_owned();
        Self { server, address, token }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// A request with the right `Host`, and nothing else.
    pub fn bare(&self, method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header("host", self.address.to_string())
    }

    /// A request with the token.
    pub fn with_token(&self, method: Method, path: &str) -> http::request::Builder {
        self.bare(method, path).header("authorization", format!("Bearer {}", self.token))
    }

    /// Sends it on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            connection.await.ok();
        }));
        let sent = tokio::time::timeout(PATIENCE, sender.send_request(request));
        let (head, body) = sent.await.expect("an answer in time").expect("an answer").into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
            read: String::new(),
            last_id: None,
            _connection: connection,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.with_token(Method::GET, path).body(Full::default()).expect("sound")).await
    }

    /// The samples on the page of metrics as they are written, by name and labels.
    pub async fn metrics(&self) -> std::collections::BTreeMap<String, String> {
        let page = self.get("/metrics").await.text().await;
        let samples = page.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.to_owned())
        };
        samples.map(sample).collect()
    }

    pub fn client(&self) -> Client<'_> {
        let capabilities = json!({});
        Client { web: self, session: None, version: None, capabilities, ids: AtomicU64::new(1) }
    }

    /// A client that has shaken hands with the version that most speak.
    pub async fn greeted(&self) -> Client<'_> {
        let mut client = self.client();
        client.initialize("2025-11-25").await;
        client
    }

    pub async fn stop(self) -> Finished {
        self.server.signal(rustix::process::Signal::TERM);
        self.server.wait_within(std::time::Duration::from_secs(15)).await
    }
}

/// An answer, of which the body is still on its way.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Incoming,
    read: String,
    /// The id of the last event that was read.
    pub last_id: Option<String>,
    _connection: AbortOnDropHandle<()>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    pub async fn text(self) -> String {
        let body = tokio::time::timeout(PATIENCE, self.body.collect()).await;
        let body = body.expect("its end in time").expect("a whole body").to_bytes();
        self.read + &String::from_utf8_lossy(&body)
    }

    pub async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next frame of bytes as they come; none at the end or when the connection broke.
    pub async fn piece(&mut self) -> Option<String> {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("in time");
        let data = frame?.ok()?.into_data().ok()?;
        Some(String::from_utf8_lossy(&data).into_owned())
    }

    /// The next message of an event stream; none at its end.
    pub async fn message(&mut self) -> Option<Value> {
        loop {
            while let Some((event, rest)) = self.read.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.read = rest;
                let field = |name: &str| {
                    event.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
                };
                if let Some(id) = field("id:") {
                    self.last_id = Some(id);
                }
                if let Some(data) = field("data:").filter(|data| !data.is_empty()) {
                    return Some(serde_json::from_str(&data).expect("JSON in an event"));
                }
            }
            let piece = self.piece().await?;
            self.read += &piece.replace("\r\n", "\n");
        }
    }

    /// Reads up to a progress message that holds `words`.
    pub async fn progress_says(&mut self, words: &str) {
        while let Some(message) = self.message().await {
            let told = message["params"]["message"].as_str().unwrap_or_default();
            if message["method"] == "notifications/progress" && told.contains(words) {
                return;
            }
            assert!(message["result"].is_null(), "the answer came first: {message:#}");
        }
        panic!("the stream ended before `{words}`");
    }

    /// Reads up to the server's own request for `method`: its id and parameters.
    pub async fn asked(&mut self, method: &str) -> (Value, Value) {
        while let Some(message) = self.message().await {
            if message["method"] == method && !message["id"].is_null() {
                return (message["id"].clone(), message["params"].clone());
            }
            assert!(message["result"].is_null(), "the answer came first: {message:#}");
        }
        panic!("the stream ended before a request for {method}");
    }

    /// Reads up to the response; none when the stream ends without one.
    pub async fn response(&mut self) -> Option<Value> {
        loop {
            let message = self.message().await?;
            if message["method"].is_null() {
                return Some(message);
            }
        }
    }

    /// The result of what must not fail.
    pub async fn result(&mut self) -> Value {
        assert_eq!(self.status, StatusCode::OK);
        let response = self.response().await.expect("a response");
        assert!(response["error"].is_null(), "{response:#}");
        response["result"].clone()
    }
}

/// One MCP client.
pub struct Client<'a> {
    web: &'a Web,
    pub session: Option<String>,
    pub version: Option<&'static str>,
    /// What it says that it can do.
    pub capabilities: Value,
    ids: AtomicU64,
}

impl Client<'_> {
    pub async fn initialize(&mut self, version: &'static str) -> Value {
        let client = json!({"name": PATIENT, "version": "1"});
        let params = json!({
            "protocolVersion": version, "capabilities": self.capabilities, "clientInfo": client,
        });
        let mut answer = self.post("initialize", params).await.1;
        let session = answer.header("mcp-session-id").to_owned();
        let result = answer.result().await;
        self.session = Some(session);
        self.version = Some(version);
        self.notify("notifications/initialized", json!({})).await;
        result
    }

    /// The same, of a host that can do this.
    pub fn able(mut self, capabilities: Value) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// The 2026-07-28 way: no handshake and no session.
    pub fn modern(mut self) -> Self {
        self.version = Some("2026-07-28");
        self
    }

    pub fn builder(&self, method: Method) -> http::request::Builder {
        let mut request = self
            .web
            .with_token(method, "/mcp")
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session);
        }
        if let Some(version) = self.version {
            request = request.header("mcp-protocol-version", version);
        }
        request
    }

    /// Sends a request and gives its id and the beginning of its answer.
    pub async fn post(&self, method: &str, mut params: Value) -> (u64, Answer) {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let mut request = self.builder(Method::POST);
        if self.version == Some("2026-07-28") {
            let key = |name: &str| format!("io.modelcontextprotocol/{name}");
            params["_meta"][key("protocolVersion")] = json!("2026-07-28");
            params["_meta"][key("clientInfo")] = json!({"name": PATIENT, "version": "1"});
            params["_meta"][key("clientCapabilities")] = self.capabilities.clone();
            request = request.header("mcp-method", method);
            if let Some(name) = params["name"].as_str().or(params["uri"].as_str()) {
                request = request.header("mcp-name", name);
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = request.body(Full::from(body.to_string())).expect("sound");
        (id, self.web.send(request).await)
    }

    pub async fn notify(&self, method: &str, params: Value) {
        let body = json!({"jsonrpc": "2.0", "method": method, "params": params});
        assert_eq!(self.tell(&body).await, StatusCode::ACCEPTED, "{method}");
    }

    /// Sends what has no answer of its own.
    pub async fn tell(&self, body: &Value) -> StatusCode {
        let request = self.builder(Method::POST).body(Full::from(body.to_string()));
        self.web.send(request.expect("sound")).await.status
    }

    /// Answers a request of the server.
    pub async fn reply(&self, id: &Value, result: Value) {
        let body = json!({"jsonrpc": "2.0", "id": id, "result": result});
        assert_eq!(self.tell(&body).await, StatusCode::ACCEPTED, "{body}");
    }

    /// The result of a request that must not fail.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.post(method, params).await.1.result().await
    }

    /// Calls a tool to its end.
    pub async fn tool(&self, name: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": name, "arguments": arguments})).await
    }

    /// Calls `run_in_sandbox` with progress and gives the request's id and its stream.
    pub async fn start_run(&self, arguments: Value) -> (u64, Answer) {
        let meta = json!({"progressToken": "t"});
        let params = json!({"name": "run_in_sandbox", "arguments": arguments, "_meta": meta});
        self.post("tools/call", params).await
    }

    pub async fn cancel(&self, id: u64) {
        let params = json!({"requestId": id, "reason": "a test"});
        self.notify("notifications/cancelled", params).await;
    }

    /// The stream on which the server speaks unasked, or goes on with what was said before.
    pub async fn listen(&self, last_id: Option<&str>) -> Answer {
        let mut request = self.builder(Method::GET);
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        self.web.send(request.body(Full::default()).expect("sound")).await
    }

    pub async fn delete(&self) -> StatusCode {
        let request = self.builder(Method::DELETE).body(Full::default()).expect("sound");
        self.web.send(request).await.status
    }
}
