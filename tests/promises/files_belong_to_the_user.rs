//! What the agent makes belongs to the workspace's owner; nothing runs as root and nothing needs sudo
//! to be removed.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use std::path::Path;

use crate::common::workspace::walk;
use crate::common::{Model, Product, Script, Workspace, engine};

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

/// The caller's rights are the agent's: neither those of a folder's owner nor groups that are as good
/// as root, but the group of a shared folder.
#[tokio::test(flavor = "multi_thread")]
async fn the_agent_can_what_its_caller_can() {
    const SHARED: u32 = 54_321;
    const LOOK: &str = "id; cat theirs; cat ours";
    let Some(socket) = engine::host().and_then(|host| host.strip_prefix("unix://")) else {
        return crate::common::clients::skip("the engine has no socket of its own");
    };
    if !rustix::process::geteuid().is_root() {
        return crate::common::clients::skip("only root can be several users");
    }
    let script = Script::bash(&format!("{LOOK}; echo mine >made")).then_say("Done.");
    let script = script.then_bash(LOOK).then_say("Looked.").then_bash("id").then_say("Looked.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let docker = std::fs::metadata(socket).expect("a socket").gid();
    // Wherever the checkout is, this user may run the program and have its state.
    let program = product.folder("sandbox-mcp");
    std::fs::copy(env!("CARGO_BIN_EXE_sandbox-mcp"), &program).expect("copied");
    let house = program.parent().expect("a house");
    own(house, 4321, 4321);
    walk(house, &mut |path| own(path, 4321, 4321));
    let run = async |workspace: &Workspace, mode: &str| {
        let mut command = tokio::process::Command::new("setpriv");
        product.furnish(&mut command);
        let groups = format!("--groups={docker},{SHARED}");
        command.args(["--reuid=4321", "--regid=4321", &groups]).arg(&program);
        command.args(["run", "--json", "--mode", mode, "go"]).current_dir(workspace.path());
        product.start(command).wait().await.assert_status("completed");
        model.tool_results()
    };
    let workspace = Workspace::new();
    for (name, group, mode) in [("theirs", 4322, 0o600), ("ours", SHARED, 0o640)] {
        workspace.write(name, &format!("what {name} says\n"));
        let path = workspace.at(name);
        own(&path, 4322, group);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    }

    own(workspace.path(), 4321, SHARED);
    let groups = format!("groups=4321(agent),{SHARED}(workspace)");
    let may = |seen: &str| {
        assert!(seen.contains(&groups), "{seen}");
        assert!(seen.contains("what ours says") && !seen.contains("what theirs says"), "{seen}");
    };
    may(&run(&workspace, "direct").await);
    let made = workspace.at("made").metadata().expect("made");
    assert_eq!((made.uid(), made.gid()), (4321, 4321), "as if the caller had made it");
    std::fs::remove_file(workspace.at("made")).expect("removed");
    // A folder of another user can only be read, and not as that user.
    own(workspace.path(), 4322, SHARED);
    may(&run(&workspace, "read-only").await);
    own(workspace.path(), 4321, docker);
    let seen = run(&workspace, "read-only").await;
    assert!(seen.contains("groups=4321(agent)\n"), "{seen}");
    product.check_nothing_left().await;
}

fn own(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("chown");
}
