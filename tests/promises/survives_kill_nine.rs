//! An owner that dies without a word takes its container along, and what could not go by itself
//! is reaped at the next start. Another live owner's is never touched.

use std::time::Duration;

use crate::common::{Gate, Mcp, Model, Product, Script, Workspace, engine, eventually, leftovers};
use rustix::process::Signal;
use serde_json::json;

/// "Within seconds", with room for a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

async fn containers_go(pid: u32) {
    eventually("the container to end by itself", SECONDS, || {
        leftovers::owned("container", pid).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_container_ends_by_itself_when_the_server_is_killed() {
    let model = Model::start(Script::bash("trap '' TERM HUP INT; sleep 600")).await;
    let product = Product::alone(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    client.start_run(json!({"task": "hang"}), "t").await;
    client.progress_says("t", "bash").await;
    let container = product.container_of(&client.server).await;
    let server = client.server.pid;

    client.server.signal(Signal::KILL);
    assert_eq!(client.server.wait().await.signal, Some(9));

    // Nobody else is there: no other process of ours runs.
    eventually("the container to stop", SECONDS, || {
        let state = engine::try_docker(["inspect", "-f", "{{.State.Running}}", &container]);
        state.map_or(Some(()), |running| (running.trim() == "false").then_some(()))
    })
    .await;

    // The next start, of anything that starts sandboxes, reaps the rest.
    let other = Model::start(Script::say("Fine.")).await;
    let run = product.run(&workspace, ["--json", "--model-url", &other.url(), "next"]).await;
    run.assert_status("completed");
    containers_go(server).await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_notice_is_reaped_at_the_next_start() {
    let model = Model::start(Script::bash("sleep 600")).await;
    let product = Product::alone(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--events", "hang"]);
    run.stdout.says("tool_started").await;
    let container = product.container_of(&run).await;
    let owner = run.pid;
    // Frozen, its PID 1 sees nothing.
    engine::docker(["pause", &container]);
    run.signal(Signal::KILL);
    run.wait().await;
    assert_eq!(leftovers::owned("container", owner), std::slice::from_ref(&container));

    let other = Model::start(Script::say("Fine.")).await;
    let next = product.run(&workspace, ["--json", "--model-url", &other.url(), "next"]).await;

    next.assert_status("completed");
    assert_eq!(leftovers::owned("container", owner), [] as [&str; 0]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_reaps_at_its_start_too() {
    let model = Model::start(Script::bash("sleep 600")).await;
    let product = Product::alone(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--events", "hang"]);
    run.stdout.says("tool_started").await;
    let container = product.container_of(&run).await;
    let owner = run.pid;
    engine::docker(["pause", &container]);
    run.signal(Signal::KILL);
    run.wait().await;

    let client = Mcp::start(&product, &workspace).await;
    containers_go(owner).await;
    eventually("the dead owner's sockets to go", SECONDS, || {
        (!product.leftovers().now().iter().any(|left| left.contains("model.sock"))).then_some(())
    })
    .await;

    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_owners_container_is_not_touched() {
    let gate = Gate::default();
    let slow = Script::bash("true").then(
        crate::common::Answer::new([crate::common::Part::Text("I lived.".into())]).behind(&gate),
    );
    let model = Model::routed([("live long", slow), ("", Script::say("Fine."))]).await;
    let product = Product::alone(&model).await.config("[limits]\nconcurrency = 2\n");
    let (mine, other) = (Workspace::new(), Workspace::new());
    let first = product.start_run(&mine, ["--json", "live long"]);
    model.step(2).await;
    let container = product.container_of(&first).await;

    // Everything that reaps, in the same house and in another.
    product.run(&other, ["--json", "next"]).await.assert_status("completed");
    let client = Mcp::start(&product, &other).await;
    client.close().await.assert_code(0);
    let neighbour = Product::without_engine().env("SANDBOX_MCP_MODEL_URL", &model.url());
    neighbour.run(&other, ["--json", "next"]).await.assert_status("completed");
    assert_eq!(product.container_of(&first).await, container);

    gate.open();
    assert_eq!(first.wait().await.assert_status("completed")["answer"], "I lived.");
    neighbour.check_nothing_left().await;
    product.check_nothing_left().await;
}
