//! In read-only mode nothing that the agent does changes the workspace, and questions still work.

use crate::common::{Mcp, Model, Product, Reply, Script, Workspace};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_writing_fails_and_reading_works() {
    let attempts = "
        cat notes.txt
        touch new.txt && echo WROTE
        echo x >> notes.txt && echo WROTE
        rm -f notes.txt && echo WROTE
        mkdir d && echo WROTE
        chmod 777 notes.txt && echo WROTE
        mv notes.txt moved.txt && echo WROTE
        ln -s /etc/passwd link && echo WROTE
        echo scratch > /tmp/scratch && cat /tmp/scratch
        mount -o remount,rw /workspace && echo WROTE
        true";
    let script = Script::bash(attempts)
        .then(Reply::call("write", json!({"filePath": "/workspace/made.txt", "content": "x"})))
        .then_say("I could only read.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("notes.txt", "remember\n");

    let run = product.run(&workspace, ["--json", "--mode", "read-only", "try to write"]).await;

    let report = run.assert_status("completed");
    let seen = model.tool_results();
    assert!(seen.contains("remember"), "{seen}");
    assert!(seen.contains("Read-only file system"), "the wall is the mount, not a rule: {seen}");
    assert!(seen.contains("scratch"), "/tmp is there to work in: {seen}");
    assert!(!seen.contains("WROTE"), "{seen}");
    assert_eq!(workspace.names(), ["notes.txt"]);
    assert_eq!(workspace.read("notes.txt"), "remember\n");
    assert_eq!(report["workspace"]["mode"], "read_only");
    assert_eq!(report["changes"]["files"], json!([]));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_asks_for_it_by_the_same_name() {
    let model = Model::start(Script::bash("touch new.txt; echo exit: $?").then_say("No.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;

    let result = client.run(json!({"task": "try", "mode": "read_only"})).await;

    assert_eq!(result["structuredContent"]["status"], "completed", "{result:#}");
    assert_eq!(result["structuredContent"]["workspace"]["mode"], "read_only");
    assert!(model.tool_results().contains("exit: 1"), "{}", model.tool_results());
    assert_eq!(workspace.names(), [] as [&str; 0]);
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
