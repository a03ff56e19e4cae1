//! A task of one mebibyte arrives at the model byte for byte, and nowhere that others can see.

use std::fmt::Write;

use crate::common::model::Options;
use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Script, Workspace, engine};
use serde_json::json;

const MEBIBYTE: usize = 1 << 20;

fn long_task() -> String {
    let mut task = String::from("Count the lines. The marker is MARKER-OF-THE-TASK.\n");
    let mut line = 0;
    while task.len() < MEBIBYTE - 40 {
        writeln!(task, "{line:06} grün \"quoted\" $HOME `x` 日本").expect("memory");
        line += 1;
    }
    task.push_str(&"é".repeat((MEBIBYTE - task.len()) / 2));
    task.push_str(&".".repeat(MEBIBYTE - task.len()));
    assert_eq!(task.len(), MEBIBYTE);
    task
}

async fn model(gate: &Gate) -> Model {
    let options = Options { context: Some(2_000_000), ..Options::default() };
    let script = Script::new(Answer::new([Part::Text("Counted.".into())]).behind(gate));
    Model::with(options, [("MARKER-OF-THE-TASK", script)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn through_standard_input() {
    let gate = Gate::default();
    let model = model(&gate).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let task = long_task();
    let mut command = product.command(["run", "--json", "-"]);
    command.current_dir(workspace.path());
    let mut run = product.start(command);
    run.feed(task.as_bytes()).await;
    run.close_stdin();

    let heard = model.step(1).await.said_by("user");
    let container = product.container_of(&run).await;
    let inspected = engine::inspect(&container).to_string();
    gate.open();
    let run = run.wait().await;

    assert!(heard.contains(&task), "{} bytes arrived, not the task as it was", heard.len());
    assert!(!inspected.contains("MARKER-OF-THE-TASK"), "the task shows in docker inspect");
    assert_eq!(run.assert_status("completed")["answer"], "Counted.");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_call_of_a_host() {
    let gate = Gate::default();
    gate.open();
    let model = model(&gate).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let task = long_task();
    let mut client = Mcp::start(&product, &workspace).await;

    let result = client.run(json!({"task": task})).await;

    assert_eq!(result["structuredContent"]["answer"], "Counted.", "{result:#}");
    assert!(model.step(1).await.said_by("user").contains(&task));
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_above_the_limit_is_refused_by_name() {
    let gate = Gate::default();
    let model = model(&gate).await;
    let product = Product::with_model(&model).await.config("[limits]\ntask = \"64k\"\n");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;

    let result = client.run(json!({"task": long_task()})).await;

    assert_eq!(result["isError"], true);
    let told = result["content"][0]["text"].as_str().expect("words");
    assert!(told.contains("task") && told.contains("limits.task") && told.len() < 2000, "{told}");
    assert_eq!(model.steps().len(), 0);
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
