//! The rehearsal model runs the whole corridor on a machine without a model, and says what it is.

use crate::common::{Model, Product, Script, Workspace};

const REHEARSAL: &str = "[model]\nsource = \"rehearsal\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn it_lists_writes_reads_and_is_labelled() {
    let product = Product::new().await.config(REHEARSAL);
    let workspace = Workspace::new();
    workspace.write("seen-in-the-folder.txt", "hello\n");

    let run = product.run(&workspace, ["--events", "write a note"]).await;

    run.assert_code(0);
    let report = run.assert_status("completed");
    let answer = report["answer"].as_str().expect("an answer").to_lowercase();
    assert!(answer.contains("rehears"), "labelled: {answer}");
    assert!(answer.contains("1 entr"), "it says what it saw: {answer}");
    let calls: u64 = report["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["calls"].as_u64())
        .sum();
    assert!(calls >= 3, "real tools: {report:#}");
    let files = report["changes"]["files"].as_array().expect("changes");
    assert_eq!(files.len(), 1, "one note: {files:?}");
    let note = files[0]["path"].as_str().expect("a path");
    assert!(!workspace.read(note).is_empty());
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_never_chosen_where_a_real_server_was_named() {
    let model = Model::start(Script::say("I am real.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "who are you?"]).await;
    assert_eq!(run.assert_status("completed")["answer"], "I am real.");

    let run = product
        .run(&workspace, ["--json", "--model-url", &Model::refused_url(), "who are you?"])
        .await;
    run.assert_status("model_unreachable");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_and_doctor_say_so_too() {
    let product = Product::new().await.config(REHEARSAL);
    let told = product.call(["doctor"]).await;
    told.assert_code(0);
    assert!(told.stdout.to_lowercase().contains("rehears"), "{}", told.stdout);
    product.check_nothing_left().await;
}
