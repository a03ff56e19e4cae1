//! The HTTP server as a native MCP tool server: `Open WebUI`'s own client, and the Python SDK's.

use super::*;

const NOTE: &str = "echo hello > note.txt";

/// One `Open WebUI` that knows this server.
struct Client {
    running: Running,
    seen: usize,
}

impl Client {
    fn start(python: &Python, house: &House) -> Self {
        Self { running: house.start(python.script("native.py")), seen: 0 }
    }

    async fn begin(&mut self, web: (&str, &str), task: &str, stop: bool) {
        let (url, token) = web;
        let asked = json!({ "url": url, "token": token, "task": task, "stop": stop });
        self.running.feed(format!("{asked}\n").as_bytes()).await;
    }

    /// What its middleware is given.
    async fn end(&mut self) -> Value {
        let seen = self.seen;
        let line = |text: &str, _| serde_json::from_str(text.lines().nth(seen)?).ok();
        let told = self.running.stdout.until("the end of a chat", line).await;
        self.seen += 1;
        told
    }

    async fn chat(&mut self, web: (&str, &str), task: &str) -> Value {
        self.begin(web, task, false).await;
        self.end().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_client_gets_whole_results_and_ends_a_run_with_its_chat() {
    let Some(python) = Python::open_webui() else { return };
    let house = House::new([
        ("note", Script::bash(NOTE).then_say("Written.")),
        ("fail", Script::new(Reply::error(400, "no such thing"))),
        ("hang", Script::bash(HANG)),
    ])
    .await;
    let web = Web::start(&house.product, &house.workspace).await;
    let (url, token) = (web.url(), web.token.clone());
    let known = (url.as_str(), token.as_str());
    let mut client = Client::start(&python, &house);

    let told = client.chat(known, "note").await;
    let specs = told["specs"].as_array().unwrap_or_else(|| panic!("{told:#}"));
    let named = |name: &str| specs.iter().find(|spec| spec["name"] == name);
    let run = named("run_in_sandbox").unwrap_or_else(|| panic!("{told:#}"));
    assert!(run["description"].as_str().is_some_and(|text| text.len() > 50), "{run:#}");
    assert_eq!(run["parameters"]["required"], json!(["task"]), "{run:#}");
    assert!(named("get_run").is_some() && named("apply_changes").is_some(), "{told:#}");
    assert!(told["instructions"].is_string(), "{told:#}");
    // One text, which its middleware reads as JSON for the model and for the person who opens it.
    let content = told["result"].as_array().expect("content");
    assert_eq!(content.len(), 1, "the structured result is not shown twice: {content:#?}");
    let shown = content[0]["text"].as_str().expect("text");
    let shown: Value = serde_json::from_str(shown).expect("JSON");
    assert_eq!(shown["status"], "completed", "{shown:#}");
    assert_eq!(shown["answer"], "Written.");
    assert_eq!(house.workspace.read("note.txt"), "hello\n");

    let failed = client.chat(known, "fail").await;
    let error = failed["error"].as_str().unwrap_or_else(|| panic!("{failed:#}"));
    assert!(error.contains("model_error") && error.contains("no such thing"), "{error}");

    client.begin(known, "hang", true).await;
    house.product.container_of(&web.server).await;
    client.running.feed(b"stop\n").await;
    let stopped = client.end().await;
    assert_eq!(stopped["stopped"], true, "{stopped:#}");
    house.container_goes(web.server.pid).await;
    eventually_cancelled(&house.product).await;

    let refused = client.chat((&url, "not the token"), "note").await;
    // All that it tells; in the chat it is "Failed to connect to MCP server".
    let error = refused["error"].as_str().unwrap_or_else(|| panic!("{refused:#}"));
    assert!(error.contains("Server returned an error response"), "{error}");
    web.stop().await.assert_code(0);
    let gone = client.chat(known, "note").await;
    assert!(gone["error"].as_str().is_some_and(|error| error.contains("connect")), "{gone:#}");
    client.running.wait().await.assert_code(0);
    house.close(None).await;
}

async fn eventually_cancelled(product: &Product) {
    let deadline = std::time::Instant::now() + SOON;
    loop {
        let run = last_run(product).await;
        if run["status"] == "cancelled" {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{run:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// With progress and a whole result; through a connection that is cut in the middle; withdrawn.
async fn sdk(python: Option<Python>, mode: &str, version: &str, whats: &[&str]) {
    let Some(python) = python else { return };
    let house = House::new([
        ("whole", Script::bash("echo hello > whole.txt").then_say("Written.")),
        ("cut", Script::bash("sleep 3; echo hello > cut.txt").then_say("Written.")),
        ("cancel", Script::bash(HANG)),
    ])
    .await;
    let web = Web::start(&house.product, &house.workspace).await;
    let mut command = python.script("sdk.py");
    command.args([&web.url(), &web.token, mode]).args(whats);
    let lines = house.lines(command).await;
    assert_eq!(lines.len(), whats.len(), "{lines:#?}");
    for (told, what) in lines.iter().zip(whats) {
        assert_eq!(told["version"], version, "{told:#}");
        let heard = |word: &str| {
            let lines = told["progress"].as_array().expect("progress");
            lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains(word)))
        };
        assert!(heard("started run"), "{told:#}");
        if *what == "cancel" {
            assert_eq!(told["stopped"], true, "{told:#}");
            house.container_goes(web.server.pid).await;
            eventually_cancelled(&house.product).await;
        } else {
            assert_eq!(told["result"]["status"], "completed", "{told:#}");
            assert_eq!(told["result"]["answer"], "Written.", "{told:#}");
            assert_eq!(house.workspace.read(&format!("{what}.txt")), "hello\n");
        }
    }
    house.close(Some(web)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_first_kind() {
    sdk(Python::mcpo(), "", "2025-11-25", &["whole", "cut", "cancel"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_with_initialize() {
    sdk(Python::open_webui(), "legacy", "2025-11-25", &["whole", "cut", "cancel"]).await;
}

/// There a connection that breaks has ended its call.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_by_discovery() {
    sdk(Python::open_webui(), "auto", "2026-07-28", &["whole", "cancel"]).await;
}
