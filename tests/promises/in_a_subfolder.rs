//! A workspace that is a subfolder of its repository: git works inside, can lose nothing of the
//! rest, and its commits come back. And which repositories and objects are given.

use crate::commits_come_back::git;
use crate::common::{Model, Product, Script, Workspace};

/// A repository with files in two packages and at its top.
fn monorepo(workspace: &Workspace) {
    git(workspace.path(), &["init", "-q", "-b", "main"]);
    for (name, text) in [("top.txt", "top\n"), ("app/a.txt", "one\n"), ("app/b/c.txt", "c\n")] {
        workspace.write(&format!("packages/{name}"), text);
    }
    workspace.write("other/o.txt", "o\n");
    workspace.write("root.txt", "r\n");
    git(workspace.path(), &["add", "."]);
    git(workspace.path(), &["commit", "-q", "-m", "First"]);
    git(workspace.path(), &["branch", "older"]);
    workspace.write("other/o.txt", "newer\n");
    workspace.write("packages/app/a.txt", "two\n");
    git(workspace.path(), &["commit", "-qam", "Second"]);
    // The user's own work elsewhere, which no run sees.
    workspace.write("other/o.txt", "the user's\n");
    workspace.write("other/new.txt", "new\n");
}

const WORK: &str = "git status --short; git log --format=%s; echo three >>a.txt; echo n >n.txt; \
                    git stash -q -u; git switch -q older; cat a.txt; git switch -q main; \
                    git stash pop -q; git add -A; git commit -qam Third; git diff HEAD~1 --stat; \
                    git rebase -q HEAD~1; git branch -m main renamed; git branch -m renamed main; \
                    echo later >later.txt; git status --short";

