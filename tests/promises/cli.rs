//! What the command line owes its user: exit codes that mean something, pipes, errors that name
//! the fix.

use crate::common::{Answer, Model, Part, Product, Reply, Script, Workspace};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn help_teaches_and_version_tells() {
    let product = Product::without_engine();
    let help = product.call(["--help"]).await;
    help.assert_code(0);
    for word in ["run", "serve", "doctor", "build", "versions", "policy", "config", "--config"] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    let help = product.call(["run", "--help"]).await;
    help.assert_code(0);
    for word in [
        "--workspace",
        "--mode",
        "--timeout",
        "--model-url",
        "--model",
        "--command",
        "--json",
        "--events",
        "direct",
        "read-only",
        "124",
        "130",
    ] {
        assert!(help.stdout.contains(word), "{word}: {}", help.stdout);
    }
    let version = product.call(["--version"]).await;
    version.assert_code(0);
    assert_eq!(version.stdout, format!("sandbox-mcp {}\n", env!("CARGO_PKG_VERSION")));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_are_two_and_name_the_fix() {
    let product = Product::without_engine();
    for (args, words) in [
        (&["no-such-command"][..], &["no-such-command"][..]),
        (&["run", "--no-such-flag", "x"], &["--no-such-flag"]),
        (&["run", "--mode", "sideways", "x"], &["sideways", "direct", "read-only"]),
        (&["run", "--timeout", "soon", "x"], &["--timeout", "soon"]),
        (&["run", "--workspace", "/no/such/folder", "x"], &["/no/such/folder"]),
        (&["run", "--workspace", "/", "x"], &["/"]),
        (&["run", "--workspace", "/etc", "x"], &["/etc"]),
        (&["run", "--command", "no-such-command", "x"], &["no-such-command"]),
        (&["run", ""], &["empty"]),
        (&["--config", "/no/such/file.toml", "config"], &["/no/such/file.toml"]),
    ] {
        let told = product.call(args.iter().copied()).await;
        assert_eq!(told.code, Some(2), "{args:?}: {told:#?}");
        assert_eq!(told.stdout, "", "{args:?}: errors go to stderr");
        for word in words {
            assert!(told.stderr.contains(word), "{args:?} does not name {word}: {}", told.stderr);
        }
        assert!(
            !told.stderr.contains("panicked") && !told.stderr.contains("RUST_BACKTRACE"),
            "{}",
            told.stderr
        );
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_folder_itself_is_no_workspace() {
    let product = Product::without_engine();
    let home = product.folder("home");
    let told = product.call(["run", "--workspace", home.to_str().expect("UTF-8"), "x"]).await;
    told.assert_code(2);
    assert!(told.stderr.contains("home"), "{}", told.stderr);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_and_a_dash_read_the_task() {
    let model = Model::start(Script::say("Heard.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    for (at, args) in [&["run"][..], &["run", "-"]].into_iter().enumerate() {
        let mut command = product.command(args);
        command.current_dir(workspace.path());
        let mut run = product.start(command);
        run.feed(b"a task through\na pipe\n").await;
        run.close_stdin();
        let run = run.wait().await;
        run.assert_code(0);
        assert_eq!(run.stdout, "Heard.\n", "the answer and nothing else");
        assert!(model.step(at + 1).await.said_by("user").contains("a task through\na pipe"));
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_as_argument_does_not_wait_for_an_open_stdin() {
    let model = Model::start(Script::say("Heard.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut command = product.command(["run", "a task"]);
    command.current_dir(workspace.path());
    let mut run = product.start(command);
    let input = run.stdin.take();
    let run = run.wait().await;
    drop(input);
    run.assert_code(0);
    assert_eq!(run.stdout, "Heard.\n");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_object_and_events_are_lines() {
    let model = Model::start(Script::bash("true").then_say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "x"]).await;
    run.assert_code(0);
    let report: Value = serde_json::from_str(&run.stdout).expect("one JSON document");
    for field in [
        "run_id",
        "status",
        "answer",
        "error",
        "workspace",
        "changes",
        "usage",
        "tools",
        "timing",
        "sandbox",
        "transcript",
    ] {
        assert!(report.get(field).is_some(), "{field} is missing: {report:#}");
    }
    assert_eq!(report["workspace"]["path"], workspace.path().to_str().expect("UTF-8"));
    assert_eq!(report["workspace"]["mode"], "direct");
    let transcript = report["transcript"].as_str().expect("a transcript");
    assert!(std::path::Path::new(transcript).starts_with(product.folder("state")), "{transcript}");
    let recorded = std::fs::read_to_string(transcript).expect("the transcript");
    assert!(recorded.lines().count() > 3 && recorded.contains("tool_started"), "{recorded}");

    let model = Model::start(Script::bash("true").then_say("Done.")).await;
    let run = product.run(&workspace, ["--events", "--model-url", &model.url(), "x"]).await;
    run.assert_code(0);
    let last: Value =
        serde_json::from_str(run.stdout.lines().last().expect("lines")).expect("JSON");
    assert_eq!(last["report"]["status"], "completed");
    assert!(run.events().len() > 3);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_says_what_and_what_next_and_leaves_stdout_to_the_answer() {
    let model = Model::start(Script::new(Reply::error(500, "CUDA out of memory"))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["x"]).await;
    run.assert_code(1);
    assert!(run.stderr.contains("CUDA out of memory"), "{}", run.stderr);
    assert_eq!(run.stdout.trim(), "");

    let cut = Answer::new([Part::Text("As I was say".into())]).finish("length");
    let model = Model::start(Script::new(cut)).await;
    let run = product.run(&workspace, ["--model-url", &model.url(), "x"]).await;
    run.assert_code(1);
    assert!(run.stdout.contains("As I was say"), "what there is of an answer is given: {run:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_server_is_an_error_that_lists_what_was_tried_within_seconds() {
    let product = Product::new().await;
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["x"]).await;
    if run.code == Some(0) {
        // A real model server runs on this machine; there is nothing to miss.
        return product.check_nothing_left().await;
    }
    run.assert_code(1);
    for port in ["8000", "1234", "11434", "52625", "8080"] {
        assert!(run.stderr.contains(port), "port {port} is not named: {}", run.stderr);
    }
    assert!(run.took < std::time::Duration::from_secs(10), "{:?}", run.took);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_engine_is_an_error_that_says_what_to_do() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "x"]).await;
    run.assert_code(1);
    let report = run.assert_status("sandbox_error");
    assert!(report["error"].to_string().contains("/no/such/docker.sock"), "{report:#}");
    assert!(report["error"]["hint"].is_string(), "{report:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_command_wraps_the_task() {
    let model = Model::start(Script::say("Looked.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let known = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.opencode/commands"))
        .expect("commands");
    let mut names: Vec<String> = known
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    let name = names.first().expect("there is a command");

    let run =
        product.run(&workspace, ["--json", "--command", name, "ARGUMENT-OF-THE-COMMAND"]).await;

    run.assert_status("completed");
    let heard = model.step(1).await.said_by("user");
    assert!(
        heard.len() > "ARGUMENT-OF-THE-COMMAND".len() + 50,
        "the command's own words are there: {heard}"
    );
    product.check_nothing_left().await;
}
