//! The next run of a session starts from what the earlier ones left waiting, and its result has both.

use serde_json::Value;

use crate::commits_come_back::git;
use crate::common::{Model, Product, Script, Workspace};

const FIRST: &str = "echo new >new.txt; echo two >>kept.txt; rm gone.txt; rm -r folder; \
                     mkdir made; echo deep >made/deep; mv moved renamed; rm turns; mkdir turns; \
                     echo x >turns/x; rm -r flat; echo flat >flat; ln -s kept.txt link; \
                     chmod +x tool; echo theirs >taken.txt";
const SECOND: &str = "cat new.txt kept.txt made/deep renamed/inner turns/x flat link; ls -F; \
                      test -x tool && echo executable; echo three >>kept.txt; rm new.txt; \
                      echo again >gone.txt; echo last >made/last";

fn prepare(workspace: &Workspace, more: usize) {
    for name in ["kept.txt", "gone.txt", "folder/a", "folder/b/c", "moved/inner", "turns", "flat/f"]
    {
        workspace.write(name, &format!("{name}\n"));
    }
    workspace.write("tool", "#!/bin/sh\n");
    workspace.write("taken.txt", "mine\n");
    for number in 0..more {
        workspace.write(&format!("many/{number}"), "x\n");
    }
}

async fn run(product: &Product, workspace: &Workspace, args: &[&str]) -> Value {
    let all = ["--json"].into_iter().chain(args.iter().copied());
    product.run(workspace, all).await.assert_status("completed")
}

