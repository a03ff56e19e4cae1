//! Secrets of the host, hunted from inside: in environments, arguments, mounts, files and in the
//! memory of every process that the agent may read; and from outside in what the engine tells.

use crate::common::model::Options;
use crate::common::{Answer, Gate, Model, Part, Product, Workspace, engine};
use crate::inside::{assert_lines, probes, told};

/// In two pieces, because the hunter must not find itself.
const HEAD: &str = "sk-CANARY-of-";
const TAIL: &str = "the-host-5f1c";

#[tokio::test(flavor = "multi_thread")]
async fn are_nowhere_inside() {
    let word = format!("{HEAD}{TAIL}");
    let gate = Gate::default();
    let options = Options { key: Some(word.clone()), ..Options::default() };
    let last = Answer::new([Part::Text("Hunted.".into())]).behind(&gate);
    let hunt = format!("python hunt.py {HEAD} {TAIL}");
    let model = Model::with(options, [("", probes(&hunt).then(last))]).await;
    let mut product = Product::with_model(&model).await.env("SANDBOX_MCP_API_KEY", &word);
    for name in [
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "SSH_AUTH_SOCK",
        "HTTPS_PROXY_PASSWORD",
        "OPENCODE_SERVER_PASSWORD",
        "LC_CANARY",
    ] {
        product = product.env(name, &format!("{name}={word}"));
    }
    let home = Workspace::new();
    let outside = tempfile::Builder::new().prefix("sc-").tempdir_in("/tmp").expect("a folder");
    for file in [outside.path().join("secret"), product.folder("home").join(".netrc")] {
        std::fs::write(file, &word).expect("a canary");
    }
    home.write("hunt.py", include_str!("inside/hunt.py"));
    home.write("planted.txt", &format!("a control: {word}"));

    let run = product.start_run(&home, ["--json", "--timeout", "120", "hunt"]);
    model.step(2).await;
    let container = product.container_of(&run).await;
    let inspected = engine::inspect(&container);
    let image = inspected["Image"].as_str().expect("an image").to_owned();
    let outside = [
        ("docker inspect", inspected.to_string()),
        ("the image's history", engine::docker(["history", "--no-trunc", &image])),
        ("the image", engine::inspect(&image).to_string()),
        ("docker top", engine::docker(["top", &container, "-eo", "pid,args"])),
        ("docker diff", engine::docker(["diff", &container])),
    ];
    gate.open();
    let run = run.wait().await;
    let report = run.assert_status("completed");

    for (place, text) in outside.iter().chain(&[("the report", report.to_string())]) {
        assert!(!text.contains(&word), "{place} holds the canary");
    }
    let key = format!("Bearer {word}");
    assert!(model.steps().iter().all(|step| step.header("authorization") == Some(&key)));
    let planted = "'environ of planted', 'file /workspace/planted.txt', 'memory of planted'";
    assert_lines(
        &told(&home),
        &format!("found [{planted}]\n looked at files True, processes True, memory True\n"),
    );
    product.check_nothing_left().await;
}
