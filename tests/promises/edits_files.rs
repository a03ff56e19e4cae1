//! A task that edits files leaves them edited, and the report names exactly those.

use crate::common::{Model, Product, Script, Workspace};
use serde_json::{Value, json};

/// The report's changes as sorted `path: change` lines.
fn changes(report: &Value) -> Vec<String> {
    let files = report["changes"]["files"].as_array().expect("a list of changed files");
    let line = |file: &Value| {
        format!(
            "{}: {}",
            file["path"].as_str().expect("path"),
            file["change"].as_str().expect("change")
        )
    };
    let mut lines: Vec<String> = files.iter().map(line).collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn written_edited_moved_and_removed_files_are_on_disk_and_in_the_report() {
    let edit = json!({
        "filePath": "/workspace/greeting.txt", "oldString": "cruel", "newString": "kind",
    });
    let script = Script::call("write", json!({"filePath": "/workspace/src/made.txt", "content": "made\n"}))
        .then_call("read", json!({"filePath": "/workspace/greeting.txt"}))
        .then_call("edit", edit)
        .then_bash("rm old.txt && mv first.txt second.txt && mkdir 'two words' && echo ü > 'two words/grün.txt'")
        .then_say("All edited.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("greeting.txt", "hello cruel world\n");
    workspace.write("old.txt", "old\n");
    workspace.write("first.txt", "moved\n");
    workspace.write("untouched.txt", "as it was\n");

    let run = product.run(&workspace, ["--json", "edit some files"]).await;

    let report = run.assert_status("completed");
    run.assert_code(0);
    assert_eq!(report["answer"], "All edited.");
    assert_eq!(workspace.read("src/made.txt"), "made\n");
    assert_eq!(workspace.read("greeting.txt"), "hello kind world\n");
    assert_eq!(workspace.read("second.txt"), "moved\n");
    assert_eq!(workspace.read("two words/grün.txt"), "ü\n");
    assert_eq!(
        workspace.names(),
        [
            "greeting.txt",
            "second.txt",
            "src",
            "src/made.txt",
            "two words",
            "two words/grün.txt",
            "untouched.txt"
        ],
        "nothing of ours is left in the workspace"
    );
    assert_eq!(
        changes(&report),
        [
            "greeting.txt: modified",
            "old.txt: deleted",
            "second.txt: renamed",
            "src/made.txt: added",
            "two words/grün.txt: added",
        ]
    );
    assert_eq!(report["changes"]["truncated"], false);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_only_looks_changes_nothing_and_says_so() {
    let model = Model::start(Script::bash("cat notes.txt").then_say("It says: remember.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("notes.txt", "remember\n");

    let run = product.run(&workspace, ["--json", "what do the notes say?"]).await;

    let report = run.assert_status("completed");
    assert!(model.tool_results().contains("remember"), "the agent saw the file");
    assert_eq!(changes(&report), [] as [&str; 0]);
    assert_eq!(workspace.names(), ["notes.txt"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_repository_stays_one_and_its_history_is_the_agents_to_read() {
    let script = Script::bash(
        "git log --format=%s && git status --short && echo more >> code.txt && git diff --stat",
    )
    .then_say("Looked and changed.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("code.txt", "some\n");
    let git = |args: &[&str]| {
        let (uid, gid) = workspace.owner();
        let mut command = std::process::Command::new("git");
        command.args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.com",
            "-c",
            "safe.directory=*",
        ]);
        command.args(args).current_dir(workspace.path()).env("HOME", workspace.path());
        if rustix::process::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        let out = command.output().expect("git");
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "The first commit"]);

    let run = product.run(&workspace, ["--json", "look around"]).await;

    let report = run.assert_status("completed");
    let seen = model.tool_results();
    assert!(seen.contains("The first commit") && seen.contains("1 file changed"), "{seen}");
    assert_eq!(changes(&report), ["code.txt: modified"]);
    assert_eq!(git(&["status", "--short"]), " M code.txt\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_person_names_is_meant_wherever_they_stand() {
    let model = Model::start(Script::bash("echo here > note.txt").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let (standing, named) = (Workspace::new(), Workspace::new());
    let folder = named.path().to_str().expect("a readable name").to_owned();
    let run = product.run(&standing, ["--json", "--workspace", &folder, "write"]).await;
    let report = run.assert_status("completed");
    assert_eq!(changes(&report), ["note.txt: added"]);
    assert_eq!(named.read("note.txt"), "here\n");

    let refused = product.run(&standing, ["--workspace", "/etc", "write"]).await;
    refused.assert_code(2);
    assert!(refused.stderr.contains("`workspace` is `/etc`"), "{}", refused.stderr);
    product.check_nothing_left().await;
}
