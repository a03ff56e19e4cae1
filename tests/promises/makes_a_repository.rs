//! A repository that a run makes comes to the user's folder whole, without what could run anything,
//! and goes again.

use crate::commits_come_back::git;
use crate::common::{Model, Product, Script, Workspace};

const MAKE: &str = "git init -q -b trunk; echo one >a.txt; git add a.txt; git commit -qm First; \
                    git branch side; git tag v1; echo two >>a.txt; git stash -q; echo b >b.txt; \
                    git add b.txt; echo c >c.txt; git config user.name Ann; \
                    git config core.sshCommand 'touch /tmp/sly'; git config alias.st '!touch x'; \
                    git remote add origin https://host/a.git; \
                    printf '#!/bin/sh\\ntouch sly' >.git/hooks/post-checkout; \
                    chmod +x .git/hooks/post-checkout";

fn check(folder: &std::path::Path) {
    assert_eq!(git(folder, &["log", "--format=%s", "trunk"]), "First");
    assert_eq!(git(folder, &["status", "--short", "--branch"]), "## trunk\nA  b.txt\n?? c.txt");
    let branches = git(folder, &["for-each-ref", "--format=%(refname)"]);
    assert_eq!(branches, "refs/heads/side\nrefs/heads/trunk\nrefs/stash\nrefs/tags/v1");
    assert!(git(folder, &["stash", "list"]).starts_with("stash@{0}: WIP on trunk:"));
    assert_eq!(git(folder, &["config", "user.name"]), "Ann");
    assert_eq!(git(folder, &["remote", "get-url", "origin"]), "https://host/a.git");
    let settings = std::fs::read_to_string(folder.join(".git/config")).expect("settings");
    assert!(!settings.contains("sly") && !settings.contains("alias"), "{settings}");
    assert!(!folder.join(".git/hooks").exists(), "no hook comes");
    git(folder, &["fsck", "--strict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_run_leaves_it_and_undo_removes_it() {
    let model = Model::start(Script::bash(MAKE).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("old.txt", "old\n");
    workspace.write(".gitignore", "old.txt\n.gitignore\n");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    check(workspace.path());
    let told = report["remarks"].to_string();
    assert!(told.contains("made the repository `.git`, with 3 commits"), "{report:#}");
    assert!(told.contains("core.sshcommand") || told.contains("alias.st"), "{report:#}");
    let files = report["changes"]["files"].to_string();
    assert!(files.contains(r#"".git/""#) && !files.contains("HEAD"), "{report:#}");
    let diff = product.call(["diff", "last"]).await;
    diff.assert_code(0);
    assert!(diff.stdout.contains("# not in this patch: .git (a new repository)"), "{diff:?}");

    // A look writes the index again, and is no reason to keep it.
    git(workspace.path(), &["status"]);
    let side = workspace.at(".git/refs/heads/mine");
    git(workspace.path(), &["branch", "mine"]);
    let undone = product.call(["undo", "last"]).await;
    assert!(undone.stdout.contains("somebody has worked"), "{undone:?}");
    check_is_whole(&workspace);
    git(workspace.path(), &["branch", "-D", "mine"]);
    assert!(!side.exists());
    std::fs::remove_dir_all(workspace.at(".git/logs/refs/heads")).expect("of the branch");
    let undone = product.call(["undo", "last"]).await;
    undone.assert_code(0);
    assert_eq!(workspace.names(), [".gitignore", "old.txt"], "{undone:?}");
    product.check_nothing_left().await;
}

fn check_is_whole(workspace: &Workspace) {
    git(workspace.path(), &["fsck", "--strict"]);
    assert_eq!(workspace.read("b.txt"), "b\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_folder_it_waits_with_the_other_changes_and_never_takes_the_place_of_another() {
    let work = format!("mkdir -p new/one; cd new/one; {MAKE}");
    let model = Model::start(Script::bash(&work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = ["--json", "--mode", "isolated", "go"];
    product.run(&workspace, run).await.assert_status("completed");
    assert_eq!(workspace.names(), [""; 0]);
    // The user makes one in its place.
    let place = workspace.at("new/one");
    std::fs::create_dir_all(&place).expect("made");
    workspace.hand_over();
    git(workspace.path(), &["init", "-q", "-b", "mine", "new/one"]);
    let refused = product.call(["apply", "last"]).await;
    assert!(refused.stdout.contains("new/one/.git/HEAD"), "{refused:?}");
    product.call(["apply", "last", "--partial"]).await.assert_code(0);
    assert_eq!(std::fs::read_to_string(place.join("b.txt")).expect("there"), "b\n");
    assert_eq!(git(&place, &["symbolic-ref", "HEAD"]), "refs/heads/mine");
    assert_eq!(git(&place, &["for-each-ref"]), "");
    std::fs::remove_dir_all(place.join(".git")).expect("removed");
    // One file of it is all of it.
    product.call(["apply", "last", "--only", "new/one/.git/HEAD"]).await.assert_code(0);
    check(&place);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_commits_hide_needs_a_yes() {
    let work = "git init -q; mkdir .vscode; echo '{}' >.vscode/tasks.json; echo a >a.txt; \
                git add .; git commit -qm Sly; git rm -q -r --cached .vscode; rm -r .vscode; \
                git commit -qm Clean";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(workspace.names(), ["a.txt"], "{report:#}");
    let pending = &report["changes"]["pending"];
    assert_eq!(pending["protected"], 1, "{report:#}");
    assert_eq!(pending["files"][0]["path"], ".git/", "{report:#}");
    product.call(["apply", "last"]).await.assert_code(1);
    product.call(["apply", "last", "--allow-protected"]).await.assert_code(0);
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "Clean\nSly");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_a_stranger_keep_it_away_and_the_files_come() {
    let work = "git init -q; blob=$(echo evil | git hash-object -w --stdin); \
                dir=$(printf '100644 blob %s\\tconfig\\n' $blob | git mktree); \
                top=$(printf '040000 tree %s\\t.git\\n' $dir | git mktree); \
                git update-ref HEAD $(git commit-tree -m Evil $top); echo x >x";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(workspace.names(), ["x"], "{report:#}");
    let told = report["remarks"].to_string();
    assert!(told.contains("does not come back: `git index-pack` failed"), "{report:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_comes_also_out_of_an_overlay() {
    let work = "git init -q empty; git init -q --object-format=sha256 long; cd long; echo a >a; \
                git add a; git commit -qm Long; cd ..; git init -q src; cd src; echo a >a; \
                git add a; git commit -qm One; echo b >>a; git commit -qam Two; cd ..; \
                git clone -q --depth 1 file://$PWD/src shallow; git clone -q --shared src borrows; \
                git clone -q src away; cd away; git checkout -q --detach HEAD~1; cd ..; \
                mv there moved";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    for number in 0..300 {
        workspace.write(&format!("many/{number}"), "x\n");
    }
    workspace.write("there/a", "a\n");
    git(workspace.path(), &["init", "-q", "there"]);
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(report["workspace"]["view"], "overlay", "{report:#}");
    let log = |name: &str| git(&workspace.at(name), &["log", "--format=%s"]);
    assert_eq!(git(&workspace.at("empty"), &["status", "--short"]), "", "{report:#}");
    assert_eq!(log("long"), "Long", "{report:#}");
    assert_eq!(log("src"), "Two\nOne");
    assert_eq!(log("shallow"), "Two");
    assert_eq!(log("borrows"), "Two\nOne");
    assert_eq!(log("away"), "One");
    for name in ["long", "src", "shallow", "borrows", "away"] {
        assert_eq!(git(&workspace.at(name), &["status", "--short"]), "", "{name}");
        git(&workspace.at(name), &["fsck", "--strict"]);
    }
    assert!(workspace.has("there/.git/HEAD") && workspace.has("moved/a"), "what was there stays");
    product.check_nothing_left().await;
}
