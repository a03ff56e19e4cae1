//! A workspace has the same path inside and outside, and the project around it is found upwards.

use std::process::Command;

use serde_json::json;

use crate::common::{Mcp, Model, Product, Script, Workspace};

/// A folder of the image that is no file system in memory.
const ELSEWHERE: &str = "/var/tmp";

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_true_on_both_sides() {
    let look =
        "pwd; ls; cat \"$PWD/kept.txt\"; touch made.txt; git log --format=%s; git commit -qam in";
    let product = Product::new().await;
    for (at, name, arguments) in [
        ("copy", "sw-", &["--mode", "direct"][..]),
        ("overlay", "sw, a b-", &["--mode", "direct"]),
        ("copy", "sw-gr\u{fc}n", &["--mode", "read-only"]),
    ] {
        let settings = format!("[workspace]\nisolation = \"{at}\"\n");
        let settings = if name.contains(',') { String::new() } else { settings };
        let product = &product;
        std::fs::create_dir_all(product.folder("config/sandbox-mcp")).expect("a folder");
        std::fs::write(product.folder("config/sandbox-mcp/config.toml"), settings).expect("set");
        let workspace = Workspace::named(ELSEWHERE, name);
        workspace.write("kept.txt", "kept\n");
        let git = |arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args(["-c", "safe.directory=*", "-c", "user.name=a", "-c", "user.email=a@b"]);
            let told = git.args(arguments).current_dir(workspace.path()).output().expect("git");
            String::from_utf8_lossy(&told.stdout).into_owned()
        };
        git(&["init", "-q", "-b", "main"]);
        git(&["add", "-A"]);
        git(&["commit", "-qm", "out"]);
        workspace.write("kept.txt", "kept, and changed\n");
        workspace.hand_over();
        let model = Model::start(Script::bash(look).then_say("Done.")).await;
        let url = model.url();
        let options = ["--json", "--model-url", &url];
        let run = product.run(&workspace, [&options[..], arguments, &["go"]].concat()).await;
        let report = run.assert_status("completed");
        let seen = model.step(2).await.said_by("tool");
        let own = workspace.path().to_str().expect("UTF-8");
        assert!(seen.lines().any(|line| line == own), "{own}: {seen}");
        assert!(seen.contains("kept, and changed") && seen.contains("out"), "{seen}");
        assert!(!report["remarks"].to_string().contains("own path"), "{report:#}");
        if !arguments.contains(&"read-only") {
            assert!(workspace.has("made.txt"), "{report:#}");
            assert_eq!(git(&["log", "-1", "--format=%s"]), "in\n", "{report:#}");
        }
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_the_sandbox_needs_is_another_one_inside() {
    let model = Model::start(Script::bash("pwd").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert!(report["remarks"].to_string().contains("/tmp is the sandbox's own"), "{report:#}");
    assert!(model.step(2).await.said_by("tool").contains("/workspace"));

    let model = Model::start(Script::bash("pwd").then_say("Done.")).await;
    let product = product.env("SANDBOX_MCP_MODEL_URL", &model.url());
    let product = product.config("[sandbox]\npath = \"/workspace\"\n");
    let workspace = Workspace::named(ELSEWHERE, "sw-");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    assert!(!report["remarks"].to_string().contains("own path"), "{report:#}");
    assert!(model.step(2).await.said_by("tool").contains("/workspace"));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_project_is_found_upwards() {
    let model = Model::start(Script::bash("pwd; ulimit -a >/dev/null").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let project = Workspace::named(ELSEWHERE, "sw-");
    project.write(".sandbox-mcp.toml", "[limits]\ntimeout = 77\n[env.set]\nA = \"b\"\n");
    project.write("src/deep/file", "");
    let deep = project.at("src/deep");
    let file = project.at(".sandbox-mcp.toml").display().to_string();

    // At a shell the project's folder is the workspace, unless another folder is named.
    let mut run = product.command(["run", "--json", "go"]);
    run.current_dir(&deep);
    let report = product.start(run).wait().await.assert_status("completed");
    let place = |folder: &std::path::Path| json!(folder.display().to_string());
    let at = |report: &serde_json::Value| {
        (report["workspace"]["path"].clone(), report["workspace"]["project"].clone())
    };
    assert_eq!(at(&report), (place(project.path()), json!(file)), "{report:#}");
    assert!(report["remarks"].to_string().contains("is not trusted"), "{report:#}");
    let mut run = product.command(["run", "--json", "--workspace", ".", "go"]);
    run.current_dir(&deep);
    let report = product.start(run).wait().await.assert_status("completed");
    assert_eq!(at(&report), (place(&deep), json!(file)), "never a wider one: {report:#}");
    product.check_nothing_left().await;

    // A host's folder is the workspace itself as well.
    let mut client = Mcp::start(&product, &project).await;
    let result = client.run(json!({"task": "go", "workspace": deep})).await;
    assert_eq!(at(&result["structuredContent"]), (place(&deep), json!(file)), "{result:#}");
    client.close().await.assert_code(0);

    // All commands agree on where it is.
    let call = async |arguments: &[&str]| {
        let mut command = product.command(arguments);
        command.current_dir(&deep);
        let mut running = product.start(command);
        running.close_stdin();
        running.wait().await
    };
    let trusted = call(&["trust", "--yes"]).await;
    trusted.assert_code(0);
    assert!(trusted.stdout.contains(&file), "{}", trusted.stdout);
    let policy = call(&["policy"]).await.stdout;
    assert!(policy.contains("A, from the configuration"), "{policy}");
    let view = policy.lines().find(|line| line.contains("a view of the workspace"));
    let own = project.path().to_str().expect("UTF-8");
    assert!(view.is_some_and(|line| line.split_whitespace().next() == Some(own)), "{policy}");
    let config = call(&["config"]).await;
    let line = config.stdout.lines().find(|line| line.contains("timeout") && line.contains("77"));
    assert!(line.is_some_and(|line| line.contains(".sandbox-mcp.toml")), "{}", config.stdout);
    let revoked = call(&["trust", "--revoke"]).await;
    assert!(revoked.stdout.contains("no longer trusted"), "{}", revoked.stdout);
}
