//! On an engine that sees none of our files the workspace is copied there, and what a run changed
//! comes back. `scripts/test-engine docker-apart` starts such an engine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::common::{Model, Product, Script, Workspace, engine};

/// Everything that a tree can have, and all that can be done to it.
const WORK: &str = "set -e; ls -A; stat -c '%n %a %Y' tool old.txt; cat \"$(printf 'odd\\nname')\"; \
    readlink link; test ! -e pipe; \
    echo more >>old.txt; touch -d @1000000000.123456789 old.txt; rm gone.txt; mv folder moved; \
    chmod 700 tool; ln -sfn same.txt link; printf x >\"$(printf 'new\\nname')\"; \
    printf y >\"$(printf 'latin\\351')\"; mkdir -p shut/in; echo s >shut/in/file; \
    echo secret >closed; chmod 0 closed shut/in shut; echo done";

/// Returns true on an engine that these tests are about.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn is_here() -> bool {
    if !engine::is_apart() {
        eprintln!("NOT RUN: this engine sees our files");
    }
    engine::is_apart()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_tree_can_have_goes_there_and_comes_back() {
    if !is_here() {
        return;
    }
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    for name in ["old.txt", "gone.txt", "tool", "odd\nname", "folder/deep/file", "same.txt"] {
        workspace.write(name, "content\n");
    }
    let at = |name: &str| workspace.at(name);
    fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o755)).expect("a mode");
    symlink("old.txt", at("link")).expect("a link");
    rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), 0o600.into()).expect("a pipe");
    let before = at("same.txt").metadata().expect("there");

    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");

    let told = model.step(2).await.said_by("tool");
    assert!(told.contains("tool 755") && told.contains("content\nold.txt\ndone"), "{told}");
    assert_eq!(report["changes"]["applied"], true, "{report:#}");
    assert_eq!(report["workspace"]["view"], "copy");
    let text = |name: &str| fs::read_to_string(at(name)).expect("there");
    assert_eq!(text("old.txt"), "content\nmore\n");
    let old = at("old.txt").metadata().expect("there");
    assert_eq!((old.mtime(), old.mtime_nsec()), (1_000_000_000, 123_456_789));
    assert!(!at("gone.txt").exists() && !at("folder").exists());
    assert_eq!(text("moved/deep/file"), "content\n");
    let mode = |name: &str| at(name).metadata().expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode("tool"), mode("shut"), mode("closed")), (0o700, 0, 0));
    assert_eq!(fs::read_link(at("link")).expect("a link"), OsStr::new("same.txt"));
    assert_eq!(text("new\nname"), "x");
    assert!(workspace.path().join(OsStr::from_bytes(b"latin\xe9")).exists());
    let after = at("same.txt").metadata().expect("there");
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));
    fs::set_permissions(at("shut"), fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::set_permissions(at("shut/in"), fs::Permissions::from_mode(0o700)).expect("a mode");
    assert_eq!(text("shut/in/file"), "s\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fills_the_engines_disk_is_stopped_and_the_rest_comes_back() {
    if !is_here() {
        return;
    }
    let fill =
        "echo x >kept; for i in 1 2 3 4 5 6; do head -c 20M /dev/zero >big$i; done; sleep 60";
    let model = Model::start(Script::bash(fill).then_say("Done.")).await;
    let product = Product::with_model(&model).await.config("[limits]\ndisk = \"64m\"\n");
    let workspace = Workspace::new();
    workspace.write("old.txt", "old\n");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("budget_exhausted");
    let message = report["error"]["message"].to_string();
    assert!(message.contains("MiB"), "{report:#}");
    assert_eq!(workspace.names(), ["old.txt"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_keeps_follows_the_folder() {
    if !is_here() {
        return;
    }
    let look = "find . -path ./.git -prune -o -printf '%y %m %p %l\\n' | sort; cat a b/c 2>/dev/null; \
                echo spoilt >a; rm -rf same 2>/dev/null; mkdir -p late";
    let product = Product::with_model(&Model::start(Script::say("never")).await).await;
    let workspace = Workspace::new();
    workspace.write("a", "one\n");
    workspace.write("b", "file\n");
    workspace.write("gone", "gone\n");
    workspace.write("same/deep", "same\n");
    symlink("a", workspace.at("link")).expect("a link");
    let seen = async || {
        let model = Model::start(Script::bash(look).then_say("Done.")).await;
        let url = model.url();
        let args = ["--json", "--mode", "isolated", "--model-url", &url, "go"];
        product.run(&workspace, args).await.assert_status("completed");
        model.step(2).await.said_by("tool")
    };
    let first = seen().await;
    assert!(first.contains("f 644 ./gone") && first.ends_with("one\n"), "{first}");

    fs::write(workspace.at("a"), "two\n").expect("written");
    fs::remove_file(workspace.at("b")).expect("gone");
    fs::remove_file(workspace.at("gone")).expect("gone");
    workspace.write("b/c", "three\n");
    fs::remove_file(workspace.at("link")).expect("gone");
    symlink("b", workspace.at("link")).expect("a link");
    fs::set_permissions(workspace.at("same"), fs::Permissions::from_mode(0o500)).expect("a mode");
    let second = seen().await;
    for there in ["f 644 ./a", "d 755 ./b", "f 644 ./b/c", "d 500 ./same", "l 777 ./link b"] {
        assert!(second.contains(there), "{there}: {second}");
    }
    assert!(!second.contains("gone") && !second.contains("late"), "{second}");
    assert!(second.ends_with("two\nthree\n"), "{second}");
    // Nothing of what the runs did stays there.
    assert_eq!(seen().await, second);
    fs::set_permissions(workspace.at("same"), fs::Permissions::from_mode(0o700)).expect("a mode");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conversation_of_a_run_that_changes_nothing_comes_back() {
    if !is_here() {
        return;
    }
    let model = Model::start(Script::say("Hello.")).await;
    let product = Product::with_model(&model).await;
    let args = ["--json", "--mode", "read-only", "--session", "new", "hello"];
    let report = product.run(&Workspace::new(), args).await.assert_status("completed");
    let id = report["session"]["id"].as_str().expect("a session");
    let agent = product.folder("state/sessions").join(id).join("agent");
    let kept = fs::read_dir(&agent).expect("the agent's state").count();
    assert!(kept > 0, "nothing is in {}", agent.display());
    product.check_nothing_left().await;
}
