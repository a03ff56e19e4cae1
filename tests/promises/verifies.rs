//! The caller's own check is run by us, before the agent and after it, when no process of the agent
//! lives; what it says is in the report, whatever the agent says.

use std::time::Duration;

use crate::common::{Mcp, Model, Product, Script, Workspace, model::MODEL};
use rustix::process::Signal;
use serde_json::json;

/// What the product promises from the wish to the end.
const PROMISED: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn before_and_after_with_their_exit_codes() {
    let model = Model::start(Script::bash("echo made > made.txt").then_say("Made.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let check = "pwd; echo \"wörds $0\" >&2; cat made.txt || exit 3";

    let run = product.run(&workspace, ["--json", "--verify", check, "make it"]).await;

    let report = run.assert_status("completed");
    run.assert_code(0);
    let verify = &report["verify"];
    assert_eq!(verify["command"], check);
    assert_eq!(verify["passed"], true, "{verify:#}");
    assert_eq!(verify["before"]["exit_code"], 3, "{verify:#}");
    let before = verify["before"]["output"].as_str().expect("text");
    assert!(before.starts_with("/workspace\nwörds /bin/sh\ncat: made.txt"), "{before}");
    assert_eq!(verify["after"]["exit_code"], 0);
    assert_eq!(verify["after"]["output"], "/workspace\nwörds /bin/sh\nmade");
    assert_eq!(verify["after"]["timed_out"], false);
    assert!(verify["after"]["duration_ms"].is_u64(), "{verify:#}");
    assert_eq!(report["continued"], json!([]));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_does_not_stand_is_seen_by_hosts_and_scripts() {
    let model = Model::start(Script::say("All is done and tested.")).await;
    let product =
        Product::with_model(&model).await.config("[agent]\nverify = \"seq 9999; exit 4\"\n");
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "--mode", "read-only", "do it"]).await;
    let report = run.assert_status("completed");
    run.assert_code(1);
    assert_eq!(report["verify"]["passed"], false);
    assert_eq!(report["verify"]["after"]["exit_code"], 4);
    let output = report["verify"]["after"]["output"].as_str().expect("text");
    assert!(output.len() <= 2048 && output.ends_with("\n9998\n9999"), "{output}");

    let mut client = Mcp::start(&product, &workspace).await;
    let result = client.run(json!({"task": "do it"})).await;
    let content = &result["structuredContent"];
    assert_eq!(
        (&content["status"], &content["verify"]["passed"]),
        (&json!("completed"), &json!(false))
    );
    assert_eq!(content["verify"]["after"]["exit_code"], 4);
    let keys: Vec<_> = content.as_object().expect("object").keys().take(7).collect();
    assert_eq!(keys, ["run_id", "status", "next", "untrusted", "answer", "error", "verify"]);
    let result = client.run(json!({"task": "do it", "verify": "true"})).await;
    assert_eq!(result["structuredContent"]["verify"]["passed"], true, "{result:#}");
    client.close().await.assert_code(0);

    let run = product.run(&workspace, ["--json", "--verify", "", "do it"]).await;
    run.assert_code(0);
    assert_eq!(run.report()["verify"], json!(null), "switched off");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ways_out_work_again_in_each_order() {
    let ask = "curl -sS --max-time 5 http://127.0.0.1:4141/v1/models && \
               curl -sS --max-time 5 -o /dev/null -w '%{http_code}' -x http://127.0.0.1:4142 http://example.com";
    let model = Model::start(Script::bash(ask).then_say("Asked.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "--verify", ask, "ask"]).await;

    let report = run.assert_status("completed");
    for when in ["before", "after"] {
        let output = report["verify"][when]["output"].as_str().expect("text");
        assert!(output.contains(MODEL) && output.ends_with("403"), "{when}: {output}");
    }
    assert!(model.tool_results().contains(MODEL), "{}", model.tool_results());
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_agent_lives_while_it_is_checked() {
    let stays = "(trap '' TERM HUP INT; setsid sh -c 'while :; do date +%N > tick; sleep 0.02; done' \
                 > /dev/null 2>&1 &) ; until [ -e tick ]; do sleep 0.05; done";
    let model = Model::start(Script::bash(stays).then_say("It runs.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let check = "one=$(cat tick) || exit 9; sleep 0.5; [ \"$one\" = \"$(cat tick)\" ] && \
                 cat /proc/[0-9]*/comm | sort | uniq -c";

    let run = product.run(&workspace, ["--json", "--verify", check, "start a server"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["verify"]["before"]["exit_code"], 9);
    assert_eq!(report["verify"]["after"]["exit_code"], 0, "{report:#}");
    let alive = report["verify"]["after"]["output"].as_str().expect("text");
    let names: Vec<_> =
        alive.split_whitespace().filter(|word| word.parse::<u32>().is_err()).collect();
    let ours = ["init", "perl", "socat", "sh", "cat", "sort", "uniq"];
    assert!(names.iter().all(|name| ours.contains(name)), "{alive}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_hangs_or_cannot_start_is_told_and_stops_nothing() {
    let model = Model::start(Script::say("Done.")).await;
    let product = Product::with_model(&model).await.config("[limits]\nverify_timeout = 2\n");
    let workspace = Workspace::new();

    let hangs = "echo begun; trap '' TERM; sleep 600";
    let run = product.run(&workspace, ["--json", "--verify", hangs, "do it"]).await;
    let report = run.assert_status("completed");
    run.assert_code(1);
    for when in ["before", "after"] {
        let check = &report["verify"][when];
        assert_eq!(check["timed_out"], true, "{check:#}");
        assert_eq!((&check["exit_code"], &check["output"]), (&json!(null), &json!("begun")));
    }
    assert_eq!(report["verify"]["passed"], false);

    let run = product.run(&workspace, ["--json", "--verify", "no-such-program", "do it"]).await;
    let report = run.assert_status("completed");
    assert_eq!(report["verify"]["before"]["exit_code"], 127);
    assert!(report["remarks"].to_string().contains("could not be run"), "{report:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_the_runs_own_deadline() {
    let model = Model::start(Script::say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let before = ["--json", "--timeout", "3", "--verify", "sleep 600", "do it"];
    let run = product.run(&workspace, before).await;
    let report = run.assert_status("timed_out");
    assert_eq!(model.steps().len(), 0, "the agent never began: {report:#}");
    assert!(run.took < Duration::from_secs(30), "{:?}", run.took);

    let after = "[ -e second ] || { touch second; exit 0; }; sleep 600";
    let run =
        product.run(&workspace, ["--json", "--timeout", "40", "--verify", after, "do it"]).await;
    let report = run.assert_status("completed");
    assert_eq!(report["verify"]["after"]["timed_out"], true, "{report:#}");
    assert_eq!(report["verify"]["passed"], false);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_cancelled() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--events", "--verify", "touch on; sleep 600", "x"]);
    product.made("on").await;

    run.signal(Signal::INT);
    let run = run.wait_within(PROMISED).await;

    product.check_nothing_left().await;
    run.assert_code(130);
    let report = run.assert_status("cancelled");
    assert_eq!(report["verify"]["before"], json!(null));
    assert_eq!(report["verify"]["passed"], false);
    assert_eq!(model.steps().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_check_made_is_not_the_agents() {
    let work = "echo made >made.txt; echo agent >both.txt; echo kept >cache/agent.txt; \
                rm gone.txt; mkdir src/new; echo x >src/new/x; echo 1 >src/a.log";
    let check = "mkdir -p cache; date +%N >cache/x; echo r >report.xml; echo line >>log.txt; \
                 rm -f scratch.txt; mkdir -p src/__pycache__; echo p >src/__pycache__/p; \
                 if [ -f both.txt ]; then echo check >>both.txt; echo 2 >src/a.log; fi; true";
    for (more, view) in [(0, "copy"), (300, "overlay")] {
        let model = Model::start(Script::bash(work).then_say("Made.")).await;
        let product = Product::with_model(&model).await;
        let workspace = Workspace::new();
        for name in ["log.txt", "scratch.txt", "gone.txt", "src/a"] {
            workspace.write(name, "mine\n");
        }
        workspace.write(".gitignore", "*.log\n");
        for number in 0..more {
            workspace.write(&format!("many/{number}"), "x\n");
        }
        let run = product.run(&workspace, ["--json", "--verify", check, "make it"]).await;
        let report = run.assert_status("completed");
        assert_eq!(report["workspace"]["view"], view, "{report:#}");
        let names: Vec<_> = workspace.names();
        let names: Vec<_> = names.iter().filter(|name| !name.starts_with("many")).collect();
        let expected = [
            ".gitignore",
            "cache",
            "cache/agent.txt",
            "log.txt",
            "made.txt",
            "scratch.txt",
            "src",
            "src/a",
            "src/a.log",
            "src/new",
            "src/new/x",
        ];
        assert_eq!(names, expected, "{report:#}");
        assert_eq!(workspace.read("log.txt"), "mine\n");
        let remarks = report["remarks"].to_string();
        assert!(remarks.contains("`verify` made or changed cache and 6 more"), "{report:#}");
        let pending = &report["changes"]["pending"];
        assert_eq!(
            (&pending["count"], &pending["files"][0]["path"]),
            (&json!(1), &json!("both.txt"))
        );
        let why = pending["files"][0]["why"].as_str().expect("a reason");
        assert!(why.contains("what `verify` made of it"), "{report:#}");
        let listed = report["changes"]["files"].to_string();
        assert!(!listed.contains("report.xml") && !listed.contains("pycache"), "{report:#}");
        product.call(["apply", "last"]).await.assert_code(0);
        assert_eq!(workspace.read("both.txt"), "agent\ncheck\n");
        product.check_nothing_left().await;
    }
}
