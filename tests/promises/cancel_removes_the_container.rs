//! Whoever takes a run back, and however: its container is gone before the process is, in seconds.

use std::time::Duration;

use crate::common::{
    Gate, Mcp, Model, Product, Reply, Running, Script, Workspace, engine, eventually, leftovers,
};
use rustix::process::Signal;
use serde_json::json;

/// What the product promises from the wish to the end.
const PROMISED: Duration = Duration::from_secs(10);

const HANG: &str = "echo under way; sleep 600";

/// A run in the middle of a long command, from a shell.
async fn hanging_run(product: &Product, workspace: &Workspace) -> Running {
    let run = product.start_run(workspace, ["--events", "hang"]);
    run.stdout.says("tool_started").await;
    product.container_of(&run).await;
    run
}

/// A server with a run in the middle of a long command, and that request's id.
async fn hanging_call(product: &Product, workspace: &Workspace) -> (Mcp, u64) {
    let mut client = Mcp::start(product, workspace).await;
    let id = client.start_run(json!({"task": "hang"}), "t").await;
    client.progress_says("t", "bash").await;
    product.container_of(&client.server).await;
    (client, id)
}

async fn signalled_run(signal: Signal) {
    let model = Model::start(Script::bash(HANG)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = hanging_run(&product, &workspace).await;

    run.signal(signal);
    let run = run.wait_within(PROMISED).await;

    product.check_nothing_left().await;
    run.assert_code(130);
    let report = run.assert_status("cancelled");
    assert_eq!(report["usage"]["requests"], 1, "what had been done is told: {report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_on_run() {
    signalled_run(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_on_run() {
    signalled_run(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ctrl_c_says_what_it_still_waits_for() {
    let product = Product::new().await;
    let workspace = Workspace::new();
    // The removal may be over before the second one arrives; then it is tried again.
    for _ in 0..5 {
        let model = Model::start(Script::bash(HANG)).await;
        let run = product.start_run(&workspace, ["--model-url", &model.url(), "hang"]);
        product.container_of(&run).await;

        run.signal(Signal::INT);
        run.stderr.says("cancelling").await;
        let in_time = run.try_signal(Signal::INT);
        let run = run.wait_within(PROMISED).await;

        product.check_nothing_left().await;
        run.assert_code(130);
        if in_time && run.stderr.contains("still ") {
            return;
        }
    }
    panic!("five times nothing was said after the second Ctrl-C");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_notification() {
    let model = Model::start(Script::bash(HANG).then_say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let (mut client, id) = hanging_call(&product, &workspace).await;
    let server = client.server.pid;

    client.cancel(id).await;
    eventually("the container to go", PROMISED, || {
        leftovers::owned("container", server).is_empty().then_some(())
    })
    .await;

    client.ping().await;
    let end = client.close().await;
    end.assert_code(0);
    assert!(
        !end.stdout.contains(&format!("\"id\":{id},\"result\"")),
        "a cancelled request has no result"
    );
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_goes_on_after_a_cancelled_call() {
    let model =
        Model::routed([("hang", Script::bash(HANG)), ("", Script::say("Still here."))]).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let (mut client, id) = hanging_call(&product, &workspace).await;

    client.cancel(id).await;
    let result = client.run(json!({"task": "are you there?"})).await;

    assert_eq!(result["structuredContent"]["answer"], "Still here.", "{result:#}");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_input() {
    let model = Model::start(Script::bash(HANG)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let (mut client, _) = hanging_call(&product, &workspace).await;

    client.server.close_stdin();
    let end = client.server.wait_within(PROMISED + Duration::from_secs(5)).await;

    product.check_nothing_left().await;
    end.assert_code(0);
    let why = "the host that asked for it ended its session or went away";
    assert_eq!(why_cancelled(&product), why);
}

/// What the record of the only run says of its end.
fn why_cancelled(product: &Product) -> String {
    let runs = std::fs::read_dir(product.folder("state").join("runs")).expect("records");
    let runs: Vec<_> = runs.flatten().map(|run| run.path()).collect();
    let [run] = runs.as_slice() else { panic!("one run: {runs:?}") };
    let report = std::fs::read(run.join("run.json")).expect("a report");
    let report: serde_json::Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["status"], "cancelled", "{report:#}");
    report["error"]["message"].as_str().expect("a message").to_owned()
}

async fn signalled_server(signal: Signal) {
    let model = Model::start(Script::bash(HANG)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let (mut client, _) = hanging_call(&product, &workspace).await;
    // The client keeps the server's input open: the signal alone must do.
    let input = client.server.stdin.take();

    client.server.signal(signal);
    let end = client.server.wait_within(PROMISED).await;

    drop(input);
    product.check_nothing_left().await;
    assert_eq!(end.signal, None, "it left by itself: {end:#?}");
    assert_eq!(why_cancelled(&product), "the program that asked for it was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_on_the_server() {
    signalled_server(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_on_the_server() {
    signalled_server(Signal::INT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_hardly_begun() {
    // The wish comes at every stage of the way in; each must undo what had been done by then.
    let gate = Gate::default();
    let model = Model::start(Script::new(crate::common::Answer::new([]).behind(&gate))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    for delay in [0, 20, 60, 120, 200, 300, 450, 700, 1000] {
        let mut client = Mcp::start(&product, &workspace).await;
        let id = client.start_run(json!({"task": "hardly begun"}), "t").await;
        tokio::time::sleep(Duration::from_millis(delay)).await;
        client.cancel(id).await;
        client.server.close_stdin();
        client.server.wait_within(PROMISED + Duration::from_secs(5)).await.assert_code(0);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_server_is_let_go_too() {
    // A generation that nobody waits for would keep the graphics card busy.
    let model = Model::start(Script::new(Reply::Silence)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "ask and be cancelled"]);
    model.step(1).await;

    run.signal(Signal::INT);
    run.wait_within(PROMISED).await.assert_status("cancelled");

    model.left_by_a_client().await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn someone_else_removes_the_container() {
    // Not a cancellation of ours, but the same promise: a typed end, promptly, and nothing left.
    let model = Model::start(Script::bash(HANG)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = hanging_run(&product, &workspace).await;

    engine::docker(["rm", "-f", &product.container_of(&run).await]);
    let run = run.wait_within(PROMISED).await;

    run.assert_code(1);
    run.assert_status("sandbox_error");
    product.check_nothing_left().await;
}
