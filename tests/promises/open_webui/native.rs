//! The HTTP server as a native MCP tool server: Open WebUI's own client, and the Python SDK's.

use super::*;

const NOTE: &str = "echo hello > note.txt";

fn client(python: &Python, web: &Web, token: &str) -> std::process::Command {
    let mut command = python.script("native.py");
    command.args([&web.url(), token, r#"{"task": "a note"}"#]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_client_gets_the_tools_and_a_whole_result() {
    let Some(python) = Python::open_webui() else { return };
    let house = House::new([("note", Script::bash(NOTE).then_say("Written."))]).await;
    let web = Web::start(&house.product, &house.workspace).await;

    let told = house.lines(client(&python, &web, &web.token)).await.remove(0);
    let specs = told["specs"].as_array().expect("specs");
    let named = |name: &str| specs.iter().find(|spec| spec["name"] == name);
    let run = named("run_in_sandbox").unwrap_or_else(|| panic!("{told:#}"));
    assert!(run["description"].as_str().is_some_and(|text| text.len() > 50), "{run:#}");
    assert_eq!(run["parameters"]["required"], json!(["task"]), "{run:#}");
    assert!(named("get_run").is_some() && named("apply_changes").is_some(), "{told:#}");
    assert!(told["instructions"].is_string(), "{told:#}");
    // One text, which its middleware reads as JSON for the model and for the person who opens it.
    let content = told["result"].as_array().expect("content");
    assert_eq!(content.len(), 1, "the structured result is not shown twice: {content:#?}");
    let shown: Value =
        serde_json::from_str(content[0]["text"].as_str().expect("text")).expect("JSON");
    assert_eq!(shown["status"], "completed", "{shown:#}");
    assert_eq!(shown["answer"], "Written.");
    assert_eq!(house.workspace.read("note.txt"), "hello\n");

    let refused = house.lines(client(&python, &web, "not the token")).await.remove(0);
    let error = refused["error"].as_str().expect("an error");
    assert!(error.contains("401"), "a person is told why: {error}");
    web.server.signal(Signal::TERM);
    let url = web.url();
    web.server.wait_within(SOON).await.assert_code(0);
    let mut command = python.script("native.py");
    command.args([&url, "any", "{}"]);
    let gone = house.lines(command).await.remove(0);
    assert!(gone["error"].as_str().is_some_and(|error| error.contains("connect")), "{gone:#}");
    house.close(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_own_client_is_told_of_a_failed_run_and_ends_one_with_its_chat() {
    let Some(python) = Python::open_webui() else { return };
    let house = House::new([
        ("note", Script::new(Reply::error(400, "no such thing"))),
        ("hang", Script::bash(HANG)),
    ])
    .await;
    let web = Web::start(&house.product, &house.workspace).await;

    let failed = house.lines(client(&python, &web, &web.token)).await.remove(0);
    let error = failed["error"].as_str().expect("an error");
    assert!(error.contains("model_error") && error.contains("no such thing"), "{error}");

    let mut command = python.script("native.py");
    command.args([&web.url(), &web.token, r#"{"task": "hang"}"#]);
    let mut running = house.start(command);
    house.product.container_of(&web.server).await;
    running.feed(b"stop\n").await;
    let stopped = running.wait().await;
    stopped.assert_code(0);
    assert!(stopped.stdout.contains(r#""stopped": true"#), "{stopped:#?}");
    house.container_goes(web.server.pid).await;
    eventually_cancelled(&house.product).await;
    house.close(Some(web)).await;
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
async fn sdk(python: Option<Python>, mode: &str, version: &str, resumes: bool) {
    let Some(python) = python else { return };
    let slow = || Script::bash("sleep 3; echo hello > note.txt").then_say("Written.");
    for what in ["whole", "cut", "cancel"] {
        let script = if what == "cancel" { Script::bash(HANG) } else { slow() };
        let house = House::new([("note", script)]).await;
        let web = Web::start(&house.product, &house.workspace).await;
        let mut command = python.script("sdk.py");
        command.args([&web.url(), &web.token, what, mode]);
        if what == "cut" && !resumes {
            house.close(Some(web)).await;
            continue;
        }
        let mut running = house.start(command);
        running.close_stdin();
        let ended = running.wait().await;
        ended.assert_code(0);
        let last = ended.stdout.lines().last().expect("a line");
        let told: Value = serde_json::from_str(last).expect("JSON");
        assert_eq!(told["version"], version, "{told:#}");
        let heard = |word: &str| {
            let lines = told["progress"].as_array().expect("progress");
            lines.iter().any(|line| line.as_str().is_some_and(|line| line.contains(word)))
        };
        assert!(heard("started run") && heard("bash"), "{told:#}");
        if what == "cancel" {
            assert_eq!(told["stopped"], true, "{told:#}");
            house.container_goes(web.server.pid).await;
            eventually_cancelled(&house.product).await;
        } else {
            assert_eq!(told["result"]["status"], "completed", "{told:#}");
            assert_eq!(told["result"]["answer"], "Written.", "{told:#}");
            assert_eq!(house.workspace.read("note.txt"), "hello\n");
        }
        house.close(Some(web)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_first_kind() {
    sdk(Python::mcpo(), "", "2025-11-25", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_with_initialize() {
    sdk(Python::open_webui(), "legacy", "2025-11-25", true).await;
}

/// There a connection that breaks has ended its call.
#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_by_discovery() {
    sdk(Python::open_webui(), "auto", "2026-07-28", false).await;
}
