//! The model server's key works and is nowhere: not in the container, its settings or its image,
//! not in anything that we write or print.

use crate::common::model::Options;
use crate::common::workspace::walk;
use crate::common::{Answer, Gate, Model, Part, Product, Reply, Script, Workspace, engine};

const KEY: &str = "sk-CANARY-7d1f0e5b9c";

/// Finds the key and does not name it: the command itself is seen inside, too.
const HUNT: &str = r"
    mkdir -p loot
    env > loot/env.txt
    cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo > loot/proc.txt 2>/dev/null
    ls -laR /run /tmp /home > loot/list.txt 2>&1
    grep -rlaE 'sk-CANAR[Y]-' / --exclude-dir=proc --exclude-dir=sys > loot/files.txt 2>/dev/null
    wc -c loot/*
";

#[tokio::test(flavor = "multi_thread")]
async fn nowhere_inside_nor_in_what_we_write() {
    let gate = Gate::default();
    let options = Options { key: Some(KEY.into()), ..Options::default() };
    let script =
        Script::bash(HUNT).then(Answer::new([Part::Text("Nothing found.".into())]).behind(&gate));
    let model = Model::with(options, [("", script)]).await;
    let product =
        Product::with_model(&model).await.env("SANDBOX_MCP_API_KEY", KEY).env("RUST_LOG", "trace");
    let workspace = Workspace::new();

    let run = product.start_run(&workspace, ["-v", "--events", "hunt"]);
    model.step(2).await;
    let container = product.container_of(&run).await;
    let inspected = engine::inspect(&container);
    let image = inspected["Image"].as_str().expect("an image id").to_owned();
    let top = engine::docker(["top", &container, "-eo", "pid,args"]);
    let history = engine::docker(["history", "--no-trunc", &image]);
    let mut written = Vec::new();
    walk(&product.folder(""), &mut |path| {
        if path.is_file() && holds_key(&std::fs::read(path).unwrap_or_default()) {
            written.push(path.to_owned());
        }
    });
    gate.open();
    let run = run.wait().await;

    run.assert_status("completed");
    let used = model
        .steps()
        .iter()
        .all(|step| step.header("authorization") == Some(&format!("Bearer {KEY}")));
    assert!(used, "the relay adds the key");
    assert_eq!(workspace.read("loot/files.txt"), "", "files inside that hold the key");
    let loot = workspace.read("loot/env.txt").len()
        + std::fs::read(workspace.at("loot/proc.txt")).expect("loot").len();
    assert!(loot > 200, "the hunt looked at something");
    for name in workspace.names().iter().filter(|name| workspace.at(name).is_file()) {
        assert!(
            !holds_key(&std::fs::read(workspace.at(name)).expect("loot")),
            "{name} holds the key"
        );
    }
    assert_eq!(written, [] as [std::path::PathBuf; 0], "written by us during the run");
    for (what, text) in [
        ("docker inspect", &inspected.to_string()),
        ("docker top", &top),
        ("the image's history", &history),
        ("stdout", &run.stdout),
        ("stderr, with all logs on", &run.stderr),
    ] {
        assert!(!holds_key(text.as_bytes()), "{what} holds the key");
    }
    walk(&product.folder(""), &mut |path| {
        let holds = path.is_file() && holds_key(&std::fs::read(path).unwrap_or_default());
        assert!(!holds, "{} holds the key after the run", path.display());
    });
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn not_even_when_the_server_repeats_it() {
    let words = format!("Incorrect API key provided: {KEY}. You can find your key at the counter.");
    let model = Model::start(Script::new(Reply::error(401, &words))).await;
    let product = Product::with_model(&model).await.env("SANDBOX_MCP_API_KEY", KEY);
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--events", "anything"]).await;

    let report = run.assert_status("model_error");
    let message = report["error"]["message"].as_str().expect("a message");
    assert!(message.contains("Incorrect API key provided"), "{message}");
    assert!(!holds_key(run.stdout.as_bytes()) && !holds_key(run.stderr.as_bytes()), "{run:#?}");
    walk(&product.folder(""), &mut |path| {
        let holds = path.is_file() && holds_key(&std::fs::read(path).unwrap_or_default());
        assert!(!holds, "{} holds the key", path.display());
    });
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_put_together_from_the_pieces_of_an_answer() {
    let (half, rest) = KEY.split_at(KEY.len() / 2);
    let script = Script::bash(&format!("echo {KEY}")).then(Answer::new(
        ["It is ", half, rest, ", they say."].map(|words| Part::Text(words.into())),
    ));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await.env("SANDBOX_MCP_API_KEY", KEY);
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--events", "anything"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["answer"], "It is [api key], they say.");
    assert!(!holds_key(run.stdout.as_bytes()) && !holds_key(run.stderr.as_bytes()), "{run:#?}");
    walk(&product.folder(""), &mut |path| {
        let holds = path.is_file() && holds_key(&std::fs::read(path).unwrap_or_default());
        assert!(!holds, "{} holds the key", path.display());
    });
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_in_what_the_commands_print() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await.env("SANDBOX_MCP_API_KEY", KEY);
    for args in [
        &["config"][..],
        &["config", "--json"],
        &["policy", "--json"],
        &["doctor", "--json"],
        &["doctor"],
    ] {
        let told = product.call(args.iter().copied()).await;
        assert!(told.stdout.len() > 20, "{args:?}: {told:#?}");
        assert!(
            !holds_key(told.stdout.as_bytes()) && !holds_key(told.stderr.as_bytes()),
            "{args:?}: {told:#?}"
        );
    }
    product.check_nothing_left().await;
}

fn holds_key(bytes: &[u8]) -> bool {
    bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes())
}
