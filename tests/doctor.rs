//! `doctor` finds what is wrong and names the remedy; 1 on an error, 0 otherwise.

mod common;

use common::model::{MODEL, Options};
use common::{Model, Product, Reply, Script};
use serde_json::Value;

/// All checks of `doctor --json`, wherever the document keeps them.
fn checks(told: &common::Finished) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:#?}"));
    let checks = document.as_array().or_else(|| document["checks"].as_array());
    checks.unwrap_or_else(|| panic!("no list of checks: {document:#}")).clone()
}

fn of_status(checks: &[Value], status: &str) -> Vec<String> {
    checks.iter().filter(|check| check["status"] == status).map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_machine() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;

    let told = product.call(["doctor", "--json"]).await;
    told.assert_code(0);
    let all = checks(&told);
    assert_eq!(of_status(&all, "error"), [] as [&str; 0]);
    let text = all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n").to_lowercase();
    for subject in
        ["engine", "image", "model", "config", "workspace", "seccomp", "cgroup", MODEL, "131072"]
    {
        assert!(text.contains(subject), "nothing about {subject}: {text}");
    }
    assert!(model.requests().iter().any(|r| r.method == "POST"), "one real tool-call round trip");

    let told = product.call(["doctor"]).await;
    told.assert_code(0);
    assert!(told.stdout.contains("ok") || told.stdout.contains('✓'), "{}", told.stdout);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_engine() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let told = product.call(["doctor", "--json"]).await;
    told.assert_code(1);
    let errors = of_status(&checks(&told), "error");
    assert!(errors.iter().any(|error| error.contains("/no/such/docker.sock")), "{errors:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_server() {
    let url = Model::refused_url();
    let product = Product::new().await.env("SANDBOX_MCP_MODEL_URL", &url);
    let told = product.call(["doctor", "--json"]).await;
    told.assert_code(1);
    let errors = of_status(&checks(&told), "error");
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    assert!(errors.iter().any(|error| error.contains(address)), "{errors:#?}");
    for check in checks(&told).iter().filter(|check| check["status"] != "ok") {
        let remedy = ["remedy", "hint", "fix"]
            .iter()
            .any(|key| check[*key].as_str().is_some_and(|text| !text.is_empty()));
        assert!(remedy, "no remedy: {check:#}");
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_tools() {
    // vLLM without its tool-call parser answers in words: runs would do nothing.
    let side = Some(Reply::say("I would call a tool if I could."));
    let options = Options { side, ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::with_model(&model).await;
    let told = product.call(["doctor", "--json"]).await;
    let all = checks(&told);
    let troubles = [of_status(&all, "error"), of_status(&all, "warning")].concat();
    assert!(troubles.iter().any(|trouble| trouble.contains("tool")), "{all:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_too_small_for_the_agent() {
    let options = Options { context: Some(4096), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::with_model(&model).await;
    let told = product.call(["doctor", "--json"]).await;
    let all = checks(&told);
    let troubles = [of_status(&all, "error"), of_status(&all, "warning")].concat();
    assert!(troubles.iter().any(|trouble| trouble.contains("4096")), "{all:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_rehearses_a_whole_run() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let told = product.call(["doctor", "--deep", "--json"]).await;
    told.assert_code(0);
    let all = checks(&told);
    let text = all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n").to_lowercase();
    assert!(text.contains("rehears"), "{text}");
    product.check_nothing_left().await;
}
