//! Commits that a run makes are in the user's repository afterwards, checked, and on the branch
//! where nothing speaks against it.

use crate::common::{Answer, Gate, Model, Part, Product, Script, Workspace, person};
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Runs git as the person whom the workspace belongs to.
pub(crate) fn git(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    let (uid, gid) = person();
    let ours = std::fs::metadata("/proc/self").expect("/proc");
    if std::os::unix::fs::MetadataExt::uid(&ours) != uid {
        command.uid(uid).gid(gid);
    }
    command.current_dir(folder).args(words).env("HOME", "/");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ada").env(format!("GIT_{role}_EMAIL"), "a@x");
    }
    let output = command.output().expect("git");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {words:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with one commit of one file.
fn repository() -> Workspace {
    let workspace = Workspace::new();
    git(workspace.path(), &["init", "-q", "-b", "main"]);
    workspace.write("a.txt", "one\n");
    git(workspace.path(), &["add", "."]);
    git(workspace.path(), &["commit", "-q", "-m", "First"]);
    workspace
}

const WORK: &str = "echo two >>a.txt; git commit -qam Second; echo b >b.txt; git add b.txt; \
                    echo c >c.txt; git branch side; git tag v1; git status --short";

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_run_moves_the_branch_and_the_index() {
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let start = git(workspace.path(), &["rev-parse", "HEAD"]);
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let here = workspace.path();
    assert_eq!(git(here, &["log", "--format=%s"]), "Second\nFirst", "{report:#}");
    assert_eq!(git(here, &["status", "--short"]), "A  b.txt\n?? c.txt");
    assert_eq!(git(here, &["rev-parse", "--abbrev-ref", "HEAD"]), "main");
    git(here, &["fsck", "--strict"]);
    let commits = &report["changes"]["commits"];
    assert_eq!((&commits["count"], &commits["moved"]), (&json!(1), &json!(true)), "{report:#}");
    let refs = commits["refs"].as_str().expect("refs");
    let came = git(here, &["for-each-ref", "--format=%(refname)", refs]);
    assert_eq!(came.lines().count(), 4, "the branches, the tag, the index: {came}");
    assert_eq!(git(here, &["branch", "--format=%(refname:short)"]), "main", "no other is made");

    let diff = product.call(["diff", "last"]).await;
    let first = diff.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with("# commit ") && first.ends_with(" Second"), "{diff:?}");
    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["rev-parse", "HEAD"]), start);
    assert_eq!(git(here, &["status", "--short"]), "");
    product.call(["discard", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["for-each-ref", "--format=%(refname)", refs]), "");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_checked_out_itself_follows_as_in_a_submodule() {
    let work = "cd sub && echo two >>a.txt && git commit -qam Below && cd .. && git add sub && \
                git commit -qm Above && git status --short && git log -1 --format=%s";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let (library, workspace) = (repository(), repository());
    let (here, below) = (workspace.path(), workspace.path().join("sub"));
    let from = library.path().display().to_string();
    let add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", &from, "sub"];
    git(here, &add);
    git(here, &["commit", "-qm", "With a submodule"]);
    git(&below, &["checkout", "-q", "--detach"]);
    git(here, &["checkout", "-q", "--detach"]);
    let start = git(here, &["rev-parse", "HEAD"]);

    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(git(&below, &["log", "--format=%s"]), "Below\nFirst", "{report:#}");
    assert_eq!(git(here, &["log", "-1", "--format=%s"]), "Above", "{report:#}");
    assert_eq!(git(here, &["status", "--short"]), "");
    assert_eq!(git(&below, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD", "still no branch");
    assert_eq!(git(&below, &["rev-parse", "main"]), git(library.path(), &["rev-parse", "main"]));
    git(&below, &["fsck", "--strict"]);
    git(here, &["fsck", "--strict"]);

    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["rev-parse", "HEAD"]), start);
    assert_eq!(git(here, &["status", "--short"]), "");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_worktree_gets_its_commits_when_they_are_applied() {
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let other = workspace.path().join("linked");
    git(workspace.path(), &["worktree", "add", "-q", "-b", "work", "linked"]);
    let run = ["--json", "--mode", "isolated", "--workspace", other.to_str().expect("UTF-8"), "go"];
    let report = product.run(&workspace, run).await.assert_status("completed");
    assert_eq!(git(&other, &["log", "--format=%s"]), "First");
    assert_eq!(report["changes"]["commits"]["moved"], json!(false), "{report:#}");
    product.call(["apply", "last"]).await.assert_code(0);
    assert_eq!(git(&other, &["log", "--format=%s"]), "Second\nFirst");
    assert_eq!(git(&other, &["status", "--short"]), "A  b.txt\n?? c.txt");
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "First", "the other branch stays");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_stays_that_was_moved_meanwhile_or_gets_protected_paths() {
    let work = "mkdir .vscode; echo '{}' >.vscode/tasks.json; git add .; git commit -qm Sly; \
                git rm -q --cached .vscode/tasks.json; rm -r .vscode; git commit -qm Clean";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let here = workspace.path();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(git(here, &["log", "--format=%s"]), "First");
    assert!(report["remarks"].to_string().contains(".vscode/tasks.json"), "{report:#}");
    let start = git(here, &["rev-parse", "HEAD"]);
    // The user commits, so even a yes moves nothing; then goes back, and it does.
    git(here, &["commit", "-q", "--allow-empty", "-m", "Mine"]);
    let applied = product.call(["apply", "last", "--allow-protected"]).await;
    applied.assert_code(0);
    assert!(applied.stdout.contains("`main` was moved meanwhile"), "{applied:?}");
    assert_eq!(git(here, &["log", "--format=%s"]), "Mine\nFirst");
    git(here, &["update-ref", "refs/heads/main", &start]);
    product.call(["apply", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["log", "--format=%s"]), "First", "it needs a yes each time");
    product.call(["apply", "last", "--allow-protected"]).await.assert_code(0);
    assert_eq!(git(here, &["log", "--format=%s"]), "Clean\nSly\nFirst");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_what_was_there_already_come_back_and_are_undone_with_care() {
    let work = "git commit -qam Saved";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let here = workspace.path();
    workspace.write("a.txt", "edited\n");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(git(here, &["log", "--format=%s"]), "Saved\nFirst", "{report:#}");
    assert_eq!(git(here, &["status", "--short"]), "");
    git(here, &["commit", "-q", "--allow-empty", "-m", "Mine"]);
    let undone = product.call(["undo", "last"]).await;
    assert!(undone.stderr.contains("`main` was moved meanwhile"), "{undone:?}");
    git(here, &["reset", "-q", "--soft", "HEAD~1"]);
    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["log", "--format=%s"]), "First");
    assert_eq!(workspace.read("a.txt"), "edited\n");
    assert_eq!(git(here, &["diff", "--name-only"]), "a.txt");
    product.call(["discard", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["for-each-ref", "refs/sandbox"]), "");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_switches_to_another_branch_moves_none_and_says_how_to_keep_it() {
    let work = "git switch -qc topic; echo t >t; git add t; git commit -qm Topic";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let here = workspace.path();
    assert_eq!(git(here, &["branch", "--format=%(refname:short)"]), "main");
    assert_eq!(git(here, &["log", "--format=%s"]), "First");
    let kept = format!("refs/sandbox/{}/1", report["run_id"].as_str().expect("an id"));
    assert!(
        report["remarks"].to_string().contains(&format!("git branch NAME {kept}")),
        "{report:#}"
    );
    git(here, &["branch", "topic", &kept]);
    assert_eq!(git(here, &["log", "--format=%s", "topic"]), "Topic\nFirst");
    product.call(["runs", "rm", "last"]).await.assert_code(0);
    assert_eq!(git(here, &["for-each-ref", "refs/sandbox"]), "");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_with_git_changes_and_leaves_nothing() {
    let model = Model::start(Script::bash("touch a.txt; git status").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let index = std::fs::read(workspace.at(".git/index")).expect("the index");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(report["changes"].get("commits"), None, "{report:#}");
    assert_eq!(git(workspace.path(), &["for-each-ref", "refs/sandbox"]), "");
    assert_eq!(std::fs::read(workspace.at(".git/index")).expect("the index"), index);
    let left = std::fs::read_dir(workspace.at(".git/objects")).expect("objects");
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("tmp_")), "{left:?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_git_would_not_take_from_a_stranger_do_not_come_back() {
    let work = "blob=$(echo evil | git hash-object -w --stdin); \
                hooks=$(printf '100755 blob %s\\tpost-checkout\\n' $blob | git mktree); \
                dir=$(printf '040000 tree %s\\thooks\\n' $hooks | git mktree); \
                top=$(printf '040000 tree %s\\t.git\\n' $dir | git mktree); \
                git update-ref refs/heads/main $(git commit-tree -m Evil -p HEAD $top); echo x >x";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let here = workspace.path();
    assert!(
        report["remarks"].to_string().contains("did not come back: `git index-pack` failed"),
        "{report:#}"
    );
    assert_eq!(git(here, &["log", "--all", "--format=%s"]), "First");
    assert_eq!(git(here, &["for-each-ref", "refs/sandbox"]), "");
    assert_eq!(workspace.read("x"), "x\n", "the files are another matter");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_come_back_from_a_run_that_may_write_little() {
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let product = Product::with_model(&model).await.config("[limits]\ndisk = \"64m\"\n");
    let workspace = repository();
    product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "Second\nFirst");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_git_on_this_machine_the_record_has_the_commits() {
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let nothing = tempfile::tempdir().expect("temp");
    let product = Product::with_model(&model).await;
    let product = product.env("PATH", &nothing.path().display().to_string());
    let workspace = repository();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let remarks = report["remarks"].as_array().expect("remarks").iter();
    let told = remarks.filter_map(|one| one.as_str()).find(|one| one.contains(".bundle"));
    let told = told.unwrap_or_else(|| panic!("{report:#}"));
    let fetch = told.split('`').nth(1).expect("a command").replace('\'', "");
    let here = workspace.path();
    // The folder of records is nobody else's, so a copy is fetched from.
    let words: Vec<&str> = fetch.split(' ').collect();
    let bundle = workspace.at("its.bundle").display().to_string();
    std::fs::copy(words[2], &bundle).expect("a bundle");
    workspace.hand_over();
    git(here, &["bundle", "verify", "--quiet", &bundle]);
    git(here, &["fetch", "--quiet", &bundle, words[3]]);
    let name = format!("refs/sandbox/{}/1", report["run_id"].as_str().expect("an id"));
    assert_eq!(git(here, &["log", "--format=%s", &name]), "Second\nFirst");
    git(here, &["fsck", "--strict"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_of_a_killed_run_come_back_with_the_next() {
    let work = "echo two >>a.txt; git commit -qam Second; git init -q own; cd own; echo x >x; \
                git add x; git commit -qm Own";
    for view in crate::common::engine::views() {
        let gate = Gate::default();
        let held = Script::bash(work).then(Answer::new([Part::Text("Done.".into())]).behind(&gate));
        let (model, next) = (Model::start(held).await, Model::start(Script::say("Next.")).await);
        let config = format!("[workspace]\nisolation = \"{view}\"\n");
        let product = Product::with_model(&model).await.config(&config);
        let workspace = repository();
        let here = workspace.path();
        let run = product.start_run(&workspace, ["--json", "go"]);
        model.step(2).await;
        run.signal(rustix::process::Signal::KILL);
        run.wait().await;
        assert_eq!(git(here, &["log", "--format=%s"]), "First");

        let args = ["--json", "--model-url", &next.url(), "go on"];
        let report = product.run(&workspace, args).await.assert_status("completed");
        let remarks = report["remarks"].to_string();
        assert!(remarks.contains("was killed while it worked in a view"), "{remarks}");
        assert!(remarks.contains("made the repository `own/.git`, with 1 commit"), "{remarks}");
        let killed = remarks.split(' ').skip_while(|word| !word.ends_with("run")).nth(1);
        product.call(["apply", killed.expect("its name")]).await.assert_code(0);
        assert_eq!(git(here, &["log", "--format=%s"]), "Second\nFirst", "{view}");
        assert_eq!(git(here, &["status", "--short"]), "?? own/");
        assert_eq!(git(&here.join("own"), &["log", "--format=%s"]), "Own");
        git(here, &["fsck", "--strict"]);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_run_is_looked_at_although_its_image_is_gone() {
    let gate = Gate::default();
    let work = "echo two >>a.txt; git commit -qam Second";
    let held = Script::bash(work).then(Answer::new([Part::Text("Done.".into())]).behind(&gate));
    let (model, next) = (Model::start(held).await, Model::start(Script::say("Next.")).await);
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    run.signal(rustix::process::Signal::KILL);
    run.wait().await;
    // As after a refresh that took its place.
    let layers = product.folder("state/layers").read_dir().expect("layers").flatten();
    let notes: Vec<_> = layers.map(|layer| layer.path().join("note.json")).collect();
    let [note] = notes.as_slice() else { panic!("one layer: {notes:?}") };
    let text = std::fs::read_to_string(note).expect("a note");
    let mut known: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    known["setup"]["image"] = "sandbox-mcp:000000000000-20200101T000000Z".into();
    std::fs::write(note, known.to_string()).expect("written");

    let args = ["--json", "--model-url", &next.url(), "go on"];
    let report = product.run(&workspace, args).await.assert_status("completed");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("was killed while it worked in a view"), "{remarks}");
    let killed = remarks.split(' ').skip_while(|word| !word.ends_with("run")).nth(1);
    product.call(["apply", killed.expect("its name")]).await.assert_code(0);
    assert_eq!(git(workspace.path(), &["log", "--format=%s"]), "Second\nFirst");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_waits_for_the_files_that_wait_and_the_report_says_so() {
    let work =
        "mkdir .vscode; echo '{}' >.vscode/tasks.json; echo more >>a.txt; git commit -qam Second";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = repository();
    let here = workspace.path();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert_eq!(git(here, &["log", "--format=%s"]), "First");
    let told = report["remarks"].to_string();
    assert!(told.contains("1 commit of the run: in refs/sandbox/"), "{report:#}");
    product.call(["apply", "last", "--allow-protected"]).await.assert_code(0);
    assert_eq!(git(here, &["log", "--format=%s"]), "Second\nFirst");
    product.check_nothing_left().await;
}
