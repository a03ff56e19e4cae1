//! However a run ends, its result is kept and nothing of ours stays.

use serde_json::Value;

use super::{content, lines, manifest, no_layers, picture, record};
use crate::common::{Answer, Gate, Model, Part, Product, Reply, Script, Workspace, engine};

async fn held(script: &str, gate: &Gate) -> Model {
    let held = Answer::new([Part::Text("Never.".into())]).behind(gate);
    Model::start(Script::bash(script).then(held)).await
}

const WORK: &str = "echo work >new.txt; echo more >>old.txt";

fn furnished() -> Workspace {
    let workspace = Workspace::new();
    workspace.write("old.txt", "old\n");
    workspace
}

/// Asserts that what [`WORK`] changed is on record.
fn assert_kept(product: &Product, report: &Value) {
    let manifest = manifest(product, report);
    assert_eq!(manifest["complete"], true, "{manifest:#}");
    assert_eq!(content(product, report, "new.txt"), b"work\n");
    assert_eq!(content(product, report, "old.txt"), b"old\nmore\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_and_one_out_of_time_keep_what_they_did() {
    for view in engine::views() {
        let config = format!("[workspace]\nisolation = \"{view}\"\n");
        let workspace = furnished();
        let before = picture(workspace.path());
        let gate = Gate::default();
        let model = held(WORK, &gate).await;
        let product = Product::with_model(&model).await.config(&config);
        let run = product.start_run(&workspace, ["--json", "--mode", "isolated", "go"]);
        model.step(2).await;
        run.signal(rustix::process::Signal::INT);
        let report = run.wait().await.assert_status("cancelled");
        assert_kept(&product, &report);
        product.check_nothing_left().await;

        let gate = Gate::default();
        let slow = held(WORK, &gate).await;
        let url = slow.url();
        let args = ["--json", "--mode", "isolated", "--timeout", "25", "--model-url", &url, "go"];
        let report = product.run(&workspace, args).await.assert_status("timed_out");
        assert_kept(&product, &report);
        assert_eq!(lines(&report), ["new.txt: added", "old.txt: modified"]);
        product.check_nothing_left().await;
        no_layers(&product);
        assert_eq!(picture(workspace.path()), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fills_its_view_is_stopped() {
    for view in ["overlay", "copy"] {
        for (limits, script, word) in [
            ("disk = \"64m\"", "head -c 300M /dev/zero >big; sleep 60", "MiB"),
            ("files = 200", "for i in $(seq 1 3000); do : >f$i; done; sleep 60", "files"),
        ] {
            let workspace = furnished();
            let before = picture(workspace.path());
            let model = Model::start(Script::bash(script).then(Reply::say("Done."))).await;
            let config = format!("[limits]\n{limits}\n[workspace]\nisolation = \"{view}\"\n");
            let product = Product::with_model(&model).await.config(&config);
            let finished = product.run(&workspace, ["--json", "--mode", "isolated", "go"]).await;
            let report = finished.assert_status("budget_exhausted");
            assert_eq!(report["error"]["kind"], "workspace_growth");
            assert!(report["error"]["message"].to_string().contains(word), "{report:#}");
            assert!(report["timing"]["total_ms"].as_u64() < Some(45_000), "{report:#}");
            // What is more than is kept is named, and not taken for the whole of it.
            let manifest = manifest(&product, &report);
            let count = manifest["changes"].as_array().expect("changes").len();
            let named = manifest["skipped"].as_array().expect("what is left out").len();
            assert!(count + named > 0 || manifest["complete"] == false, "{manifest:#}");
            let shown = report["changes"]["files"].as_array().expect("files").len();
            let whole = manifest["complete"] == true && named == 0 && shown == count;
            assert_eq!(report["changes"]["truncated"], !whole, "{count} {shown}");
            assert_eq!(picture(workspace.path()), before);
            product.check_nothing_left().await;
            no_layers(&product);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fills_deleted_files_is_stopped() {
    let fill = "exec 3>a 4>b 5>c; rm a b c; head -c 300M /dev/zero >&3; echo cut: $?; \
                head -c 40M /dev/zero >&4; head -c 40M /dev/zero >&5; sleep 60";
    for view in ["overlay", "copy"] {
        let workspace = furnished();
        let model = Model::start(Script::bash(fill).then(Reply::say("Done."))).await;
        let config = format!("[limits]\ndisk = \"64m\"\n[workspace]\nisolation = \"{view}\"\n");
        let product = Product::with_model(&model).await.config(&config);
        let run = product.run(&workspace, ["--json", "--mode", "isolated", "go"]).await;
        let report = run.assert_status("budget_exhausted");
        assert_eq!(report["error"]["kind"], "workspace_growth");
        // It was seen as such, and not by chance by the watch over the folder.
        let message = report["error"]["message"].as_str().expect("a message");
        assert!(message.contains("deleted files"), "{message}");
        assert!(report["timing"]["total_ms"].as_u64() < Some(45_000), "{report:#}");
        product.check_nothing_left().await;
        no_layers(&product);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_did_is_kept_by_the_next() {
    for config in ["overlay", "copy"].map(|view| format!("[workspace]\nisolation = \"{view}\"\n")) {
        let workspace = furnished();
        let before = picture(workspace.path());
        let gate = Gate::default();
        // As editors and `sed -i` write: other files take the names.
        let replacing = "{ cat old.txt; echo more; } >new && mv new old.txt; echo work >new.txt";
        let model = held(replacing, &gate).await;
        let product = Product::with_model(&model).await.config(&config);
        let run = product.start_run(&workspace, ["--json", "--mode", "isolated", "go"]);
        model.step(2).await;
        run.signal(rustix::process::Signal::KILL);
        run.wait().await;
        let runs = product.folder("state").join("runs");
        let id = std::fs::read_dir(runs).expect("runs").flatten().next().expect("one").file_name();
        let dead = serde_json::json!({ "run_id": id.to_str().expect("an id") });
        assert!(!record(&product, &dead).join("changes.json").exists());

        let next = Model::start(Script::say("Next.")).await;
        let args = ["--json", "--mode", "isolated", "--model-url", &next.url(), "go"];
        let report = product.run(&workspace, args).await.assert_status("completed");
        let remarks = report["remarks"].to_string();
        assert!(remarks.contains("was killed while it worked in a view"), "{remarks}");
        assert_kept(&product, &dead);
        product.check_nothing_left().await;
        no_layers(&product);
        assert_eq!(picture(workspace.path()), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_overlay_can_be_had_the_workspace_is_copied_and_that_is_said() {
    let outer = Workspace::new();
    outer.write("a:b, c/old.txt", "old\n");
    // A smaller folder is copied anyway.
    for number in 0..900 {
        outer.write(&format!("a:b, c/many/{number}"), "");
    }
    let folder = outer.at("a:b, c").display().to_string();
    let before = picture(outer.path());
    let model = Model::start(Script::bash(WORK).then(Reply::say("Done."))).await;
    let product = Product::with_model(&model).await;
    let args = ["--json", "--mode", "isolated", "--workspace", &folder, "go"];
    let report = product.run(&outer, args).await.assert_status("completed");
    let view = report["workspace"]["view"].as_str().expect("a view");
    assert!(["copy", "reflink"].contains(&view), "{view}");
    assert!(report["remarks"].to_string().contains("so it was copied"), "{report:#}");
    assert_kept(&product, &report);
    assert_eq!(picture(outer.path()), before);

    // Where it must be an overlay, that is an error.
    let refused = product.config("[workspace]\nisolation = \"overlay\"\n");
    let report = refused.run(&outer, args).await.assert_status("sandbox_error");
    assert_eq!(report["error"]["kind"], "workspace", "{report:#}");
    refused.check_nothing_left().await;
    no_layers(&refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_is_too_large_to_copy_is_refused() {
    let workspace = furnished();
    for name in ["a", "b", "c"] {
        workspace.write(name, &"x".repeat(700 << 10));
    }
    let model = Model::start(Script::say("Never.")).await;
    let config = "[limits]\ndisk = \"2m\"\n[workspace]\nisolation = \"copy\"\n";
    let product = Product::with_model(&model).await.config(config);
    let args = ["--json", "--mode", "isolated", "go"];
    let report = product.run(&workspace, args).await.assert_status("sandbox_error");
    let error = report["error"].to_string();
    assert!(error.contains("limits.disk") && error.contains("more than 2 MiB"), "{error}");
    product.check_nothing_left().await;
    no_layers(&product);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_record_there_is_no_result_and_that_is_said() {
    let workspace = furnished();
    let before = picture(workspace.path());
    let gate = Gate::default();
    let model = held(WORK, &gate).await;
    let product = Product::with_model(&model).await;
    let run = product.start_run(&workspace, ["--json", "--mode", "isolated", "go"]);
    model.step(2).await;
    let runs = product.folder("state").join("runs");
    std::fs::remove_dir_all(&runs).expect("removed");
    run.signal(rustix::process::Signal::INT);
    let report = run.wait().await.assert_status("cancelled");
    assert!(report["remarks"].to_string().contains("record was removed"), "{report:#}");
    assert_eq!(report["changes"]["truncated"], true);
    product.check_nothing_left().await;
    no_layers(&product);

    // Where there can be none from the beginning, nobody works for nothing.
    std::fs::write(&runs, "in the way").expect("written");
    let never = Model::start(Script::say("Never.")).await;
    let args = ["--json", "--mode", "isolated", "--model-url", &never.url(), "go"];
    let report = product.run(&workspace, args).await.assert_status("sandbox_error");
    assert!(report["error"]["message"].to_string().contains("record"), "{report:#}");
    product.check_nothing_left().await;
    no_layers(&product);
    assert_eq!(picture(workspace.path()), before);
}
