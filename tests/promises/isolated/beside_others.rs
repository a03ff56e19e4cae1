//! Isolated runs beside each other, beside a run that writes, and beside a person who works on.

use super::{content, lines, manifest, no_layers, picture};
use crate::common::{Answer, Gate, Model, Part, Product, Script, Workspace};

#[tokio::test(flavor = "multi_thread")]
async fn two_isolated_runs_and_a_writer_do_not_wait_for_each_other() {
    let workspace = Workspace::new();
    workspace.write("shared.txt", "base\n");
    let (gate, first) = (Gate::default(), Gate::default());
    let script = |word: &str, gate: &Gate| {
        Script::bash(&format!("cat shared.txt; echo {word} >>shared.txt; echo {word} >{word}.txt"))
            .then(Answer::new([Part::Text("Done.".into())]).behind(gate))
    };
    let models = [
        Model::start(script("first", &gate)).await,
        Model::start(script("second", &gate)).await,
        Model::start(script("direct", &first)).await,
    ];
    let product = Product::with_model(&models[0]).await;
    let config = "[limits]\nconcurrency = 4\n";
    let product = product.config(config);
    let mut runs = Vec::new();
    for (model, mode) in models.iter().zip(["isolated", "isolated", "direct"]) {
        let url = model.url();
        let args = ["--json", "--mode", mode, "--model-url", &url, "go"];
        runs.push(product.start_run(&workspace, args));
        // Each is in the middle of its work when the next one begins.
        model.step(2).await;
    }
    first.open();
    let direct = runs.pop().expect("three").wait().await.assert_status("completed");
    assert_eq!(direct["changes"]["applied"], true, "{direct:#}");
    gate.open();
    let mut reports = Vec::new();
    for run in runs {
        reports.push(run.wait().await.assert_status("completed"));
    }
    assert_eq!(workspace.read("shared.txt"), "base\ndirect\n");
    assert_eq!(workspace.names(), ["direct.txt", "shared.txt"]);
    for (report, word) in reports.iter().zip(["first", "second"]) {
        let own = format!("{word}.txt");
        assert_eq!(lines(report), [format!("{word}.txt: added"), "shared.txt: modified".into()]);
        let text = String::from_utf8(content(&product, report, "shared.txt")).expect("text");
        assert_eq!(text, format!("base\n{word}\n"), "it saw nothing of the others");
        assert_eq!(content(&product, report, &own), format!("{word}\n").as_bytes());
        let manifest = manifest(&product, report);
        let changes = manifest["changes"].as_array().expect("changes");
        let shared = changes.iter().find(|change| change["path"] == "shared.txt").expect("it");
        assert_eq!(shared["base_moved"], true, "the writer changed it meanwhile");
    }
    product.check_nothing_left().await;
    no_layers(&product);
}

/// What somebody does to the folder while a run works in its view never changes the result without
/// being marked there, and the folder is theirs alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_changes_under_a_run_is_marked_in_the_result() {
    for view in ["overlay", "copy"] {
        let config = &format!("[workspace]\nisolation = \"{view}\"\n");
        let workspace = Workspace::new();
        for name in
            ["both", "edited", "removed", "gone", "replaced", "theirs", "still/one", "folder/a"]
        {
            workspace.write(name, &format!("base of {name}\n"));
        }
        let gate = Gate::default();
        let second = "cat theirs >/dev/null; echo agent >tmp && mv tmp replaced; rm -f removed;
            echo agent >>edited; echo agent >>still/one; echo agent >added; rm -rf folder";
        let call = Part::Call {
            name: "bash".into(),
            args: serde_json::json!({ "command": second, "description": "Goes on" }),
        };
        let script = Script::bash("echo agent >>both; echo agent >>gone; echo agent >new")
            .then(Answer::new([call]).behind(&gate))
            .then_say("Done.");
        let model = Model::start(script).await;
        let product = Product::with_model(&model).await.config(config);
        let run = product.start_run(&workspace, ["--json", "--mode", "isolated", "go"]);
        model.step(2).await;
        for name in ["both", "removed", "theirs", "folder/b"] {
            workspace.write(name, "person\n");
        }
        std::fs::remove_file(workspace.at("gone")).expect("removed");
        std::fs::rename(workspace.at("replaced"), workspace.at("renamed")).expect("renamed");
        workspace.write("added", "person\n");
        let before = picture(workspace.path());
        gate.open();
        let report = run.wait().await.assert_status("completed");
        assert_eq!(picture(workspace.path()), before, "the folder is theirs alone");
        let manifest = manifest(&product, &report);
        assert_eq!(manifest["complete"], true);
        let changes = manifest["changes"].as_array().expect("changes");
        let find = |path: &str| changes.iter().find(|change| change["path"] == path);
        for path in ["both", "gone", "removed", "replaced", "added", "folder/b"] {
            let Some(change) = find(path) else {
                // In a copy, what came later was never in the run's view.
                assert!(path == "folder/b" && config.contains("copy"), "{path}: {manifest:#}");
                continue;
            };
            assert_eq!(change["base_moved"], true, "{change:#}");
        }
        for path in ["edited", "still/one", "folder/a"] {
            assert!(find(path).expect(path)["base_moved"].is_null(), "{manifest:#}");
        }
        assert_eq!(content(&product, &report, "both"), b"base of both\nagent\n");
        assert_eq!(content(&product, &report, "gone"), b"base of gone\nagent\n");
        assert_eq!(content(&product, &report, "replaced"), b"agent\n");
        for theirs in ["theirs", "renamed"] {
            assert!(find(theirs).is_none(), "{manifest:#}");
        }
        product.check_nothing_left().await;
        no_layers(&product);
    }
}
