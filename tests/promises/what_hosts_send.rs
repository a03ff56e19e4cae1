//! Hosts as they are: arguments as texts, halves of emojis, no introduction, unread pipes, folders in
//! their own words. What they meant is done, and none of it stops the server.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::common::{Mcp, Model, Product, Script, Workspace};

const HANG: &str = "echo under way; sleep 600";

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().expect("a text")
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_as_texts_run_a_task_and_its_text_stays_what_it_is() {
    let model = Model::start(Script::bash("true").then_say("Done\u{ad}.\u{fe0f}\u{200d}")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let arguments =
        r#"{\"task\": \"[1] cut \\ud83d\", \"timeout\": \"90\", \"mode\": \"read-only\",
        \"background\": \"False\", \"verify\": \"null\", \"session_fork\": \"\"}"#
            .replace('\n', "");
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{{"name":"run_in_sandbox","arguments":"{arguments}"}}}}"#
    );
    client.server.feed(format!("{call}\n").as_bytes()).await;
    let done = client.server.stdout.until("the answer", |text, _| {
        let mut frames = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        frames.find(|frame| frame["id"] == "a")
    });
    let done = done.await["result"]["structuredContent"].clone();
    assert_eq!(done["answer"], "Done.", "and what nobody sees is gone: {done:#}");
    assert_eq!(done["verify"], Value::Null, "{done:#}");
    let task = model.requests().iter().map(|request| request.said_by("user")).collect::<String>();
    assert!(task.contains("[1] cut \u{fffd}"), "{task}");

    let runs = client.tool("list_runs", json!({"limit": "5", "state": "null"})).await;
    assert_eq!(runs["structuredContent"]["runs"].as_array().map(Vec::len), Some(1), "{runs:#}");
    for tasks in [json!(["a", 7]), json!("[\"a\", 7]")] {
        let refused = client.tool("run_many", json!({ "tasks": tasks })).await;
        assert!(text(&refused).contains("a list of strings, but item 2 is 7"), "{refused:#}");
    }
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_may_name_its_request_by_a_text() {
    let model = Model::start(Script::bash(HANG)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let id = client.start_run(json!({"task": "hang"}), "t").await;
    client.progress_says("t", "bash").await;
    client.notify("notifications/cancelled", json!({"requestId": id.to_string()})).await;
    let mut ended = Value::Null;
    for _ in 0..50 {
        ended = client.tool("list_runs", json!({})).await["structuredContent"]["runs"][0].clone();
        if ended["status"] == "cancelled" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(ended["status"], "cancelled", "{ended:#}");
    assert!(client.frames().iter().all(|frame| frame["id"] != id), "nobody waits for an answer");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_little_of_itself_is_served() {
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let client = json!({"name": "x", "version": "1"});
    for params in [
        json!({"protocolVersion": "2025-06-18", "capabilities": {}}),
        json!({"protocolVersion": "2025-06-18", "clientInfo": client}),
        json!({"protocolVersion": "2025-06-18", "capabilities": null, "clientInfo": {"name": "x"}}),
        json!({"protocolVersion": "2025-06-18", "capabilities": [], "clientInfo": null}),
        json!({"protocolVersion": "2025-06-18", "capabilities": {"roots": null, "tasks": 1}}),
    ] {
        let mut host = Mcp::connect(&product, &workspace);
        let hello = host.ask("initialize", params.clone()).await;
        assert_eq!(hello["protocolVersion"], "2025-06-18", "{params}");
        host.notify("notifications/initialized", json!({})).await;
        let tools = host.ask("tools/list", json!(null)).await;
        assert!(tools["tools"].as_array().is_some_and(|tools| !tools.is_empty()), "{params}");
        host.close().await.assert_code(0);
    }
    product.check_nothing_left().await;
}

/// A server whose streams are in our hands as they are, and nobody follows them.
struct Bare {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Bare {
    fn start(product: &Product, workspace: &Workspace, stderr: Stdio) -> Self {
        let mut command = product.command([] as [&str; 0]);
        command.current_dir(workspace.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    async fn greet(&mut self) {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "x", "version": "1"},
        });
        self.write(&request(0, "initialize", &params)).await;
        assert!(self.read().await["result"].is_object());
    }

    async fn write(&mut self, line: &str) {
        let write = self.stdin.write_all(line.as_bytes());
        tokio::time::timeout(Duration::from_secs(30), write).await.expect("read").expect("open");
    }

    async fn read(&mut self) -> Value {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line);
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("in time").expect("open");
        serde_json::from_str(&line).expect("JSON and nothing else")
    }

    async fn end(mut self) {
        drop(self.stdin);
        let ended = tokio::time::timeout(Duration::from_secs(10), self.child.wait()).await;
        assert!(ended.expect("an end in time").expect("an end").success());
    }

    fn resident_mebibytes(&self) -> usize {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") >> 10
    }
}

fn request(id: usize, method: &str, params: &Value) -> String {
    format!("{}\n", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_or_can_read_stops_nothing() {
    for (level, closed) in [("warn", false), ("trace", false), ("trace", true)] {
        let product = Product::without_engine().env("RUST_LOG", level);
        let workspace = Workspace::new();
        let stderr = if closed {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            writer.into()
        } else {
            Stdio::piped()
        };
        let mut host = Bare::start(&product, &workspace, stderr);
        host.greet().await;
        // Each of them is worth a line of the log, and a pipe holds 64 KiB.
        let bad = format!("not JSON {}\n", "x".repeat(90)).repeat(3000);
        host.write(&bad).await;
        for id in 1..50 {
            host.write(&request(id, "ping", &json!({}))).await;
            assert_eq!(host.read().await["id"], id, "{level} {closed}");
        }
        host.end().await;
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_read_is_held_back_and_served_when_it_does() {
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let mut host = Bare::start(&product, &workspace, Stdio::null());
    host.greet().await;
    let (mut asked, mut held_back) = (0, false);
    while asked < 20_000 && !held_back {
        let line = request(asked + 1, "tools/list", &json!({}));
        let write = host.stdin.write_all(line.as_bytes());
        match tokio::time::timeout(Duration::from_secs(3), write).await {
            Ok(written) => written.expect("open"),
            // The last line is in part in the pipe; what is missing of it follows.
            Err(_) => held_back = true,
        }
        asked += 1;
    }
    assert!(held_back, "{asked} unread answers");
    let resident = host.resident_mebibytes();
    assert!(resident < 150, "{resident} MiB of {asked} unread answers");
    for _ in 1..asked {
        assert!(host.read().await["result"].is_object());
    }
    host.end().await;
    product.check_nothing_left().await;
}

/// A host that starts its servers in a folder that is no project, and tells the project.
async fn looks(product: &Product, folder: &std::path::Path, told: Option<&str>) -> (Mcp, Value) {
    let mut command = product.command([] as [&str; 0]);
    command.current_dir(folder);
    let mut client = Mcp::start_in(product, command);
    let roots = if told.is_some() { json!({"roots": {}}) } else { json!({}) };
    client.initialize_as("2025-06-18", roots).await;
    let params = json!({"name": "list_project_files", "arguments": {}});
    let id = client.request("tools/call", params).await;
    if let Some(uri) = told {
        let (question, _) = client.asked("roots/list", 0).await;
        client.reply(&question, json!({"roots": [{"uri": uri, "name": "p"}]})).await;
    }
    let listed = client.result(id).await;
    (client, listed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_us_anywhere_may_say_where_it_works() {
    let product = Product::without_engine();
    let home = product.folder("home");
    let project = home.join("my project");
    std::fs::create_dir(&project).expect("made");
    std::fs::write(project.join("seen.txt"), "x").expect("written");
    let uri = format!("file://{}", project.display().to_string().replace(' ', "%20"));
    for folder in [std::path::Path::new("/"), home.as_path()] {
        let (client, refused) = looks(&product, folder, None).await;
        assert_eq!(refused["isError"], true, "{refused:#}");
        client.close().await.assert_code(0);

        let (mut client, listed) = looks(&product, folder, Some(&uri)).await;
        assert!(listed.to_string().contains("seen.txt"), "{listed:#}");
        for named in [uri.as_str(), "~/my project", ".", project.to_str().expect("text")] {
            let listed = client.tool("list_project_files", json!({"workspace": named})).await;
            assert!(listed.to_string().contains("seen.txt"), "{named}: {listed:#}");
        }
        let outside = client.tool("list_project_files", json!({"workspace": "file:///etc"})).await;
        assert!(text(&outside).contains("a folder of the system"), "{outside:#}");
        client.close().await.assert_code(0);
    }
    // It is not asked where it has started us in a project.
    let workspace = Workspace::new();
    let mut client = Mcp::connect(&product, &workspace);
    client.initialize_as("2025-06-18", json!({"roots": {}})).await;
    let named = json!({"workspace": project});
    let refused = client.tool("list_project_files", named).await;
    assert!(text(&refused).contains("outside of the allowed folders"), "{refused:#}");
    assert!(client.frames().iter().all(|frame| frame["method"] != "roots/list"));
    client.close().await.assert_code(0);

    let product = product.env("CLAUDE_PROJECT_DIR", project.to_str().expect("text"));
    let (client, listed) = looks(&product, std::path::Path::new("/"), None).await;
    assert!(listed.to_string().contains("seen.txt"), "{listed:#}");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
