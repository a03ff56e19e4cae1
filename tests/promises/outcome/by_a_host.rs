//! The same by a host: its tools look at a result, carry it over, and say what stands in the way.

use sandbox_mcp::workspace::{FolderLock, WorkspacePath};
use serde_json::{Value, json};

use super::{RUN, Result, small};
use crate::common::{Mcp, Workspace};

async fn tool(client: &mut Mcp, name: &str, arguments: Value) -> (bool, Value) {
    let result = client.ask("tools/call", json!({ "name": name, "arguments": arguments })).await;
    let failed = result["isError"] == true;
    let text = result["content"][0]["text"].clone();
    assert!(result.to_string().len() < 18 << 10, "twice 8 KiB and a little");
    let content = result.get("structuredContent").cloned().unwrap_or(text);
    (failed, content)
}

#[tokio::test]
async fn a_host_looks_at_a_result_and_carries_it_over() {
    let result = small();
    let mut client = Mcp::start(&result.product, &result.workspace).await;
    let uri = format!("sandbox://runs/{RUN}/changes.patch");
    let read = client.ask("resources/read", json!({ "uri": uri })).await;
    let patch = read["contents"][0]["text"].as_str().expect("text").to_owned();
    assert!(patch.contains("+␛[31mTWO") && !patch.contains('\u{1b}'), "{patch}");
    assert_eq!(read["contents"][0]["mimeType"], "text/x-diff");

    for (name, arguments, key, wanted) in [
        ("read_project_file", json!({"path": "new file"}), "text", json!("hello")),
        ("list_project_files", json!({}), "files", json!(["edit.txt", "new file", "same"])),
        (
            "search_project",
            json!({"pattern": "^two|hel+o"}),
            "matches",
            json!([{"path": "new file", "line": 1, "text": "hello"}]),
        ),
        ("project_status", json!({}), "changed_total", json!(4)),
    ] {
        let mut arguments = arguments;
        arguments["run_id"] = RUN.into();
        let (failed, seen) = tool(&mut client, name, arguments).await;
        assert!(!failed && seen[key] == wanted, "{name}: {seen:#}");
    }
    let (failed, gone) =
        tool(&mut client, "read_project_file", json!({"path": "gone.txt", "run_id": RUN})).await;
    assert!(failed && gone.to_string().contains("does not exist"), "{gone}");
    let (failed, other) =
        tool(&mut client, "list_project_files", json!({"run_id": "20270101-000000-aaaa"})).await;
    assert!(failed && other.to_string().contains("there is no run"), "{other}");
    assert!(!result.workspace.has("new file") && result.workspace.has("gone.txt"));

    let (failed, dry) =
        tool(&mut client, "apply_changes", json!({"run_id": RUN, "dry_run": true})).await;
    assert!(!failed && dry["changed"].as_array().map(Vec::len) == Some(4), "{dry:#}");
    let only = json!({"run_id": RUN, "only": ["gone.txt"]});
    let (failed, part) = tool(&mut client, "apply_changes", only).await;
    assert!(!failed && part["state"] == "partly_applied", "{part:#}");
    result.workspace.write("edit.txt", "mine");
    let (failed, conflict) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(failed && conflict["conflicts"][0]["path"] == "edit.txt", "{conflict:#}");
    assert_eq!(
        conflict.as_object().and_then(|keys| keys.keys().next()),
        Some(&"conflicts".to_owned())
    );
    result.workspace.write("edit.txt", "one\ntwo\n");
    let (failed, all) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(!failed && all["state"] == "applied" && all["already_there"] == 1, "{all:#}");
    let (failed, gone) = tool(&mut client, "discard_changes", json!({"run_id": RUN})).await;
    assert!(!failed && gone["discarded"] == true, "{gone:#}");
    let (failed, again) = tool(&mut client, "discard_changes", json!({"run_id": RUN})).await;
    assert!(!failed && again["discarded"] == false, "{again:#}");
    let (failed, refused) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(failed && refused["error"]["kind"] == "discarded", "{refused:#}");
    for wrong in [
        json!({"run_id": "last"}),
        json!({"run_id": "../x"}),
        json!({}),
        json!({"run_id": RUN, "force": true}),
    ] {
        let (failed, refused) = tool(&mut client, "apply_changes", wrong).await;
        assert!(
            failed
                && refused.as_str().is_some_and(|text| text.starts_with("Nothing was changed: "))
        );
    }
    client.close().await;
    result.product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_workspace_is_waited_for_and_then_told() {
    let result = small();
    let folder = WorkspacePath::check(None, result.workspace.path(), &[]).expect("checked");
    let lock = FolderLock::try_lock(&folder).expect("a lock").expect("free");
    let mut client = Mcp::start(&result.product, &result.workspace).await;
    let waiting = result.product.start(result.product.command(["apply", RUN]));
    waiting.stderr.says("waiting for another program that has a lock on this folder").await;
    let (failed, busy) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(failed && busy["error"]["kind"] == "busy", "{busy:#}");
    let (failed, busy) = tool(&mut client, "discard_changes", json!({"run_id": RUN})).await;
    assert!(failed && busy["error"]["kind"] == "busy", "{busy:#}");
    assert!(result.workspace.has("gone.txt"));
    drop(lock);
    waiting.wait().await.assert_code(0);
    assert!(!result.workspace.has("gone.txt"));
    client.close().await;
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_result_of_another_folder_is_not_there() {
    let result = small();
    let elsewhere = Workspace::new();
    let mut client = Mcp::start(&result.product, &elsewhere).await;
    for name in ["apply_changes", "discard_changes"] {
        let (failed, refused) = tool(&mut client, name, json!({"run_id": RUN})).await;
        assert!(failed && refused.to_string().contains("there is no run"), "{refused}");
    }
    // A record that says one folder in its report and another in its list.
    result.report(&json!({ "status": "completed", "workspace": { "path": elsewhere.path(), "mode": "isolated" } }));
    let (failed, refused) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(failed && refused.to_string().contains("outside of the allowed folders"), "{refused}");
    assert!(result.workspace.has("gone.txt"));
    client.close().await;
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn many_conflicts_still_make_a_short_answer() {
    let mut result = Result::new(&[]);
    for number in 0..300 {
        result = result.file(&format!("{}-{number}", "long".repeat(40)), "x");
    }
    let result = result.kept();
    for change in &result.changes {
        result.workspace.write(change.path.as_path().to_str().expect("utf-8"), "other");
    }
    let mut client = Mcp::start(&result.product, &result.workspace).await;
    let (failed, told) = tool(&mut client, "apply_changes", json!({"run_id": RUN})).await;
    assert!(failed && told.to_string().len() < 8 << 10, "{}", told.to_string().len());
    let named = told["conflicts"].as_array().map(Vec::len).expect("a list") as u64;
    assert_eq!(named + told["more"].as_u64().expect("a number"), 300);
    client.close().await;
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_host_leaves_out_what_a_person_must_decide() {
    let result = Result::new(&[("a", "one\n"), ("b", "b\n")])
        .file("a", "two\n")
        .file("b", "B\n")
        .file(".envrc", "x\n")
        .kept();
    result.workspace.write("a", "mine\n");
    let mut client = Mcp::start(&result.product, &result.workspace).await;
    let asked = json!({"run_id": RUN, "partial": true});
    let (failed, part) = tool(&mut client, "apply_changes", asked).await;
    assert!(!failed && part["state"] == "partly_applied", "{part:#}");
    assert_eq!(part["changed"], json!([{ "path": "b", "change": "modified" }]), "{part:#}");
    assert_eq!(part["pending"], json!([".envrc", "a"]), "{part:#}");
    assert_eq!(part["conflicts"][0]["path"], "a", "{part:#}");
    assert_eq!(part["protected"][0]["path"], ".envrc", "{part:#}");
    assert_eq!(
        (result.workspace.read("a"), result.workspace.read("b")),
        ("mine\n".into(), "B\n".into())
    );
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}
