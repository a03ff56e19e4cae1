//! A conversation goes on in a fresh sandbox, one sandbox at a time, and nobody else hears of it.

use serde_json::{Value, json};

use crate::common::{Answer, Gate, Mcp, Model, Product, Script, Workspace};

fn session(report: &Value) -> String {
    report["session"]["id"].as_str().unwrap_or_else(|| panic!("no session: {report:#}")).to_owned()
}

async fn run(product: &Product, workspace: &Workspace, args: &[&str]) -> Value {
    let all = ["--json"].into_iter().chain(args.iter().copied());
    let run = product.run(workspace, all).await;
    run.assert_status("completed")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_known_in_the_next_sandbox_and_in_a_fork() {
    let script = Script::say("I remember teal.")
        .then_bash("ls /run/session/opencode; echo 1 > /tmp/gone")
        .then_say("It was teal.")
        .then_say("Teal, in the fork.")
        .then_say("Teal, still.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let first = run(&product, &workspace, &["--session", "new", "the colour is teal"]).await;
    assert_eq!(first["session"]["resumed"], false);
    let id = session(&first);

    let second = run(&product, &workspace, &["--session", &id, "which colour?"]).await;
    assert_eq!((session(&second), &second["session"]["resumed"]), (id.clone(), &json!(true)));
    let asked = &model.steps()[1];
    assert!(asked.said_by("user").contains("the colour is teal"), "{}", asked.said_by("user"));
    assert!(asked.said_by("assistant").contains("I remember teal."));
    assert!(model.tool_results().contains("opencode.db"), "{}", model.tool_results());

    let fork =
        run(&product, &workspace, &["--session", &id, "--fork", "--mode", "isolated", "and?"])
            .await;
    assert_ne!(session(&fork), id);
    let asked = model.steps().pop().expect("a step");
    assert!(asked.said_by("user").contains("which colour?"), "the fork knows all before it");

    let third = run(&product, &workspace, &["--session", &id, "once more"]).await;
    let asked = model.steps().pop().expect("a step");
    assert!(!asked.said_by("user").contains("and?"), "and the origin nothing of the fork");
    assert_eq!(session(&third), id);

    let listed = product.call(["sessions", "--json"]).await;
    listed.assert_code(0);
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed:#}");
    assert_eq!((&listed[0]["session"], &listed[0]["runs"]), (&json!(id), &json!(3)));
    assert_eq!(listed[1]["forked_from"], json!(id));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_session_is_never_seen() {
    let look = "find / -name '*.db' -path '*opencode*' 2>/dev/null; \
                strings -a /run/session/opencode/* 2>/dev/null | grep -c xyzzy-plugh; \
                ls /run; grep -c sessions/ /proc/self/mountinfo";
    let script = Script::say("Kept.").then_bash(look).then_say("Looked.");
    let model = Model::start(script.then_bash(look).then_say("Looked too.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let first = run(&product, &workspace, &["--session", "new", "the word is xyzzy-plugh"]).await;
    let other = run(&product, &workspace, &["--session", "new", "look around"]).await;
    assert_ne!(session(&first), session(&other));
    let seen = model.tool_results();
    assert!(seen.contains("/run/session/opencode/opencode.db"), "its own is there: {seen}");
    assert_eq!(seen.matches("opencode.db\n").count(), 1, "and no other: {seen}");
    // A run without a session has none at all.
    let none = run(&product, &workspace, &["look around"]).await;
    assert_eq!(none["session"], Value::Null);
    let last = model.steps().pop().expect("a step").said_by("tool");
    assert!(last.contains("/tmp/.opencode/") && !last.contains("/run/session"), "{last}");
    for step in &model.steps()[1..] {
        assert!(!step.said_by("user").contains("xyzzy-plugh"), "{}", step.said_by("user"));
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sandbox_at_a_time() {
    let gate = Gate::default();
    let slow = Answer::new([crate::common::Part::Text("At last.".into())]).behind(&gate);
    let model = Model::start(Script::say("Hello.").then(slow)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let first = run(&product, &workspace, &["--mode", "isolated", "--session", "new", "hi"]).await;
    let id = session(&first);

    let mut host = Mcp::start(&product, &workspace).await;
    let going =
        host.start_run(json!({"task": "go on", "session": id, "mode": "isolated"}), "t").await;
    model.step(2).await;
    let refused = host.run(json!({"task": "me too", "session": id, "mode": "isolated"})).await;
    let told = &refused["structuredContent"];
    assert_eq!(told["error"]["kind"], "session_busy", "{refused:#}");
    gate.open();
    let done = host.result(going).await;
    assert_eq!(done["structuredContent"]["session"]["id"], json!(id), "{done:#}");

    let elsewhere = Workspace::new();
    let args = ["--json", "--session", &id, "go on"];
    let refused = product.run(&elsewhere, args).await;
    refused.assert_code(2);
    assert!(refused.stderr.contains("is about the workspace"), "{}", refused.stderr);
    let unknown = ["--session", "ses-20200101-000000-aaaa", "go on"];
    let refused = product.run(&workspace, unknown).await;
    refused.assert_code(2);
    assert!(refused.stderr.contains("there is no session"), "{}", refused.stderr);
    host.close().await;
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_keeps_too_much_is_stopped() {
    let model = Model::start(
        Script::bash("for n in $(seq 1 12000); do : > /run/session/f$n; done; sleep 60")
            .then_say("?"),
    )
    .await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--session", "new", "fill it"]).await;
    let report = run.assert_status("budget_exhausted");
    assert_eq!(report["error"]["kind"], "session_growth", "{report:#}");
    product.check_nothing_left().await;
}
