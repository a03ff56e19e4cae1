//! A session over a pipe, frame by frame, as far as it goes without an engine.

use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{Config, LoadOptions};

struct Host {
    to: WriteHalf<DuplexStream>,
    from: BufReader<ReadHalf<DuplexStream>>,
    stop: CancellationToken,
    session: JoinHandle<Result<(), Error>>,
}

impl Host {
    fn connect() -> Self {
        let runner = Runner::new(Config::default(), LoadOptions::default())
            .expect("a runner needs no engine");
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(theirs);
        let stop = CancellationToken::new();
        let session = tokio::spawn(session(runner, reader, writer, stop.clone()));
        let (from, to) = tokio::io::split(ours);
        Self { to, from: BufReader::new(from), stop, session }
    }

    async fn greeted(version: &str) -> Self {
        let mut host = Self::connect();
        let params = json!({
            "protocolVersion": version, "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        let answer = host.ask(0, "initialize", &params).await;
        assert_eq!(answer["result"]["protocolVersion"], version);
        assert_eq!(answer["result"]["serverInfo"]["name"], "sandbox-mcp");
        host.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        host
    }

    async fn write(&mut self, message: &Value) {
        self.line(&message.to_string()).await;
    }

    async fn line(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).await.expect("an open pipe");
    }

    async fn read(&mut self) -> Value {
        let mut line = String::new();
        let read = timeout(Duration::from_secs(5), self.from.read_line(&mut line));
        read.await.expect("an answer in time").expect("an open pipe");
        serde_json::from_str(&line).expect("JSON and nothing else")
    }

    async fn ask(&mut self, id: u32, method: &str, params: &Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.write(&request).await;
        let answer = self.read().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    async fn call(&mut self, id: u32, arguments: &Value) -> Value {
        let params = json!({ "name": "run_in_sandbox", "arguments": arguments });
        self.ask(id, "tools/call", &params).await
    }

    async fn leave(mut self) -> Result<(), Error> {
        self.to.shutdown().await.expect("an open pipe");
        self.ended().await
    }

    async fn ended(self) -> Result<(), Error> {
        timeout(Duration::from_secs(5), self.session).await.expect("an end").expect("no panic")
    }
}

#[tokio::test]
async fn every_protocol_version_is_spoken() {
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut host = Host::greeted(version).await;
        let answer = host.ask(1, "tools/list", &json!({})).await;
        assert_eq!(answer["result"]["tools"][0]["name"], "run_in_sandbox", "{version}");
        assert_eq!(host.ask(2, "ping", &json!({})).await["result"], json!({}));
        assert!(host.leave().await.is_ok());
    }
}

#[tokio::test]
async fn the_stateless_protocol_is_spoken() {
    let mut host = Host::connect();
    let meta = json!({ "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    } });
    let answer = host.ask(1, "server/discover", &meta).await;
    assert!(answer["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{answer}");
    let answer = host.ask(2, "tools/list", &meta).await;
    assert_eq!(answer["result"]["tools"][0]["name"], "run_in_sandbox");
    assert!(host.leave().await.is_ok());
}

#[tokio::test]
async fn bad_arguments_are_results_that_a_model_can_read() {
    let mut host = Host::greeted("2025-11-25").await;
    for (arguments, part) in [
        (json!({ "tusk": "x" }), "did you mean `task`?"),
        (json!({ "task": 1 }), "`task` must be a string, not 1"),
        (json!({ "task": "" }), "`task` is empty"),
        (json!({ "task": "x", "timeout": 1_000_000 }), "`timeout` is 1000000 seconds"),
        (json!("task: x"), "`arguments` must be a JSON object"),
        (json!("{\"tusk\": \"x\"}"), "did you mean `task`?"),
    ] {
        let answer = host.call(1, &arguments).await;
        assert_eq!(answer["result"]["isError"], true, "{answer}");
        let text = answer["result"]["content"][0]["text"].as_str().expect("text");
        assert!(text.contains(part), "{text}");
    }
    let answer = host.ask(2, "tools/call", &json!({ "name": "other", "arguments": {} })).await;
    assert_eq!(
        answer["error"]["message"],
        "there is no tool `other`; there are `run_in_sandbox`, `run_many`, `get_run`, `list_runs`, \
         `cancel_run`, `read_project_file`, `list_project_files`, `search_project`, \
         `project_status`, `apply_changes`, `discard_changes`, `undo_changes`"
    );
    assert!(host.leave().await.is_ok());
}

#[tokio::test]
async fn odd_lines_do_not_end_the_session() {
    let mut host = Host::greeted("2025-03-26").await;
    for odd in ["not JSON", "", "\u{feff}", "{\"a\":", r#"{"jsonrpc":"2.0","method":"$/x"}"#] {
        host.line(odd).await;
    }
    host.line("42").await;
    assert_eq!(host.read().await["error"]["code"], -32600);
    let answer = host.ask(1, "tools/call", &json!([])).await;
    assert_eq!(answer["error"]["code"], -32602, "answered under its id: {answer}");
    host.line(
        r#"[{"jsonrpc":"2.0","id":2,"method":"ping"},{"jsonrpc":"2.0","id":3,"method":"ping"}]"#,
    )
    .await;
    let ids = [host.read().await["id"].clone(), host.read().await["id"].clone()];
    assert!(ids.contains(&json!(2)) && ids.contains(&json!(3)));
    assert!(host.leave().await.is_ok());
}

#[tokio::test]
async fn a_line_without_end_is_refused_and_forgotten() {
    let mut host = Host::greeted("2025-11-25").await;
    let longest = longest_line(Config::default().limits.task.bytes());
    let piece = "x".repeat(1 << 20);
    for _ in 0..=longest >> 20 {
        host.to.write_all(piece.as_bytes()).await.expect("an open pipe");
    }
    host.line("").await;
    let answer = host.read().await;
    assert!(answer["error"]["message"].to_string().contains("at most"), "{answer}");
    host.ask(1, "ping", &json!({})).await;
    assert!(host.leave().await.is_ok());
}

#[tokio::test]
async fn leaving_without_a_word_is_a_good_end() {
    assert!(Host::connect().leave().await.is_ok());
    let host = Host::connect();
    host.stop.cancel();
    assert!(host.ended().await.is_ok());
}

#[tokio::test]
async fn what_was_asked_before_the_end_is_answered() {
    let mut host = Host::greeted("2025-11-25").await;
    host.write(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).await;
    host.line(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).await;
    host.to.shutdown().await.expect("an open pipe");
    let ids = [host.read().await["id"].clone(), host.read().await["id"].clone()];
    assert!(ids.contains(&json!(1)) && ids.contains(&json!(2)));
    assert!(host.ended().await.is_ok());
}

#[tokio::test]
async fn a_host_that_does_not_read_cannot_hold_us() {
    let mut host = Host::greeted("2025-11-25").await;
    for id in 0..100 {
        host.write(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" })).await;
    }
    let start = Instant::now();
    host.stop.cancel();
    let Host { session, from, .. } = host;
    session.await.expect("no panic").expect("a good end");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    drop(from);
}
