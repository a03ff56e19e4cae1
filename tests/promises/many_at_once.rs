//! Several tasks in one call, and the best of several attempts.

use serde_json::{Value, json};

use crate::common::{Mcp, Model, PATIENCE, Product, Script, Workspace, eventually};

fn runs(told: &Value) -> &Vec<Value> {
    told["runs"].as_array().unwrap_or_else(|| panic!("no runs: {told:#}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_one_call_work_side_by_side_and_apart() {
    let write = |name: &str| Script::bash(&format!("ls; echo {name} > {name}")).then_say(name);
    let model = Model::routed([("make one", write("one")), ("make two", write("two"))]).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut host = Mcp::start(&product, &workspace).await;
    let arguments = json!({ "name": "run_many", "arguments": { "tasks": ["make one", "make two"] },
        "_meta": { "progressToken": "t" } });
    let call = host.request("tools/call", arguments).await;
    let told = host.result(call).await["structuredContent"].clone();
    assert_eq!((&told["status"], &told["completed"]), (&json!("completed"), &json!(2)), "{told:#}");
    assert_eq!(runs(&told)[0]["answer"], "one");
    assert_eq!(runs(&told)[1]["files"], json!(["two"]));
    assert!(!workspace.has("one") && !workspace.has("two"), "each in a view of its own");
    let said = host.progress("t").iter().map(Value::to_string).collect::<String>();
    assert!(said.contains("[1/2] ") && said.contains("[2/2] "), "{said}");

    for run in runs(&told).clone() {
        let applied = host.tool("apply_changes", json!({ "run_id": run["run_id"] })).await;
        assert_eq!(applied["isError"], json!(false), "{applied:#}");
    }
    assert_eq!((workspace.read("one"), workspace.read("two")), ("one\n".into(), "two\n".into()));
    host.close().await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_attempts_the_verified_one_is_picked() {
    let good = Script::bash("echo 42 > answer").then_say("It is 42.");
    let model = Model::routed([("try it", Script::say("Tried.")), ("good", good)]).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut host = Mcp::start(&product, &workspace).await;
    let arguments = json!({
        "tasks": ["try it", "good"], "verify": "test -f answer", "pick": "best_verified",
    });
    let told = host.tool("run_many", arguments).await["structuredContent"].clone();
    assert_eq!((&told["status"], &told["verified"]), (&json!("completed"), &json!(1)), "{told:#}");
    assert_eq!(told["picked"], runs(&told)[1]["run_id"], "{told:#}");
    assert_eq!(runs(&told)[0]["verified"], false);
    assert!(told["next"].as_str().is_some_and(|next| next.contains("apply_changes")), "{told:#}");

    let arguments = json!({ "tasks": ["try it"], "repeat": 2, "verify": "test -f answer", "pick": "first_verified" });
    let none = host.tool("run_many", arguments).await;
    let told = &none["structuredContent"];
    assert_eq!((&none["isError"], &told["picked"]), (&json!(true), &Value::Null), "{none:#}");
    let refused = host.tool("run_many", json!({ "tasks": ["x"], "pick": "best_verified" })).await;
    assert!(refused.to_string().contains("needs `verify`"), "{refused:#}");
    host.close().await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_verified_ends_the_others_and_a_cancel_ends_all() {
    let good = Script::bash("echo 42 > answer").then_say("It is 42.");
    let sleep = "sleep 300";
    // One for each run that ever asks.
    let slow = Script::bash(sleep).then_bash(sleep).then_bash(sleep).then_bash(sleep);
    let model = Model::routed([("good", good), ("slow", slow)]).await;
    // A place for each: runs of one call come into the line in any order, and two slow ones would
    // hold up the good one.
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 3\n");
    let workspace = Workspace::new();
    let mut host = Mcp::start(&product, &workspace).await;
    let arguments = json!({
        "tasks": ["slow", "good", "slow"], "verify": "test -f answer || exit 3",
        "pick": "first_verified",
    });
    let told = host.tool("run_many", arguments).await["structuredContent"].clone();
    assert_eq!(told["picked"], runs(&told)[1]["run_id"], "{told:#}");
    let statuses: Vec<_> = runs(&told).iter().map(|run| run["status"].clone()).collect();
    assert_eq!(statuses, ["cancelled", "completed", "cancelled"]);

    let before = model.steps().len();
    let call = host
        .request(
            "tools/call",
            json!({ "name": "run_many", "arguments": { "tasks": ["slow", "slow"] } }),
        )
        .await;
    model.step(before + 2).await;
    host.cancel(call).await;
    let gone = || {
        let left = product.leftovers().now();
        left.iter().all(|one| one.starts_with("process")).then_some(())
    };
    eventually("the removal of both sandboxes", PATIENCE, gone).await;
    host.close().await;
    product.check_nothing_left().await;
}
