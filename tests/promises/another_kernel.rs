//! With `runtime = "runsc"` the agent works on gVisor's kernel and not on the host's.

use crate::common::{Model, Product, Reply, Script, Workspace};

#[tokio::test]
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
async fn gvisor_runs_the_agent_and_says_that_it_is_gvisor() {
    if std::env::var_os("SANDBOX_MCP_TEST_GVISOR").is_none() {
        eprintln!("NOT RUN: the engine has no runtime called runsc (scripts/test says so too)");
        return;
    }
    let script = "uname -r; cat note.txt; echo written >made.txt; ls /run/sandbox";
    let model = Model::start(Script::bash(script).then(Reply::say("Done."))).await;
    let product = Product::with_model(&model).await.config("[sandbox]\nruntime = \"runsc\"\n");
    let workspace = Workspace::new();
    workspace.write("note.txt", "a note of the host");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let seen = model.step(2).await.said_by("tool");
    let ours = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    assert!(seen.contains("a note of the host") && !seen.contains(ours.trim()), "{seen}");
    assert_eq!(report["sandbox"]["receipt"]["gvisor"], true);
    assert_eq!(workspace.names(), ["made.txt", "note.txt"]);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_runtime_that_the_engine_does_not_know_is_named() {
    let model = Model::start(Script::say("never")).await;
    let product =
        Product::with_model(&model).await.config("[sandbox]\nruntime = \"runsc-of-nobody\"\n");
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("sandbox_error");
    assert!(report["error"]["message"].to_string().contains("runsc-of-nobody"), "{report:#}");
    product.check_nothing_left().await;
}
