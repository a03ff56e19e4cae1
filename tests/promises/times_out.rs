//! A run that takes longer than it may is ended, keeps what it had, and says so.

use std::time::Duration;

use crate::common::{Mcp, Model, Part, Product, Reply, Script, Workspace};
use serde_json::json;

/// Long enough for a busy machine to get to the thing that hangs.
const TIMEOUT: &str = "20";

/// Far above that timeout, far below what the hanging thing would take.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_hangs() {
    let model = Model::start(Script::bash("echo half > done.txt; sleep 600")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "--timeout", TIMEOUT, "hang"]).await;

    let report = run.assert_status("timed_out");
    run.assert_code(124);
    assert!(run.took < SOON, "{:?}", run.took);
    assert!(run.took >= Duration::from_secs(20), "it had its time: {:?}", run.took);
    // Half of a work waits for a decision.
    assert!(!workspace.has("done.txt"));
    product.call(["apply", "last"]).await.assert_code(0);
    assert_eq!(workspace.read("done.txt"), "half\n");
    assert_eq!(report["changes"]["files"], json!([{"path": "done.txt", "change": "added"}]));
    let message = report["error"]["message"].as_str().expect("a message");
    assert!(message.contains(TIMEOUT), "it names the bound: {message}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_ignores_signals_and_fills_the_processor() {
    let stubborn = "touch begun; trap '' TERM INT HUP; (trap '' TERM; while :; do :; done) & while :; do :; done";
    let model = Model::start(Script::bash(stubborn)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "--timeout", TIMEOUT, "hang"]).await;

    run.assert_status("timed_out");
    run.assert_code(124);
    assert!(run.took < SOON, "{:?}", run.took);
    product.call(["apply", "last"]).await.assert_code(0);
    assert!(workspace.has("begun"), "it came to that");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_talks_without_end() {
    let endless = std::iter::repeat_with(|| {
        [Part::Text("and ".into()), Part::Pause(Duration::from_millis(100))]
    });
    let model = Model::start(Script::new(Reply::parts(endless.take(6000).flatten()))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let mut client = Mcp::start(&product, &workspace).await;
    let result = client.run(json!({"task": "talk", "timeout": 20})).await;

    assert_eq!(result["isError"], true, "{result:#}");
    assert_eq!(result["structuredContent"]["status"], "timed_out");
    assert_eq!(model.steps().len(), 1, "it came to that");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_out_of_range_is_refused_with_the_range() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await.config("[limits]\nmax_timeout = 600\n");
    let workspace = Workspace::new();
    for wrong in ["0", "601"] {
        let run = product.run(&workspace, ["--timeout", wrong, "anything"]).await;
        run.assert_code(2);
        assert!(run.stderr.contains("timeout") && run.stderr.contains("600"), "{}", run.stderr);
    }
    assert_eq!(model.steps().len(), 0);
    product.check_nothing_left().await;
}
