//! Runs of all processes wait in one line for a place, and in one for each workspace.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{SECONDS, assert_running, gated, get_run};
use crate::common::{Gate, Mcp, Model, Product, Script, Workspace, eventually, leftovers};

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_the_places_of_one_machine() {
    let gate = Gate::default();
    let model = Model::routed([("say alpha", gated(&gate)), ("", Script::say("I am next."))]).await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 1\n");
    let (a, b) = (Workspace::new(), Workspace::new());
    let mut first = Mcp::start(&product, &a).await;
    let mut second = Mcp::start(&product, &b).await;
    let one = first.start_run(json!({"task": "say alpha"}), "a").await;
    model.step(2).await;
    let background = second.run(json!({"task": "say beta", "background": true})).await;
    let id = assert_running(&background);
    eventually_queued(&mut second, &id).await;
    assert_eq!(leftovers::owned("container", second.server.pid), [] as [&str; 0]);

    gate.open();
    let one = first.result(one).await;
    assert_eq!(one["structuredContent"]["status"], "completed", "{one:#}");
    let end = get_run(&mut second, &id, 45).await;
    assert_eq!(end["structuredContent"]["answer"], "I am next.", "{end:#}");
    assert!(end["structuredContent"]["timing"]["queued_ms"].as_u64() > Some(0), "{end:#}");
    first.close().await.assert_code(0);
    second.close().await.assert_code(0);
    product.leftovers().check_within(SECONDS).await;
}

async fn eventually_queued(client: &mut Mcp, id: &str) {
    for _ in 0..100 {
        let stands = get_run(client, id, 0).await;
        let content = &stands["structuredContent"];
        if content["phase"] == "queued" {
            assert_eq!(content["runs_ahead"], 0, "{stands:#}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("run {id} never waits");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_writes_to_a_workspace_goes_in_the_order_of_coming() {
    let gate = Gate::default();
    let model = Model::routed([
        ("say alpha", gated(&gate)),
        ("say beta", Script::bash("echo beta >> order.txt").then_say("beta")),
        ("say gamma", Script::bash("echo gamma >> order.txt").then_say("gamma")),
        ("", Script::bash("echo inner >> order.txt").then_say("inner")),
    ])
    .await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 4\n");
    let workspace = Workspace::new();
    workspace.write("inner/kept.txt", "kept");
    let first = product.start_run(&workspace, ["--events", "say alpha"]);
    model.step(2).await;
    let waits = |ahead: usize| format!(r#"{{"type":"queued","ahead":{ahead},"workspace":true}}"#);
    let second = product.start_run(&workspace, ["--events", "say beta"]);
    second.stdout.says(&waits(0)).await;
    let inner = workspace.at("inner").display().to_string();
    let third = product.start_run(&workspace, ["--events", "--workspace", &inner, "say inner"]);
    third.stdout.says(&waits(1)).await;
    let fourth = product.start_run(&workspace, ["--events", "say gamma"]);
    fourth.stdout.says(&waits(2)).await;
    // Who dies in the line holds up nobody.
    second.signal(Signal::KILL);
    second.wait().await;
    fourth.stdout.says(&waits(1)).await;

    gate.open();
    first.wait().await.assert_status("completed");
    third.wait().await.assert_status("completed");
    fourth.wait().await.assert_status("completed");
    assert_eq!(workspace.read("inner/order.txt"), "inner\n");
    assert_eq!(workspace.read("order.txt"), "gamma\n");
    eventually("the line to be empty", SECONDS, || {
        let lines = product.folder("run").join("sandbox-mcp/lines");
        let left = ["places", "writers"].map(|line| std::fs::read_dir(lines.join(line)));
        let names = left.into_iter().flatten().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().all(|name| name == "counter").then_some(())
    })
    .await;
    product.leftovers().check_within(SECONDS).await;
}
