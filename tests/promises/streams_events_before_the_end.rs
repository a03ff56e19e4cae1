//! What happens is told while it happens, to every face. Nothing here looks at a clock: a tool
//! waits for a file, or the model for a gate, and neither comes before the event was seen.

use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Script, Stream, Workspace};
use serde_json::{Value, json};

/// A command that ends only when the test has put `go` into the workspace.
const WAIT_FOR_GO: &str = "echo under way; touch on; until [ -e go ]; do sleep 0.05; done";

/// Waits for an event of `kind` for which `fits` holds.
async fn event(stream: &Stream, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let find = |text: &str, _| {
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = complete.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.map(|line| line["event"].clone()).find(|event| event["type"] == kind && fits(event))
    };
    stream.until(&format!("an event of type {kind}"), find).await
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_written_as_json_lines_while_the_agent_works() {
    let gate = Gate::default();
    let script =
        Script::bash(WAIT_FOR_GO).then(Answer::new([Part::Text("The end.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--events", "wait for me"]);

    event(&run.stdout, "phase", |event| event["phase"] == "working").await;
    let started = event(&run.stdout, "tool_started", |event| event["name"] == "bash").await;
    assert!(
        started["title"].as_str().is_some_and(|title| title.contains("until [ -e go ]")),
        "{started}"
    );
    let finished = |text: String| text.contains("tool_finished");
    assert!(!finished(run.stdout.text()), "the tool waits for us");

    product.put_beside("on", "go").await;
    let ended = event(&run.stdout, "tool_finished", |event| event["name"] == "bash").await;
    assert_eq!((&ended["ok"], &ended["exit"]), (&json!(true), &json!(0)), "{ended}");
    assert!(!run.stdout.text().contains("\"report\""), "the model waits for us");

    gate.open();
    let run = run.wait().await;
    run.assert_code(0);
    run.assert_status("completed");
    let events = run.events();
    let numbers: Vec<u64> =
        events.iter().map(|event| event["seq"].as_u64().expect("seq")).collect();
    let expected: Vec<u64> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, expected, "numbered without a gap");
    let times: Vec<u64> =
        events.iter().map(|event| event["at_ms"].as_u64().expect("at_ms")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let phases: Vec<&str> =
        events.iter().filter_map(|event| event["event"]["phase"].as_str()).collect();
    // Changes are collected when the container is gone and nothing can change any more.
    assert_eq!(phases, ["preparing", "starting", "working", "cleaning", "collecting"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_names_each_tool_and_stdout_waits_for_the_answer() {
    let script = Script::bash("echo the first of two").then_bash(WAIT_FOR_GO).then_say("The end.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["wait for me"]);

    run.stderr.says("bash: echo the first of two").await;
    assert_eq!(run.stdout.text(), "", "the answer is all that stdout gets");

    product.put_beside("on", "go").await;
    let run = run.wait().await;
    run.assert_code(0);
    assert_eq!(run.stdout, "The end.\n");
    let lines = run.stderr.lines().filter(|line| line.contains("bash: ")).count();
    assert_eq!(lines, 2, "one line per step: {}", run.stderr);
    assert!(
        !run.stderr.contains('\u{1b}'),
        "no escapes where there is no terminal: {:?}",
        run.stderr
    );
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_sees_progress_while_the_tool_runs() {
    let model = Model::start(Script::bash(WAIT_FOR_GO).then_say("The end.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let id = client.start_run(json!({"task": "wait for me"}), "progress-1").await;

    client.progress_says("progress-1", "bash: ").await;

    product.put_beside("on", "go").await;
    let result = client.result(id).await;
    assert_eq!(result["structuredContent"]["status"], "completed", "{result:#}");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_models_words_pass_the_relay_one_by_one() {
    // From inside the sandbox, as the agent would: the second half is held back until the first
    // has come out of the relay and into the workspace.
    let ask = r#"
        url=$(printf %s "$OPENCODE_CONFIG_CONTENT" | jq -r '.provider[].options.baseURL' | head -n1)
        curl -sN "$url/chat/completions" -H 'content-type: application/json' -d '{"model":
            "scripted-model", "stream": true, "tools": [{"type": "function", "function": {"name": "bash"}}],
            "messages": [{"role": "user", "content": "tell me slowly"}]}' > heard.txt
        echo heard all
    "#;
    let gate = Gate::default();
    let slowly = Answer::new([
        Part::Text("first half".into()),
        Part::Gate(gate.clone()),
        Part::Text("second half".into()),
    ]);
    let model = Model::routed([
        ("tell me slowly", Script::new(slowly)),
        ("", Script::bash(ask).then_say("The end.")),
    ])
    .await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "listen"]);

    let file = product.made("heard.txt").await;
    let heard = || std::fs::read_to_string(&file).unwrap_or_default();
    crate::common::eventually("the first half", crate::common::PATIENCE, || {
        heard().contains("first half").then_some(())
    })
    .await;
    assert!(!heard().contains("second half"));

    gate.open();
    run.wait().await.assert_status("completed");
    let heard = || workspace.read("heard.txt");
    assert!(heard().contains("second half") && heard().contains("[DONE]"), "{}", heard());
    product.check_nothing_left().await;
}
