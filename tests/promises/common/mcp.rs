//! An MCP client that sends and sees single frames, over the stdio of the real binary.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::{Finished, Product, Running, Workspace};

/// The name of a host that waits as long as it takes: on a busy machine an ordinary run outlasts the
/// others. Tests of that set the limit themselves.
const PATIENT: &str = "claude-code";

/// One connection to one server process.
pub struct Mcp {
    pub server: Running,
    ids: AtomicU64,
    /// What goes into every request's `_meta` when the protocol has no initialize.
    meta: Map<String, Value>,
}

impl Mcp {
    /// Starts the server in the workspace and says nothing yet.
    pub fn connect(product: &Product, workspace: &Workspace) -> Self {
        let mut command: Command = product.command([] as [&str; 0]);
        command.current_dir(workspace.path());
        Self::start_in(product, command)
    }

    /// Starts the server by a command of the product's, and says nothing yet.
    pub fn start_in(product: &Product, command: Command) -> Self {
        Self { server: product.start(command), ids: AtomicU64::new(1), meta: Map::new() }
    }

    /// Starts the server and shakes hands with the version that most clients speak.
    pub async fn start(product: &Product, workspace: &Workspace) -> Self {
        let mut client = Self::connect(product, workspace);
        client.initialize("2025-11-25").await;
        client
    }

    pub async fn initialize(&mut self, version: &str) -> Value {
        self.initialize_as(version, json!({})).await
    }

    /// As [`Self::initialize`], by a client that says what it can do.
    pub async fn initialize_as(&mut self, version: &str, capabilities: Value) -> Value {
        let client = json!({"name": PATIENT, "version": "1"});
        let params = json!({
            "protocolVersion": version, "capabilities": capabilities, "clientInfo": client,
        });
        let result = self.ask("initialize", params).await;
        self.notify("notifications/initialized", json!({})).await;
        result
    }

    /// The 2026-07-28 way: no handshake, every request says who asks and in which version.
    pub async fn discover(&mut self) -> Value {
        let key = |name: &str| format!("io.modelcontextprotocol/{name}");
        self.meta.insert(key("protocolVersion"), json!("2026-07-28"));
        self.meta.insert(key("clientInfo"), json!({"name": PATIENT, "version": "1"}));
        self.meta.insert(key("clientCapabilities"), json!({}));
        self.ask("server/discover", json!({})).await
    }

    /// As [`Self::discover`], by a client that knows an extension.
    pub async fn discover_with(&mut self, extension: &str) -> Value {
        self.discover_as(json!({"extensions": {extension: {}}})).await
    }

    /// As [`Self::discover`], by a client that says what it can do.
    pub async fn discover_as(&mut self, capabilities: Value) -> Value {
        self.discover().await;
        self.meta.insert("io.modelcontextprotocol/clientCapabilities".into(), capabilities);
        self.ask("server/discover", json!({})).await
    }

    /// Sends one frame as it is.
    pub async fn send(&mut self, frame: &Value) {
        self.server.feed(format!("{frame}\n").as_bytes()).await;
    }

    pub async fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
    }

    /// Sends a request and gives its id.
    pub async fn request(&mut self, method: &str, mut params: Value) -> u64 {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        for (key, value) in self.meta.clone() {
            params["_meta"][key] = value;
        }
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        id
    }

    /// The answer to request `id`: the whole frame.
    pub async fn answer(&self, id: u64) -> Value {
        let what = format!("the answer to request {id}");
        self.server
            .stdout
            .until(&what, |text, _| frames(text).find(|frame| is_answer(frame, id)))
            .await
    }

    /// The result of a request that must not fail.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params).await;
        let answer = self.answer(id).await;
        assert!(answer["error"].is_null(), "{method}: {answer:#}");
        answer["result"].clone()
    }

    /// Calls a tool to its end.
    pub async fn tool(&mut self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        let id = self.request("tools/call", params).await;
        self.result(id).await
    }

    /// Calls `run_in_sandbox` with `token` for its progress and gives the request's id.
    pub async fn start_run(&mut self, arguments: Value, token: &str) -> u64 {
        let params = json!({
            "name": "run_in_sandbox", "arguments": arguments, "_meta": {"progressToken": token},
        });
        self.request("tools/call", params).await
    }

    /// The result of a call, whether it is an error or not.
    pub async fn result(&self, id: u64) -> Value {
        let answer = self.answer(id).await;
        assert!(answer["error"].is_null(), "{answer:#}");
        answer["result"].clone()
    }

    /// Calls `run_in_sandbox` to its end.
    pub async fn run(&mut self, arguments: Value) -> Value {
        let id = self.start_run(arguments, "t").await;
        self.result(id).await
    }

    /// The next request of the server for `method`, after as many others: its id and parameters.
    pub async fn asked(&self, method: &str, after: usize) -> (Value, Value) {
        let wanted = |frame: &Value| frame["method"] == method && !frame["id"].is_null();
        let what = format!("a request for {method}");
        let frame = self
            .server
            .stdout
            .until(&what, |text, _| frames(text).filter(|frame| wanted(frame)).nth(after));
        let frame = frame.await;
        (frame["id"].clone(), frame["params"].clone())
    }

    /// Answers a request of the server.
    pub async fn reply(&mut self, id: &Value, result: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
    }

    pub async fn cancel(&mut self, id: u64) {
        self.notify("notifications/cancelled", json!({"requestId": id, "reason": "a test"})).await;
    }

    pub async fn ping(&mut self) {
        self.ask("ping", json!({})).await;
    }

    /// All frames so far; every line of stdout must be one.
    pub fn frames(&self) -> Vec<Value> {
        frames(&self.server.stdout.text()).collect()
    }

    /// Progress notifications for `token` so far.
    pub fn progress(&self, token: &str) -> Vec<Value> {
        progress(self.frames().into_iter(), token)
    }

    /// Waits for a progress message that holds `words`.
    pub async fn progress_says(&self, token: &str, words: &str) -> Value {
        let holds =
            |params: &Value| params["message"].as_str().is_some_and(|text| text.contains(words));
        let what = format!("progress that says `{words}`");
        self.server
            .stdout
            .until(&what, |text, _| progress(frames(text), token).into_iter().find(holds))
            .await
    }

    /// Closes the server's input and waits for its end.
    pub async fn close(mut self) -> Finished {
        self.server.close_stdin();
        self.server.wait().await
    }
}

/// Complete lines as frames; whatever is not JSON-RPC fails the test.
fn frames(text: &str) -> impl Iterator<Item = Value> {
    let complete = text.rfind('\n').map_or("", |end| &text[..=end]);
    complete.lines().map(|line| {
        let frame: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("stdout holds what is not a frame ({error}): {line:?}"));
        assert_eq!(frame["jsonrpc"], "2.0", "not a JSON-RPC frame: {line}");
        frame
    })
}

fn is_answer(frame: &Value, id: u64) -> bool {
    frame["id"] == id && frame["method"].is_null()
}

fn progress(frames: impl Iterator<Item = Value>, token: &str) -> Vec<Value> {
    frames
        .filter(|frame| frame["method"] == "notifications/progress")
        .map(|frame| frame["params"].clone())
        .filter(|params| params["progressToken"] == token)
        .collect()
}
