//! Floods are carried off: the run ends as it would have, and our memory stays bounded.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

/// The most memory that a process ever had, in MiB; none once it is gone.
fn peak_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Watches the processes that own this house's runs, and then gives the most memory of any of them.
fn watch_owners(product: &Product) -> impl FnOnce() -> u64 + use<> {
    let runs = product.folder("state").join("runs");
    let owners = move || -> Vec<u32> {
        let records = std::fs::read_dir(&runs).into_iter().flatten().flatten();
        let pid = |owner: String| owner.split('.').next()?.parse().ok();
        let owner = |record: std::fs::DirEntry| {
            std::fs::read_to_string(record.path().join("owner")).ok().and_then(pid)
        };
        records.filter_map(owner).collect()
    };
    let (going, ended) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let mut peak = None;
        while ended.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
            peak = peak.max(owners().into_iter().filter_map(peak_memory).max());
        }
        peak
    });
    move || {
        drop(going);
        thread.join().expect("no panic").expect("an owner of a run was seen")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_never_shuts_up() {
    // 200 MB on stdout and as much on stderr of one command.
    let flood = "yes stdout | head -c 200000000; yes stderr | head -c 200000000 >&2; echo; echo that was all";
    let model = Model::start(Script::bash(flood).then_say("Survived.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;

    let owners = watch_owners(&product);
    let result = client.run(json!({"task": "flood", "timeout": 100})).await;

    assert_eq!(result["structuredContent"]["answer"], "Survived.", "{result:#}");
    let peak = peak_memory(client.server.pid).expect("the server runs").max(owners());
    assert!(peak < 200, "{peak} MiB");
    client.ping().await;
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

/// Runs a task that the model answers with `count` times 63 kB; gives the result and our peak memory.
async fn wordy(count: usize) -> (Value, u64) {
    let words = "all work and no play ".repeat(3000);
    let parts = std::iter::repeat_with(|| Part::Text(words.clone())).take(count);
    let model = Model::start(Script::new(Reply::parts(parts))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let owners = watch_owners(&product);
    let result = client.run(json!({"task": "flood", "timeout": 100})).await;
    let peak = peak_memory(client.server.pid).expect("the server runs").max(owners());
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
    let content = &result["structuredContent"];
    assert!(content.to_string().len() <= 8 << 10, "{} bytes", content.to_string().len());
    (content.clone(), peak)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_much_to_say_is_heard_to_its_end() {
    // 1.3 MB: OpenCode drops what a pipe does not take at once when it exits.
    let (content, peak) = wordy(20).await;
    assert_eq!(content["status"], "completed", "{content:#}");
    assert!(content["answer"].as_str().is_some_and(|text| text.starts_with("all work")));
    assert!(peak < 200, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_never_shuts_up_is_borne() {
    // 25 MB in one answer, through the relay and the agent and out of the container.
    let (content, peak) = wordy(400).await;
    let status = content["status"].as_str().expect("a status");
    // However much of it is kept: that there was an answer is not denied.
    assert!(["completed", "truncated", "failed"].contains(&status), "{content:#}");
    assert!(peak < 300, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_does_not_read() {
    // Progress that nobody takes must not stop the run: the file appears although stdout is full.
    let gate = Gate::default();
    let step = |at: usize| {
        let words = format!("step {at}: {}", "words ".repeat(4000));
        let call = json!({"command": format!("echo {at}"), "description": "Says a number"});
        Answer::new([Part::Text(words), Part::Call { name: "bash".into(), args: call }])
    };
    // Ten times 24 kB of events: a pipe holds 64.
    let script = (1..10).fold(Script::new(step(0)), |script, at| script.then(step(at)));
    let script = script
        .then_bash("echo made > made.txt")
        .then(Answer::new([Part::Text("Made.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sandbox-mcp"));
    crate::common::product::isolate(&product.folder(""), |key, value| {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    });
    command.env("SANDBOX_MCP_MODEL_URL", model.url()).current_dir(workspace.path());
    command.args(["run", "--events", "make it"]);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    product.leftovers().watch(child.id());

    product.made("made.txt").await;
    gate.open();
    let out = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut said = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
        (child.wait().expect("our child"), said)
    });
    let (status, said) = out.await.expect("no panic");
    assert!(status.success(), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.contains("\"report\"")), "{said}");
    product.check_nothing_left().await;
}
