//! Git in a view: it works wherever the repository is, and the user's stays as it was.

use crate::common::{Model, Product, Reply, Script, Workspace};

use serde_json::json;

use super::unchanged;

fn git(workspace: &Workspace, folder: &str, arguments: &[&str]) {
    let done = std::process::Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "safe.directory=*"])
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(workspace.at(folder))
        .output()
        .expect("git");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test]
async fn a_linked_worktree_with_a_submodule_is_worked_in_and_the_users_stays_as_it_was() {
    let workspace = Workspace::new();
    for name in ["library", "main"] {
        workspace.write(&format!("{name}/a"), "one\n");
        git(&workspace, name, &["init", "-q"]);
        git(&workspace, name, &["add", "-A"]);
        git(&workspace, name, &["commit", "-qm", "first"]);
    }
    git(&workspace, "main", &["submodule", "--quiet", "add", "../library", "sub"]);
    git(&workspace, "main", &["commit", "-qm", "with a submodule"]);
    git(&workspace, "main", &["worktree", "add", "-q", "../tree"]);
    git(&workspace, "tree", &["submodule", "--quiet", "update", "--init"]);
    // Made by the tester, so the worktree would be the tester's.
    workspace.hand_over();
    let before = unchanged(&workspace.at("main/.git"));
    for isolation in ["overlay", "copy"] {
        let script = "git status --porcelain; git branch --show-current; cd sub && echo two > a \
                      && git commit -qam 'in the submodule' && cd .. && git add sub \
                      && git commit -qm 'take it' && git log -1 --format=%s && git fsck 2>&1 | grep -c error; \
                      git stash list; git switch -qc topic && git branch -m renamed && git status --porcelain; echo end";
        let model = Model::start(Script::bash(script).then(Reply::say("Done."))).await;
        let product = Product::with_model(&model).await;
        let product = product.config(&format!("[workspace]\nisolation = \"{isolation}\"\n"));
        let run = ["--json", "--mode", "isolated", "--workspace", "tree", "go"];
        let report = product.run(&workspace, run).await.assert_status("completed");
        product.check_nothing_left().await;
        let seen = model.step(2).await.said_by("tool");
        assert!(seen.contains("tree\ntake it\n0\nend"), "{isolation}: {seen}");
        let commits = &report["changes"]["commits"];
        assert_eq!((&commits["count"], &commits["moved"]), (&json!(2), &json!(false)), "{report}");
        assert_eq!(report["changes"]["files"].as_array().map(Vec::len), Some(1), "{report}");
        assert!(unchanged(&workspace.at("main/.git")) == before, "{isolation}");
    }
}
