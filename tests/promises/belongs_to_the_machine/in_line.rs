//! Runs of all processes wait in one line for a place.

use std::time::Duration;

use serde_json::json;

use super::{SECONDS, assert_running, gated, get_run};
use crate::common::{Gate, Mcp, Model, Product, Script, Workspace, leftovers};

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