async fn both(more: usize, view: &str) {
    let script = Script::bash(FIRST).then_say("Done.").then_bash(SECOND).then_say("Done too.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    prepare(&workspace, more);
    let args = ["--session", "new", "--mode", "isolated", "first"];
    let first = run(&product, &workspace, &args).await;
    assert_eq!(first["workspace"]["view"], view, "{first:#}");
    let session = first["session"]["id"].as_str().expect("an id").to_owned();
    // What the user changed meanwhile stays the user's.
    workspace.write("taken.txt", "mine, and later\n");
    let args = ["--session", &session, "--mode", "isolated", "second"];
    let second = run(&product, &workspace, &args).await;
    assert_eq!(second["workspace"]["view"], view, "{second:#}");
    let seen = model.tool_results();
    let told = "new\nkept.txt\ntwo\ndeep\nmoved/inner\nx\nflat\nkept.txt\ntwo\n";
    assert!(seen.contains(told), "{seen}");
    assert!(seen.contains("link@") && seen.contains("turns/") && seen.contains("executable"));
    assert!(!seen.contains("folder/"), "{seen}");
    let remarks = second["remarks"].to_string();
    assert!(remarks.contains("1 of the changes"), "{second:#}");
    assert!(remarks.contains("its result has all of it too"), "{second:#}");

    // The user's file is the user's, until a person takes the run's.
    let refused = product.call(["apply", first["run_id"].as_str().expect("an id")]).await;
    assert!(refused.stdout.contains("taken.txt"), "{refused:?}");
    let applied = product.call(["apply", second["run_id"].as_str().expect("an id")]).await;
    applied.assert_code(0);
    assert_eq!(workspace.read("kept.txt"), "kept.txt\ntwo\nthree\n");
    assert_eq!(workspace.read("gone.txt"), "again\n");
    assert_eq!(workspace.read("taken.txt"), "mine, and later\n");
    assert_eq!(workspace.read("made/deep"), "deep\n");
    assert_eq!(workspace.read("made/last"), "last\n");
    assert_eq!(workspace.read("renamed/inner"), "moved/inner\n");
    assert_eq!(
        (workspace.read("flat"), workspace.read("turns/x")),
        ("flat\n".into(), "x\n".into())
    );
    for gone in ["new.txt", "folder", "moved"] {
        assert!(!workspace.has(gone), "{gone}");
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_copy() {
    both(0, "copy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_an_overlay() {
    both(300, "overlay").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_takes_everything_back_leaves_nothing_to_go_on_from() {
    let script = Script::bash("echo 1 >a").then_say("Done.").then_bash("rm a").then_say("Undone.");
    let model = Model::start(script.then_bash("ls").then_say("Looked.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let first = run(&product, &workspace, &["--session", "new", "--mode", "isolated", "go"]).await;
    let session = first["session"]["id"].as_str().expect("an id");
    for began in [true, false] {
        let args = ["--session", session, "--mode", "isolated", "go on"];
        let next = run(&product, &workspace, &args).await;
        assert_eq!(next["remarks"].to_string().contains("began with"), began, "{next:#}");
        assert_eq!(next["changes"]["files"], serde_json::json!([]), "{next:#}");
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_is_not_gone_on_from_and_discarding_says_who_has_it_too() {
    let plant =
        "echo 1 >a; echo 1 >b; echo '{}' >opencode.json; mkdir .opencode; echo x >.opencode/x";
    let script = Script::bash(plant).then_say("Done.");
    let script = script
        .then_bash("ls -A; echo 2 >c")
        .then_say("Done.")
        .then_say("Nothing.")
        .then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let args = ["--session", "new", "--mode", "isolated", "first"];
    let first = run(&product, &workspace, &args).await;
    let session = first["session"]["id"].as_str().expect("an id").to_owned();
    product.call(["apply", "last", "--only", "a"]).await.assert_code(0);
    std::fs::remove_file(workspace.at("a")).expect("removed");
    let args = ["--session", &session, "--fork", "--mode", "isolated", "second"];
    let second = run(&product, &workspace, &args).await;
    let seen = model.tool_results();
    assert!(seen.trim_end().ends_with('b'), "what was applied and removed stays away: {seen}");
    let remarks = second["remarks"].to_string();
    assert!(remarks.contains("3 of the changes") && remarks.contains("hidden"), "{second:#}");
    let args = ["--session", &session, "--mode", "read-only", "look"];
    let look = run(&product, &workspace, &args).await;
    assert!(look["remarks"].to_string().contains("reads the folder without them"), "{look:#}");
    let (first, second) = (&first["run_id"], &second["run_id"]);
    let (first, second) = (first.as_str().expect("an id"), second.as_str().expect("an id"));
    let discarded = product.call(["discard", first]).await;
    assert!(discarded.stdout.contains(&format!("discard {second}")), "{discarded:?}");
    let discarded = product.call(["discard", second]).await;
    assert!(discarded.stdout.contains(&format!("discard {first}")), "{discarded:?}");
    let args = ["--session", &session, "--mode", "isolated", "third"];
    let third = run(&product, &workspace, &args).await;
    assert!(!third["remarks"].to_string().contains("began with"), "{third:#}");
    assert_eq!(workspace.names(), [""; 0]);
    product.check_nothing_left().await;
}

/// Two runs of one session that commit; `between` comes after the first.
async fn commits_of_both(config: &str, between: Option<&str>) {
    let script = Script::bash("echo two >>a.txt; git commit -qam Second; echo c >c.txt; git add .")
        .then_say("Done.")
        .then_bash("git log --format=%s; git status --short; git commit -qm Third; git status")
        .then_say("Done too.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await.config(config);
    let workspace = Workspace::new();
    let here = workspace.path();
    git(here, &["init", "-q", "-b", "main"]);
    workspace.write("a.txt", "one\n");
    git(here, &["add", "."]);
    git(here, &["commit", "-q", "-m", "First"]);
    let args = ["--session", "new", "--mode", "isolated", "first"];
    let first = run(&product, &workspace, &args).await;
    let session = first["session"]["id"].as_str().expect("an id").to_owned();
    let args = ["--session", &session, "--mode", "isolated", "second"];
    let second = run(&product, &workspace, &args).await;
    let seen = model.tool_results();
    assert!(seen.contains("Second\nFirst\nA  c.txt\n"), "{seen} {second:#}");
    assert!(seen.contains("working tree clean"), "{seen}");
    assert_eq!(second["changes"]["commits"]["count"], 2, "{second:#}");

    let id = |report: &Value| report["run_id"].as_str().expect("an id").to_owned();
    if let Some(command) = between {
        product.call([command, &id(&first)]).await.assert_code(0);
    }
    product.call(["apply", &id(&second)]).await.assert_code(0);
    assert_eq!(git(here, &["log", "--format=%s"]), "Third\nSecond\nFirst");
    assert_eq!(git(here, &["status", "--short"]), "");
    git(here, &["fsck", "--strict"]);
    product.call(["undo", &id(&second)]).await.assert_code(0);
    let left = if between == Some("apply") { "Second\nFirst" } else { "First" };
    assert_eq!(git(here, &["log", "--format=%s"]), left);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_wait_are_on_the_branch_of_the_next_run() {
    commits_of_both("", None).await;
    commits_of_both("[workspace]\nisolation = \"overlay\"\n", Some("apply")).await;
}