async fn works_in(workspace: &Workspace, folder: &std::path::Path) {
    let model = Model::start(Script::bash(WORK).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let (top, app) = (workspace.path(), folder.join("packages/app"));
    let before = git(top, &["status", "--short"]);
    let run = ["--json", "--workspace", app.to_str().expect("UTF-8"), "go"];
    let report = product.run(workspace, run).await.assert_status("completed");
    assert_eq!(git(folder, &["log", "--format=%s"]), "Third\nSecond\nFirst", "{report:#}");
    let changed = git(folder, &["show", "--format=", "--name-status", "HEAD"]);
    assert_eq!(changed, "M\tpackages/app/a.txt\nA\tpackages/app/n.txt");
    let after = git(folder, &["status", "--short"]);
    let (mut lines, mut expected): (Vec<_>, Vec<_>) =
        (after.lines().collect(), before.lines().collect());
    expected.push("?? packages/app/later.txt");
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected, "the rest is as it was, and what is new is new");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("history of all of it"), "{report:#}");
    let seen = model.tool_results();
    assert!(seen.starts_with("Second\nFirst\n") && !seen.contains("fatal"), "{seen}");
    git(folder, &["fsck", "--strict"]);
    assert!(git(folder, &["ls-files", "-t"]).lines().all(|line| line.starts_with('H')));
    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(git(folder, &["log", "--format=%s"]), "Second\nFirst");
    assert_eq!(git(folder, &["status", "--short"]), before);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_works_at_its_own_path() {
    let workspace = Workspace::named("/var/tmp", "sw-");
    monorepo(&workspace);
    works_in(&workspace, workspace.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_works_where_the_path_is_another() {
    let workspace = Workspace::new();
    monorepo(&workspace);
    works_in(&workspace, workspace.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn git_works_in_a_linked_worktree() {
    let workspace = Workspace::named("/var/tmp", "sw-");
    monorepo(&workspace);
    git(workspace.path(), &["stash", "-q"]);
    git(workspace.path(), &["worktree", "add", "-q", "-b", "work", "linked"]);
    let linked = workspace.at("linked");
    let model = Model::start(
        Script::bash("echo x >>a.txt; git commit -qam Linked; git log -1 --format=%s")
            .then_say("Done."),
    )
    .await;
    let product = Product::with_model(&model).await;
    let app = linked.join("packages/app");
    let run = ["--json", "--workspace", app.to_str().expect("UTF-8"), "go"];
    let report = product.run(&workspace, run).await.assert_status("completed");
    assert_eq!(git(&linked, &["log", "--format=%s"]), "Linked\nSecond\nFirst", "{report:#}");
    assert_eq!(git(&linked, &["status", "--short"]), "");
    assert_eq!(git(workspace.path(), &["log", "--format=%s", "main"]), "Second\nFirst");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_outside_is_never_committed_to_the_branch() {
    let work = "id=$(echo sly | git hash-object -w --stdin); \
                git update-index --add --cacheinfo 100644,$id,other/o.txt; git commit -qm Outside; \
                echo mine >>a.txt; git commit -qam Inside; ls ..; cat ../../other/o.txt";
    let model = Model::start(Script::bash(work).then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    monorepo(&workspace);
    let app = workspace.at("packages/app");
    let run = ["--json", "--workspace", app.to_str().expect("UTF-8"), "go"];
    let report = product.run(&workspace, run).await.assert_status("completed");
    let here = workspace.path();
    assert_eq!(git(here, &["log", "--format=%s"]), "Second\nFirst", "{report:#}");
    let told = report["remarks"].to_string();
    assert!(told.contains("outside of the workspace"), "{report:#}");
    let seen = model.tool_results();
    assert!(!seen.contains("the user's") && seen.contains("No such file"), "{seen}");
    assert_eq!(workspace.read("packages/app/a.txt"), "two\nmine\n");
    assert_eq!(workspace.read("other/o.txt"), "the user's\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_commit_is_held_to_the_folder_too() {
    for (more, subject) in [("", "Mine"), ("git update-index --add --cacheinfo", "Outside")] {
        let more = if more.is_empty() { "true".to_owned() } else { format!("{more} 100644,$id,o") };
        let work = format!(
            "echo a >a; git add a; id=$(git hash-object -w a); {more}; git commit -qm {subject}; \
             git rm -q --cached --sparse ../o; git status --short"
        );
        let model = Model::start(Script::bash(&work).then_say("Done.")).await;
        let product = Product::with_model(&model).await;
        let workspace = Workspace::new();
        git(workspace.path(), &["init", "-q", "-b", "main"]);
        workspace.write("app/old", "old\n");
        let app = workspace.at("app");
        let run = ["--json", "--workspace", app.to_str().expect("UTF-8"), "go"];
        let report = product.run(&workspace, run).await.assert_status("completed");
        let heads = git(workspace.path(), &["for-each-ref", "--format=%(subject)", "refs/heads"]);
        let expected = if subject == "Mine" { "Mine" } else { "" };
        assert_eq!(heads, expected, "{report:#}\n{}", model.tool_results());
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_another_user_is_not_given() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give a folder away.
        return;
    }
    let model = Model::start(Script::bash("git status").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    monorepo(&workspace);
    std::os::unix::fs::lchown(workspace.at(".git"), Some(12345), Some(12345)).expect("another's");
    let app = workspace.at("packages/app");
    let run = ["--json", "--workspace", app.to_str().expect("UTF-8"), "go"];
    let report = product.run(&workspace, run).await.assert_status("completed");
    let told = report["remarks"].to_string();
    assert!(told.contains("belongs to another user"), "{report:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_can_keep_a_repository_from_a_run() {
    let work = "git log --oneline; ls -A .git | wc -l; cat .git; echo x >>a.txt";
    for (folder, mode) in [("", "direct"), ("", "read_only"), ("packages/app", "direct")] {
        let model = Model::start(Script::bash(work).then_say("Done.")).await;
        let product = Product::with_model(&model).await;
        let product = product.config("[workspace]\ngit = \"none\"\n");
        let workspace = Workspace::new();
        monorepo(&workspace);
        let folder = workspace.at(folder);
        let folder = folder.to_str().expect("UTF-8").trim_end_matches('/');
        let run = ["--json", "--mode", mode, "--workspace", folder, "go"];
        let report = product.run(&workspace, run).await.assert_status("completed");
        let seen = model.tool_results();
        let told = report["remarks"].to_string();
        assert_eq!(told.contains("`workspace.git` is none"), !folder.ends_with("app"), "{told}");
        assert!(seen.contains("not a git repository"), "{seen}");
        assert!(!seen.contains("Second"), "{seen}");
        assert!(!report["remarks"].to_string().contains("history"), "{report:#}");
        git(workspace.path(), &["fsck", "--strict"]);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_borrows_objects_is_worked_in_once_a_person_has_named_their_store() {
    let place = Workspace::named("/var/tmp", "sw-");
    place.write("lender/a.txt", "one\n");
    let lender = place.at("lender");
    git(&lender, &["init", "-q", "-b", "main"]);
    git(&lender, &["add", "."]);
    git(&lender, &["commit", "-q", "-m", "First"]);
    git(place.path(), &["clone", "-q", "--shared", "lender", "clone"]);
    let clone = place.at("clone");
    let store = lender.join(".git/objects");
    for is_named in [false, true] {
        let work = "echo two >>a.txt; git commit -qam Second; git log --format=%s";
        let model = Model::start(Script::bash(work).then_say("Done.")).await;
        let product = Product::with_model(&model).await;
        let settings = format!("[workspace]\nobjects = [\"{}\"]\n", store.display());
        let product = if is_named { product.config(&settings) } else { product };
        let run = ["--json", "--workspace", clone.to_str().expect("UTF-8"), "go"];
        let report = product.run(&place, run).await.assert_status("completed");
        let log = git(&clone, &["log", "--format=%s"]);
        let told = report["remarks"].to_string();
        let cure = format!("workspace.objects = [\\\"{}", store.display());
        assert_eq!(told.contains(&cure), !is_named, "{report:#}");
        assert_eq!(log, if is_named { "Second\nFirst" } else { "First" }, "{report:#}");
        git(&clone, &["checkout", "-q", "."]);
        git(&clone, &["fsck", "--strict"]);
        product.check_nothing_left().await;
    }
}
