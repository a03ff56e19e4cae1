//! Runs at the same time keep to themselves; what is above the cap waits its turn and says so.

use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Script, Workspace, leftovers};
use serde_json::json;

/// Writes a word into its own workspace, then waits at the gate and answers with the word.
fn script(word: &str, gate: &Gate) -> Script {
    Script::bash(&format!("echo {word} > word.txt; hostname; ls /workspace /run/sandbox"))
        .then(Answer::new([Part::Text(format!("I wrote {word}."))]).behind(gate))
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_of_one_server_run_side_by_side_and_apart() {
    let gate = Gate::default();
    let model =
        Model::routed([("say alpha", script("alpha", &gate)), ("say beta", script("beta", &gate))])
            .await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 2\n");
    let workspace = Workspace::new();
    workspace.write("a/mine.txt", "a");
    workspace.write("b/mine.txt", "b");
    let mut client = Mcp::start(&product, &workspace).await;

    let first =
        client.start_run(json!({"task": "say alpha", "workspace": workspace.at("a")}), "a").await;
    let second =
        client.start_run(json!({"task": "say beta", "workspace": workspace.at("b")}), "b").await;
    model.step(4).await; // both have used their tool and wait at the gate
    assert_eq!(leftovers::owned("container", client.server.pid).len(), 2);
    client.ping().await;
    gate.open();
    let (first, second) = (client.result(first).await, client.result(second).await);

    for (result, word, folder) in [(&first, "alpha", "a"), (&second, "beta", "b")] {
        let content = &result["structuredContent"];
        assert_eq!(content["status"], "completed", "{result:#}");
        assert_eq!(content["answer"], format!("I wrote {word}."));
        assert_eq!(workspace.read(&format!("{folder}/word.txt")), format!("{word}\n"));
    }
    assert_ne!(first["structuredContent"]["run_id"], second["structuredContent"]["run_id"]);
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_run_side_by_side() {
    let gate = Gate::default();
    let model =
        Model::routed([("say alpha", script("alpha", &gate)), ("say beta", script("beta", &gate))])
            .await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 2\n");
    let (a, b) = (Workspace::new(), Workspace::new());

    let first = product.start_run(&a, ["--json", "say alpha"]);
    let second = product.start_run(&b, ["--json", "say beta"]);
    model.step(4).await;
    assert_ne!(product.container_of(&first).await, product.container_of(&second).await);
    gate.open();

    assert_eq!(first.wait().await.assert_status("completed")["answer"], "I wrote alpha.");
    assert_eq!(second.wait().await.assert_status("completed")["answer"], "I wrote beta.");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_above_the_cap_waits_says_so_and_comes_next() {
    let gate = Gate::default();
    let open = Gate::default();
    open.open();
    let model =
        Model::routed([("say alpha", script("alpha", &gate)), ("say beta", script("beta", &open))])
            .await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 1\n");
    let workspace = Workspace::new();
    workspace.write("a/mine.txt", "a");
    workspace.write("b/mine.txt", "b");
    let mut client = Mcp::start(&product, &workspace).await;

    let first =
        client.start_run(json!({"task": "say alpha", "workspace": workspace.at("a")}), "a").await;
    model.step(2).await;
    let second =
        client.start_run(json!({"task": "say beta", "workspace": workspace.at("b")}), "b").await;
    let waiting =
        |message: &str| ["wait", "queue", "ahead"].iter().any(|word| message.contains(word));
    client
        .server
        .stdout
        .until("progress that says that the second run waits", |_, _| {
            let messages = client.progress("b");
            let mut texts = messages.iter().filter_map(|params| params["message"].as_str());
            texts.any(waiting).then_some(())
        })
        .await;
    assert_eq!(leftovers::owned("container", client.server.pid).len(), 1, "one at a time");
    client.ping().await;

    gate.open();
    assert_eq!(client.result(first).await["structuredContent"]["status"], "completed");
    let second = client.result(second).await;
    assert_eq!(second["structuredContent"]["status"], "completed", "{second:#}");
    assert!(
        second["structuredContent"]["timing"]["queued_ms"].as_u64().is_some_and(|time| time > 0)
    );
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_can_be_cancelled_before_it_starts() {
    let gate = Gate::default();
    let model =
        Model::routed([("say alpha", script("alpha", &gate)), ("", Script::say("never asked"))])
            .await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 1\n");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;

    let first = client.start_run(json!({"task": "say alpha"}), "a").await;
    model.step(2).await;
    let second = client.start_run(json!({"task": "say beta"}), "b").await;
    client
        .server
        .stdout
        .until("progress of the second run", |_, _| client.progress("b").first().cloned())
        .await;
    client.cancel(second).await;
    client.ping().await;
    gate.open();

    assert_eq!(client.result(first).await["structuredContent"]["status"], "completed");
    let end = client.close().await;
    end.assert_code(0);
    assert!(
        !model.steps().iter().any(|step| step.said_by("user").contains("say beta")),
        "it never ran"
    );
    product.check_nothing_left().await;
}
