//! A direct run writes into a view, and what needs nobody's yes is
//! applied when it ended well.

use crate::common::{Answer, Gate, Model, Part, Product, Script, Workspace, engine};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_gets_the_changes_at_the_end_but_for_what_needs_a_yes() {
    let gate = Gate::default();
    let work =
        "echo more >>old.txt; mkdir .vscode new; echo '{}' >.vscode/tasks.json; echo n >new/file";
    let script = Script::bash(work).then(Answer::new([Part::Text("Done.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("old.txt", "old\n");
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    // The work is done inside, and another program writes here meanwhile.
    assert_eq!(workspace.names(), ["old.txt"]);
    workspace.write(".vscode/settings.json", "the user's\n");
    gate.open();

    let report = run.wait().await.assert_status("completed");
    assert_eq!(workspace.read("old.txt"), "old\nmore\n");
    assert_eq!(workspace.read("new/file"), "n\n");
    assert_eq!(workspace.read(".vscode/settings.json"), "the user's\n");
    assert!(!workspace.at(".vscode/tasks.json").exists());
    let pending = &report["changes"]["pending"];
    assert_eq!(pending["protected"], 1, "{report:#}");
    assert!(pending["files"].to_string().contains(".vscode/tasks.json"), "{report:#}");
    assert!(report["remarks"].to_string().contains("--allow-protected"), "{report:#}");
    let applied = product.call(["apply", "last", "--allow-protected"]).await;
    applied.assert_code(0);
    assert_eq!(workspace.read(".vscode/tasks.json"), "{}\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_end_well_waits() {
    let model = Model::start(Script::bash("echo made >made.txt").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--verify", "exit 1", "go"]).await;
    let report = run.assert_status("completed");
    assert_eq!(report["changes"]["applied"], json!(false), "{report:#}");
    assert_eq!(workspace.names(), [] as [&str; 0]);
    assert!(report["remarks"].to_string().contains("`verify` did not pass"), "{report:#}");
    product.call(["apply", "last"]).await.assert_code(0);
    assert_eq!(workspace.read("made.txt"), "made\n");
    product.call(["undo", "last"]).await.assert_code(0);
    assert_eq!(workspace.names(), [] as [&str; 0]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_work_in_one_folder_at_once() {
    let gate = Gate::default();
    let script = |name: &str| {
        let done = Answer::new([Part::Text("Done.".into())]).behind(&gate);
        Script::bash(&format!("echo {name} >{name}.txt; echo {name} >both.txt")).then(done)
    };
    let models = [Model::start(script("one")).await, Model::start(script("two")).await];
    let product = Product::with_model(&models[0]).await.config("[limits]\nconcurrency = 2\n");
    let workspace = Workspace::new();
    let mut runs = Vec::new();
    for model in &models {
        let url = model.url();
        runs.push(product.start_run(&workspace, ["--json", "--model-url", &url, "go"]));
        model.step(2).await;
    }
    gate.open();
    let mut pending = 0;
    for run in runs {
        let report = run.wait().await.assert_status("completed");
        pending += report["changes"]["pending"]["count"].as_u64().unwrap_or(0);
    }
    assert_eq!(pending, 1, "both made one file, and one of them waits");
    assert_eq!(workspace.names(), ["both.txt", "one.txt", "two.txt"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_decide_when_changes_are_applied_by_themselves() {
    let made = "mkdir -p .vscode; echo '{}' >.vscode/tasks.json; echo 1 >made.txt";
    let model = Model::start(Script::bash(made).then_say("Done.")).await;
    let product = Product::with_model(&model).await.config("[workspace]\npartial = false\n");
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let pending = &report["changes"]["pending"];
    assert_eq!((&pending["protected"], &pending["applied"]), (&json!(1), &json!(0)), "{report:#}");
    assert_eq!(workspace.names(), [] as [&str; 0]);
    product.check_nothing_left().await;

    // An answer that was cut at the model's limit.
    let cut = Answer::new([Part::Text("and".into())]).finish("length");
    let model = Model::start(Script::bash("echo 1 >made.txt").then(cut)).await;
    let settings = "[agent]\ncontinue = 0\n[workspace]\napply_on = [\"truncated\"]\n";
    let product = product.config(settings).env("SANDBOX_MCP_MODEL_URL", &model.url());
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("truncated");
    assert_eq!(report["changes"]["applied"], true, "{report:#}");
    assert_eq!(workspace.names(), ["made.txt"]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_a_terminal_is_asked_about_what_waits() {
    let made = "mkdir -p .vscode; echo '{}' >.vscode/tasks.json; echo 1 >made.txt";
    let product = Product::new().await;
    let workspace = Workspace::new();
    for (answers, expected) in [
        (&["n"][..], &[][..]),
        (&["y", ""], &["made.txt"]),
        (&["y", "y"], &[".vscode", ".vscode/tasks.json", "made.txt"]),
    ] {
        let model = Model::start(Script::bash(made).then_say("Done.")).await;
        let mut command = tokio::process::Command::new("script");
        product.furnish(&mut command);
        command.env("SANDBOX_MCP_MODEL_URL", model.url());
        let line = format!("{} run --verify 'exit 1' go", env!("CARGO_BIN_EXE_sandbox-mcp"));
        command.args(["-qec", &line, "/dev/null"]).current_dir(workspace.path());
        let mut run = product.start(command);
        for (answer, question) in answers.iter().zip(["apply now? [y/N]", "apply them too? [y/N]"])
        {
            run.stdout.says(question).await;
            run.feed(format!("{answer}\n").as_bytes()).await;
        }
        let run = run.wait().await;
        run.assert_code(1);
        assert_eq!(workspace.names(), expected, "{}", run.stdout);
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_happens_in_the_folder_before_the_agent_has_ended() {
    let work = "echo more >>old.txt; rm gone.txt; mkdir -p deep/new .vscode; echo n >deep/new/file; \
                mv deep/a deep/b; git init -q; git add -A; git commit -qm x; chmod 700 deep; touch old.txt";
    for isolation in ["copy", "overlay"] {
        let gate = Gate::default();
        let done = Answer::new([Part::Text("Done.".into())]).behind(&gate);
        let model = Model::start(Script::bash(work).then(done)).await;
        let settings = format!("[workspace]\nisolation = \"{isolation}\"\n");
        let product = Product::with_model(&model).await.config(&settings);
        let workspace = Workspace::new();
        for name in ["old.txt", "gone.txt", "deep/a"] {
            workspace.write(name, "old\n");
        }
        workspace.hand_over();
        let events = inotify::init(CreateFlags::NONBLOCK).expect("inotify");
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE;
        for folder in [workspace.path().to_owned(), workspace.at("deep")] {
            inotify::add_watch(&events, &folder, changes).expect("watched");
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&events, &mut buffer);

        let run = product.start_run(&workspace, ["--json", "go"]);
        model.step(2).await;
        let seen = reader.next();
        assert!(matches!(seen, Err(rustix::io::Errno::WOULDBLOCK)), "{isolation}: {seen:?}");
        gate.open();
        run.wait().await.assert_status("completed");
        assert!(reader.next().is_ok(), "it would have been seen");
        assert_eq!(workspace.read("old.txt"), "old\nmore\n");
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_container_has_mounted_is_named() {
    let script = Script::bash("echo new >settings.conf; echo new >other.conf").then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("settings.conf", "old\n");
    workspace.write("other.conf", "old\n");
    let run = product.run(&workspace, ["--json", "--mode", "isolated", "go"]).await;
    let report = run.assert_status("completed");
    let image = report["sandbox"]["image"].as_str().expect("an image");
    let mount = format!("{}:/settings.conf:ro", workspace.at("settings.conf").display());
    let id = engine::docker([
        "run",
        "-d",
        "--network",
        "none",
        "--entrypoint",
        "/bin/sleep",
        "-v",
        &mount,
        image,
        "60",
    ]);
    let applied = product.call(["apply", "last"]).await;
    let seen = engine::docker(["exec", id.trim(), "cat", "/settings.conf"]);
    engine::docker(["rm", "-f", id.trim()]);
    applied.assert_code(0);
    assert!(applied.stdout.contains("mounted   settings.conf"), "{applied:?}");
    assert!(!applied.stdout.contains("mounted   other.conf"), "{applied:?}");
    assert_eq!((seen.as_str(), workspace.read("settings.conf").as_str()), ("old\n", "new\n"));
    product.check_nothing_left().await;
}
