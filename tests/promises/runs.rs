//! Runs are on record, and a person, a script and a host can read it.

use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Answer, Finished, Gate, Model, Part, Product, Script, Workspace};

fn json_of(finished: &Finished) -> Value {
    finished.assert_code(0);
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
}

fn record(product: &Product, id: &str) -> PathBuf {
    product.folder("state").join("runs").join(id)
}

/// A record that no run of this version made.
fn put(product: &Product, id: &str, files: &[(&str, &str)]) {
    std::fs::create_dir_all(record(product, id)).expect("a folder");
    for (name, text) in files {
        std::fs::write(record(product, id).join(name), text).expect("a file");
    }
}

#[tokio::test]
async fn a_run_is_listed_shown_and_removed() {
    let script = "echo x > made.txt; curl -sS -m 5 https://api.example.com/; mkdir packages/.vscode && echo {} > packages/.vscode/tasks.json";
    let model = Model::start(Script::bash(script).then_say("All \u{1b}[31mdone.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    workspace.write("packages/kept.txt", "kept");
    let task = format!("make\na \u{1b}[31mfile {}", "and more ".repeat(40));
    let report = product.run(&workspace, ["--json", &task]).await.assert_status("completed");
    let id = report["run_id"].as_str().expect("an id");

    let listed = json_of(&product.call(["runs", "--json"]).await);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed:#}");
    let line = &listed[0];
    assert_eq!(line["run_id"], id);
    assert_eq!((&line["state"], &line["status"]), (&json!("ended"), &json!("completed")));
    assert_eq!((&line["mode"], &line["files_changed"]), (&json!("direct"), &json!(2)), "{line:#}");
    assert_eq!(line["workspace"], workspace.path().to_str().expect("utf-8"));
    let kept = line["task"].as_str().expect("a task");
    assert!(kept.starts_with("make a file and more") && kept.chars().count() == 200, "{kept}");
    let table = product.call(["runs", "list"]).await;
    table.assert_code(0);
    assert!(table.stdout.contains("make a file and more"), "{}", table.stdout);
    assert_eq!(table.stdout.lines().count(), 2, "{}", table.stdout);

    let shown = product.call(["runs", "show", "last"]).await;
    shown.assert_code(0);
    for words in [
        "completed in ",
        "added     made.txt",
        "api.example.com:443  0 allowed, 1 refused (not_allowed)",
        "1 change left for a decision",
        "All done.",
    ] {
        assert!(shown.stdout.contains(words), "{words} in {}", shown.stdout);
    }
    assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    let whole = json_of(&product.call(["runs", "show", id, "--json"]).await);
    assert_eq!(whole["state"], "ended");
    for (key, value) in report.as_object().expect("an object") {
        assert_eq!(&whole[key], value, "{key}");
    }

    let events = product.call(["runs", "events", id, "--json"]).await;
    let first: Value =
        serde_json::from_str(events.stdout.lines().next().expect("lines")).expect("an event");
    assert_eq!(first["seq"], 1);
    let told = product.call(["runs", "events", &id[..id.len() - 1]]).await;
    assert!(told.stdout.contains("✓ bash") && told.stdout.contains("» All done."), "{told:#?}");
    assert_eq!(told.stdout.lines().count(), events.stdout.lines().count());
    let followed = product.call(["runs", "follow", "last"]).await;
    followed.assert_code(0);
    assert!(followed.stdout.starts_with(&told.stdout), "{}", followed.stdout);
    product.call(["runs", "log", id]).await.assert_code(0);

    let gone = product.call(["runs", "rm", id, "last"]).await;
    gone.assert_code(0);
    assert_eq!(gone.stdout, format!("removed {id}\n"));
    assert!(!record(&product, id).exists());
    let none = product.call(["runs", "show", "last"]).await;
    none.assert_code(2);
    assert!(none.stderr.contains("there is no run on record in "), "{}", none.stderr);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_run_is_followed_while_it_goes_on_and_cannot_be_removed() {
    let gate = Gate::default();
    let last = Answer::new([Part::Text("Done.".into())]).behind(&gate);
    let model = Model::start(Script::bash("true").then(last)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    let reader = product.start(product.command(["runs", "follow", "last"]));
    reader.stdout.says("✓ bash").await;
    let listed = json_of(&product.call(["runs", "--json"]).await);
    assert_eq!((&listed[0]["state"], &listed[0]["status"]), (&json!("running"), &Value::Null));
    assert_eq!((&listed[0]["task"], &listed[0]["mode"]), (&json!("go"), &json!("direct")));
    let refused = product.call(["runs", "rm", "last"]).await;
    refused.assert_code(1);
    assert!(refused.stderr.contains("goes on; nothing was removed"), "{}", refused.stderr);
    let shown = product.call(["runs", "show", "last"]).await;
    assert!(shown.stdout.contains("It goes on: sandbox-mcp runs follow "), "{}", shown.stdout);
    let removed = json_of(&product.call(["runs", "gc", "--json"]).await);
    assert_eq!(removed["removed"], json!([]));

    gate.open();
    run.wait().await.assert_status("completed");
    let followed = reader.wait().await;
    followed.assert_code(0);
    assert!(followed.stdout.contains("» Done."), "{}", followed.stdout);
    assert!(followed.stdout.ends_with(" · completed\n"), "{}", followed.stdout);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_run_whose_process_was_killed_is_told_from_one_that_goes_on() {
    let gate = Gate::default();
    let last = Answer::new([Part::Text("Done.".into())]).behind(&gate);
    let model = Model::start(Script::bash("true").then(last)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    let reader = product.start(product.command(["runs", "follow", "last"]));
    reader.stdout.says("✓ bash").await;
    run.signal(Signal::KILL);
    run.wait().await;
    let followed = reader.wait().await;
    followed.assert_code(1);
    assert!(followed.stderr.contains(" died: "), "{}", followed.stderr);
    let listed = json_of(&product.call(["runs", "--json"]).await);
    assert_eq!(listed[0]["state"], "died", "{listed:#}");
    let id = listed[0]["run_id"].as_str().expect("an id");
    product.call(["runs", "rm", id]).await.assert_code(0);
    assert!(!record(&product, id).exists());
    // What the dead process left is removed by the next start, as ever.
    gate.open();
    let next = Model::start(Script::say("Next.")).await;
    let args = ["--json", "--model-url", &next.url(), "go on"];
    product.run(&workspace, args).await.assert_status("completed");
    product.check_nothing_left().await;
}

#[tokio::test]
async fn unknown_runs_are_bad_usage_and_say_what_there_is() {
    let product = Product::without_engine();
    let ids = ["20260101-000000-aaaa", "20260101-000000-aabb"];
    for id in ids {
        put(&product, id, &[("run.json", "{\"status\":\"completed\"}")]);
    }
    std::fs::write(product.folder("state").join("secret.json"), "{}").expect("a file");
    for command in ["show", "follow", "events", "log", "rm"] {
        for word in ["20260102", "2026", "", "../../state", "..", "x\u{1b}[31m"] {
            let refused = product.call(["runs", command, word]).await;
            refused.assert_code(2);
            assert!(ids.iter().all(|id| refused.stderr.contains(id)), "{}", refused.stderr);
            assert!(refused.stdout.is_empty() && !refused.stderr.contains('\u{1b}'));
        }
    }
    product.call(["runs", "rm", ids[0], "20260102"]).await.assert_code(2);
    assert!(ids.iter().all(|id| record(&product, id).exists()), "all or none");
    product.call(["egress", "learn", "2026"]).await.assert_code(2);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn records_of_other_versions_and_broken_ones_are_read() {
    let product = Product::without_engine();
    let later = json!({
        "status": "reached_the_moon", "answer": "there\u{1b}[31m", "workspace": { "path": "/x" },
        "changes": { "files": [{ "path": "y", "change": "renamed" }] }, "distance": { "km": 384_400 },
    });
    put(&product, "20260103-000000-late", &[("run.json", &later.to_string()), ("owner", "?")]);
    put(&product, "20260102-000000-torn", &[("run.json", "{\"sta")]);
    let cut = "{\"seq\":1,\"at_ms\":5,\"event\":{\"type\":\"flew\"}}\n{\"se";
    put(&product, "20260101-000000-dead", &[("events.jsonl", cut)]);
    let listed = json_of(&product.call(["runs", "--json"]).await);
    let states: Vec<_> =
        listed.as_array().expect("a list").iter().map(|run| &run["state"]).collect();
    assert_eq!(states, ["ended", "ended", "died"], "{listed:#}");
    let shown = product.call(["runs", "show", "last"]).await;
    shown.assert_code(0);
    assert!(shown.stdout.contains("reached the moon"), "{}", shown.stdout);
    assert!(shown.stdout.contains("renamed   y") && !shown.stdout.contains('\u{1b}'));
    let whole = json_of(&product.call(["runs", "show", "last", "--json"]).await);
    assert_eq!(whole["distance"], later["distance"], "kept as it is");
    let torn = product.call(["runs", "show", "20260102"]).await;
    torn.assert_code(1);
    assert!(torn.stderr.contains("run.json"), "{}", torn.stderr);
    let events = product.call(["runs", "events", "20260101"]).await;
    assert!(events.stdout.ends_with("(flew)\n"), "{}", events.stdout);

    let kept = product.config("[history]\nkeep = 1\nmax_age_days = 36500\n");
    let removed = json_of(&kept.call(["runs", "gc", "--json"]).await);
    assert_eq!(removed["removed"], json!(["20260102-000000-torn", "20260101-000000-dead"]));
    kept.check_nothing_left().await;
}

#[tokio::test]
async fn who_stops_reading_is_not_complained_to() {
    let product = Product::without_engine();
    let log = "a line\n".repeat(1 << 17);
    let files = [("run.json", "{}"), ("agent.log", log.as_str())];
    put(&product, "20260101-000000-aaaa", &files);
    let mut command = product.command(["runs", "log", "last"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().await.expect("it ends");
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    assert_eq!(ended.status.code(), Some(0));
}
