//! What the agent makes belongs to the workspace's owner; nothing runs as root and nothing needs sudo
//! to be removed.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::common::{Model, Product, Script, Workspace};

const MAKE: &str = "id; echo x > made.txt; mkdir -p deep/er; echo y > deep/er/too.txt; printf '#!/bin/sh\\n' > run.sh; chmod +x run.sh; ln -s made.txt link";

/// Runs [`MAKE`] in the workspace and asserts that all of it belongs to `uid:gid`.
async fn made_as(workspace: &Workspace, uid: u32, gid: u32) {
    let model = Model::start(Script::bash(MAKE).then_say("Made.")).await;
    let product = Product::with_model(&model).await;

    let run = product.run(workspace, ["--json", "make files"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["sandbox"]["user"], format!("{uid}:{gid}"));
    let seen = model.tool_results();
    assert!(seen.contains(&format!("uid={uid}")) && seen.contains(&format!("gid={gid}")), "{seen}");
    assert!(!seen.contains("cannot find name"), "the user has a name inside: {seen}");
    let names = workspace.names();
    assert_eq!(names, ["deep", "deep/er", "deep/er/too.txt", "link", "made.txt", "run.sh"]);
    for name in names {
        let meta = workspace.at(&name).symlink_metadata().expect("it is there");
        assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{name}");
    }
    let mode =
        |name: &str| workspace.at(name).metadata().expect("there").permissions().mode() & 0o7777;
    // As if the caller had made them: by its own umask.
    let umask = crate::common::workspace::umask();
    assert_eq!(format!("{:o}", mode("made.txt")), format!("{:o}", 0o666 & !umask));
    assert_eq!(format!("{:o}", mode("run.sh")), format!("{:o}", 0o777 & !umask));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_belong_to_the_workspaces_owner() {
    let workspace = Workspace::new();
    let (uid, gid) = workspace.owner();
    made_as(&workspace, uid, gid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_that_is() {
    if !rustix::process::geteuid().is_root() {
        crate::common::clients::skip("only root can make a workspace for somebody else");
        return;
    }
    let workspace = Workspace::new();
    chown(workspace.path(), Some(4321), Some(8765)).expect("chown");
    made_as(&workspace, 4321, 8765).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn never_to_root() {
    if !rustix::process::geteuid().is_root() {
        crate::common::clients::skip("only root owns a workspace of root's");
        return;
    }
    let model = Model::start(Script::bash("id -u").then_say("Looked.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    chown(workspace.path(), Some(0), Some(0)).expect("chown");

    let run = product.run(&workspace, ["--json", "who are you?"]).await;
    assert_eq!(run.code.map(|code| code == 0), Some(false), "root's folder was written to");
    let told = format!("{}{}", run.stdout, run.stderr);
    assert!(told.contains("root") && told.contains("chown"), "it says why and the way out: {told}");
    assert_eq!(model.steps().len(), 0);

    let run = product.run(&workspace, ["--json", "--mode", "read-only", "who are you?"]).await;
    let user =
        run.assert_status("completed")["sandbox"]["user"].as_str().expect("a user").to_owned();
    assert!(!user.starts_with("0:") && !user.ends_with(":0"), "{user}");
    let seen = model.tool_results();
    assert!(!seen.is_empty() && !seen.lines().any(|line| line.trim() == "0"), "{seen}");
    product.check_nothing_left().await;
}
