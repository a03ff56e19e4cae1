//! The changes of a run can be seen and applied while it goes on, and what was applied is neither in
//! the way of the run's end nor lost to its report.

use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::commits_come_back::git;
use crate::common::{
    Answer, Gate, Mcp, Model, Part, Product, Running, Script, Workspace, eventually,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A process that never rests, and one that writes a file again and again.
const BUSY: &str = "(while :; do /bin/true; done) >/dev/null 2>&1 & echo $! >/tmp/pids; \
                    (while :; do date +%N >>busy.txt; sleep 0.02; done) >/dev/null 2>&1 & echo $! >>/tmp/pids";
const FIRST: &str = "echo two >>kept.txt; echo new >new.txt; echo back >back.txt; rm gone.txt; \
                     mkdir -p made/deep; echo x >made/deep/file; echo y >made/other; \
                     echo run >changed.txt; chmod +x tool; ln -s kept.txt link; \
                     printf 'caf\\357\\277\\275 new\\n' >latin.txt;";
const SECOND: &str = "kill $(cat /tmp/pids); ls -A; cat kept.txt; \
                      echo three >>kept.txt; rm back.txt made/other; echo z >>made/deep/file; \
                      echo more >more.txt; echo one >changed.txt";

/// Another command of the agent, when the gate is open.
fn then_bash(script: Script, command: &str, gate: &Gate) -> Script {
    let args = json!({ "command": command, "description": "a step" });
    let call = Part::Call { name: "bash".to_owned(), args };
    script.then(Answer::new([call]).behind(gate))
}

fn prepare(workspace: &Workspace, others: usize) {
    workspace.write("kept.txt", "one\n");
    workspace.write("gone.txt", "gone\n");
    workspace.write("changed.txt", "one\n");
    workspace.write("tool", "#!/bin/sh\n");
    workspace.write("latin.txt", "");
    std::fs::write(workspace.at("latin.txt"), b"caf\xe9 old\n").expect("written");
    for number in 0..others {
        workspace.write(&format!("many/{number}"), "x\n");
    }
}

/// A run that waits at the gate after its first step, and its id.
async fn at_the_gate(
    product: &Product,
    workspace: &Workspace,
    args: &[&str],
    model: &Model,
) -> (Running, String) {
    let all = ["--json"].into_iter().chain(args.iter().copied());
    let run = product.start_run(workspace, all);
    model.step(2).await;
    let runs = product.folder("state").join("runs");
    let id = eventually("the run's record", PATIENCE, || {
        let mut entries = std::fs::read_dir(&runs).ok()?;
        Some(entries.next()?.ok()?.file_name().to_string_lossy().into_owned())
    })
    .await;
    (run, id)
}

async fn whole(others: usize, view: &str, mode: &str) {
    let gate = Gate::default();
    let script = Script::bash(&format!("{FIRST} {BUSY}"));
    let script = then_bash(script, SECOND, &gate).then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    prepare(&workspace, others);
    let (run, id) = at_the_gate(&product, &workspace, &["--mode", mode, "go"], &model).await;

    let diff = product.call(["diff", &id]).await;
    diff.assert_code(0);
    for line in ["+two", "+++ b/new.txt", "--- a/gone.txt", "+++ b/made/deep/file"] {
        assert!(diff.stdout.contains(line), "{line}: {}", diff.stdout);
    }
    assert_eq!(workspace.read("kept.txt"), "one\n", "a look changes nothing");
    let applied = product.call(["apply", &id]).await;
    applied.assert_code(0);
    assert!(applied.stdout.contains("writing at this moment"), "{}", applied.stdout);
    assert_eq!(workspace.read("kept.txt"), "one\ntwo\n");
    assert_eq!(workspace.read("made/deep/file"), "x\n");
    assert_eq!(workspace.read("changed.txt"), "run\n");
    assert!(!workspace.has("gone.txt") && workspace.has("back.txt") && workspace.has("link"));
    assert!(!workspace.has("busy.txt"), "it is being written");
    // What the user does meanwhile stays the user's.
    workspace.write("more.txt", "mine\n");
    workspace.write("made/mine", "mine\n");
    let again = product.call(["apply", &id, "--json"]).await;
    assert_eq!(again.report()["changed"], json!([]), "{again:?}");

    gate.open();
    let report = run.wait().await.assert_status("completed");
    assert_eq!(report["workspace"]["view"], view, "{report:#}");
    let seen = model.tool_results();
    assert!(seen.contains("one\\ntwo") || seen.contains("one\ntwo"), "{seen}");
    let word = |path: &str| -> Value {
        let files = report["changes"]["files"].as_array().expect("files");
        let file = files.iter().find(|file| file["path"] == path);
        file.map_or(Value::Null, |file| file["change"].clone())
    };
    for (path, change) in [
        ("kept.txt", "modified"),
        ("new.txt", "added"),
        ("gone.txt", "deleted"),
        ("made/deep/file", "added"),
        ("back.txt", "deleted"),
        ("made/other", "deleted"),
        ("tool", "modified"),
        ("link", "added"),
        ("busy.txt", "added"),
    ] {
        assert_eq!(word(path), change, "{path} in {report:#}");
    }
    assert!(report["remarks"].to_string().contains("applied while the run went on"), "{report:#}");
    let record = product.folder("state").join("runs").join(&id);
    assert!(!record.join("look").exists() && !record.join("ask").exists(), "a look stays behind");
    if mode == "isolated" {
        assert_eq!(report["changes"]["applied"], false, "{report:#}");
        assert_eq!(workspace.read("kept.txt"), "one\ntwo\n");
        let refused = product.call(["apply", &id]).await;
        refused.assert_code(1);
        assert!(refused.stdout.contains("conflict  more.txt"), "{refused:?}");
        product.call(["apply", &id, "--partial"]).await.assert_code(0);
    } else {
        assert_eq!(report["changes"]["pending"]["files"][0]["path"], "more.txt", "{report:#}");
    }
    assert_eq!(workspace.read("kept.txt"), "one\ntwo\nthree\n");
    assert_eq!(workspace.read("made/deep/file"), "x\nz\n");
    assert_eq!(workspace.read("changed.txt"), "one\n", "the run has put it back");
    assert_eq!(workspace.read("more.txt"), "mine\n");
    assert_eq!(workspace.read("made/mine"), "mine\n");
    assert_eq!(word("made/mine"), Value::Null, "{report:#}");
    let latin = || std::fs::read(workspace.at("latin.txt")).expect("read");
    assert_eq!(latin(), b"caf\xe9 new\n", "the byte that the agent could not read is there");
    for gone in ["back.txt", "made/other", "gone.txt"] {
        assert!(!workspace.has(gone), "{gone}");
    }

    product.call(["undo", &id]).await.assert_code(0);
    assert_eq!(workspace.read("kept.txt"), "one\n");
    assert_eq!(workspace.read("gone.txt"), "gone\n");
    assert_eq!(workspace.read("changed.txt"), "one\n");
    assert_eq!(latin(), b"caf\xe9 old\n");
    assert_eq!(workspace.names().iter().filter(|name| name.starts_with("made/")).count(), 1);
    assert!(!workspace.has("new.txt") && !workspace.has("link"));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_copy() {
    whole(0, "copy", "isolated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_overlay() {
    whole(300, "overlay", "isolated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_run() {
    whole(300, "overlay", "direct").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_the_run_still_reads_from_the_workspace_waits_for_the_end() {
    let gate = Gate::default();
    let script = then_bash(Script::bash("mv many moved; echo 1 >new.txt"), "cat moved/7", &gate);
    let model = Model::start(script.then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    prepare(&workspace, 300);
    let (run, id) = at_the_gate(&product, &workspace, &["--mode", "isolated", "go"], &model).await;
    let refused = product.call(["apply", &id]).await;
    refused.assert_code(1);
    assert!(refused.stderr.contains("gave a folder another name"), "{refused:?}");
    assert!(workspace.has("many/7") && !workspace.has("new.txt"));
    let diff = product.call(["diff", &id, "--stat"]).await;
    assert!(diff.stdout.contains("moved/7 (renamed)"), "{diff:?}");
    gate.open();
    run.wait().await.assert_status("completed");
    assert!(model.tool_results().contains("\nx\n"), "{}", model.tool_results());
    product.call(["apply", &id]).await.assert_code(0);
    assert!(!workspace.has("many") && workspace.has("moved/7") && workspace.has("new.txt"));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_applies_and_a_killed_run_still_knows_what_was_applied() {
    let gate = Gate::default();
    let script = then_bash(Script::bash(FIRST), "echo never", &gate).then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    prepare(&workspace, 0);
    let mut client = Mcp::start(&product, &workspace).await;
    let task = json!({ "task": "go", "mode": "isolated", "background": true });
    let started = client.run(task).await;
    let id = started["structuredContent"]["run_id"].as_str().expect("an id").to_owned();
    model.step(2).await;
    let asked = json!({ "run_id": id, "only": ["kept.txt", "made"] });
    let applied = client.tool("apply_changes", asked).await;
    assert_eq!(applied["isError"], false, "{applied:#}");
    assert_eq!(workspace.read("kept.txt"), "one\ntwo\n");
    assert!(workspace.has("made/other") && !workspace.has("new.txt"));

    let owner = product.folder("state").join("runs").join(&id).join("owner");
    let owner = std::fs::read_to_string(owner).expect("an owner");
    let pid = owner.split('.').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    rustix::process::kill_process(pid.expect("a pid"), Signal::KILL).expect("killed");
    // Whoever comes next keeps what there is of it.
    product.call(["runs", "gc"]).await;
    client.close().await;
    let diff = product.call(["diff", &id, "--stat"]).await;
    assert!(diff.stdout.contains("kept.txt") && diff.stdout.contains("new.txt"), "{diff:?}");
    product.call(["apply", &id]).await.assert_code(0);
    assert!(workspace.has("new.txt") && !workspace.has("gone.txt"));
    product.call(["undo", &id]).await.assert_code(0);
    assert_eq!(workspace.read("kept.txt"), "one\n");
    assert!(!workspace.has("made") && workspace.has("gone.txt"));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_still_waits_when_all_files_were_applied() {
    let gate = Gate::default();
    let script = then_bash(Script::bash("echo two >>a.txt"), "git commit -qam Second", &gate);
    let model = Model::start(script.then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    git(workspace.path(), &["init", "-q", "-b", "main"]);
    workspace.write("a.txt", "one\n");
    git(workspace.path(), &["add", "."]);
    git(workspace.path(), &["commit", "-q", "-m", "First"]);
    let (run, id) = at_the_gate(&product, &workspace, &["--mode", "isolated", "go"], &model).await;
    product.call(["apply", &id]).await.assert_code(0);
    assert_eq!(workspace.read("a.txt"), "one\ntwo\n");
    gate.open();
    run.wait().await.assert_status("completed");
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "First");
    let runs = product.call(["runs", "--json"]).await;
    assert!(runs.stdout.contains("\"partly_applied\""), "{}", runs.stdout);
    product.call(["apply", &id]).await.assert_code(0);
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "Second\nFirst");
    assert_eq!(git(workspace.path(), &["status", "--short"]), "");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_run_of_a_session_has_what_came_after() {
    let gate = Gate::default();
    let script = then_bash(Script::bash("echo B >a.txt"), "echo C >a.txt", &gate).then_say("Done.");
    let model = Model::start(script.then_bash("cat a.txt").then_say("Looked.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("a.txt", "A\n");
    let args = ["--session", "new", "--mode", "isolated", "go"];
    let (run, id) = at_the_gate(&product, &workspace, &args, &model).await;
    product.call(["apply", &id]).await.assert_code(0);
    assert_eq!(workspace.read("a.txt"), "B\n");
    gate.open();
    let report = run.wait().await.assert_status("completed");
    let session = report["session"]["id"].as_str().expect("an id").to_owned();
    let args = ["--json", "--session", &session, "--mode", "isolated", "look"];
    let next = product.run(&workspace, args).await.assert_status("completed");
    assert!(next["remarks"].to_string().contains("1 change that"), "{next:#}");
    assert!(model.tool_results().ends_with("C\n"), "{}", model.tool_results());
    product.check_nothing_left().await;
}
