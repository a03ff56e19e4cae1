//! A direct run writes into a view, and what needs nobody's yes is
//! applied when it ended well.

use crate::common::{Answer, Gate, Model, Part, Product, Script, Workspace};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_gets_the_changes_at_the_end_but_for_what_needs_a_yes() {
    let gate = Gate::default();
    let work =
        "echo more >>old.txt; mkdir .vscode new; echo '{}' >.vscode/tasks.json; echo n >new/file";
    let script = Script::bash(work).then(Answer::new([Part::Text("Done.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("old.txt", "old\n");
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    // The work is done inside, and another program writes here meanwhile.
    assert_eq!(workspace.names(), ["old.txt"]);
    workspace.write(".vscode/settings.json", "the user's\n");
    gate.open();

    let report = run.wait().await.assert_status("completed");
    assert_eq!(workspace.read("old.txt"), "old\nmore\n");
    assert_eq!(workspace.read("new/file"), "n\n");
    assert_eq!(workspace.read(".vscode/settings.json"), "the user's\n");
    assert!(!workspace.at(".vscode/tasks.json").exists());
    let pending = &report["changes"]["pending"];
    assert_eq!(pending["protected"], 1, "{report:#}");
    assert!(pending["files"].to_string().contains(".vscode/tasks.json"), "{report:#}");
    assert!(report["remarks"].to_string().contains("--allow-protected"), "{report:#}");
    let applied = product.call(["apply", "last", "--allow-protected"]).await;
    applied.assert_code(0);
    assert_eq!(workspace.read(".vscode/tasks.json"), "{}\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_end_well_waits() {
    let model = Model::start(Script::bash("echo made >made.txt").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--verify", "exit 1", "go"]).await;
    let report = run.assert_status("completed");
    assert_eq!(report["changes"]["applied"], json!(false), "{report:#}");
    assert_eq!(workspace.names(), [] as [&str; 0]);
    assert!(report["remarks"].to_string().contains("did not end well"), "{report:#}");
    product.call(["apply", "last"]).await.assert_code(0);
    assert_eq!(workspace.read("made.txt"), "made\n");
    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(workspace.names(), [] as [&str; 0]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_work_in_one_folder_at_once() {
    let gate = Gate::default();
    let script = |name: &str| {
        let done = Answer::new([Part::Text("Done.".into())]).behind(&gate);
        Script::bash(&format!("echo {name} >{name}.txt; echo {name} >both.txt")).then(done)
    };
    let models = [Model::start(script("one")).await, Model::start(script("two")).await];
    let config = format!("[limits]\nconcurrency = 2\n");
    let product = Product::with_model(&models[0]).await.config(&config);
    let workspace = Workspace::new();
    let mut runs = Vec::new();
    for model in &models {
        let url = model.url();
        runs.push(product.start_run(&workspace, ["--json", "--model-url", &url, "go"]));
        model.step(2).await;
    }
    gate.open();
    let mut pending = 0;
    for run in runs {
        let report = run.wait().await.assert_status("completed");
        pending += report["changes"]["pending"]["count"].as_u64().unwrap_or(0);
    }
    assert_eq!(pending, 1, "both made one file, and one of them waits");
    assert_eq!(workspace.names(), ["both.txt", "one.txt", "two.txt"]);
    product.check_nothing_left().await;
}
