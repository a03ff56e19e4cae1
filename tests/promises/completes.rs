//! What arguments may be is offered while somebody types: quickly, in part, and only of this host's
//! own folders.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Mcp, Product, Workspace};

async fn complete(client: &mut Mcp, reference: &Value, name: &str, typed: &str) -> Value {
    let argument = json!({"name": name, "value": typed});
    let params = json!({"ref": reference, "argument": argument});
    let result = client.ask("completion/complete", params).await;
    result["completion"].clone()
}

fn prompt(name: &str) -> Value {
    json!({"type": "ref/prompt", "name": name})
}

/// A run on record, and a session, of some folder.
fn record(product: &Product, number: u32, folder: &Workspace) -> (String, String) {
    let id = format!("20260101-{number:06}-aaaa");
    let run = product.folder("state").join("runs").join(&id);
    std::fs::create_dir_all(&run).expect("a folder");
    let path = folder.path();
    let report = json!({
        "run_id": id, "status": "completed", "workspace": {"path": path, "mode": "direct"},
    });
    std::fs::write(run.join("run.json"), report.to_string()).expect("written");
    let session = format!("ses-{id}");
    let kept = product.folder("state").join("sessions").join(&session);
    std::fs::create_dir_all(kept.join("agent")).expect("a folder");
    let note = json!({"workspace": path, "last_used": "2026-01-01T00:00:00Z"});
    std::fs::write(kept.join("session.json"), note.to_string()).expect("written");
    (id, session)
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_sessions_folders_and_commands_are_offered() {
    for version in ["2025-06-18", "2025-11-25", "2026-07-28"] {
        let (product, workspace, other, root) =
            (Product::without_engine(), Workspace::new(), Workspace::new(), Workspace::new());
        let (mine, session) = record(&product, 1, &workspace);
        record(&product, 2, &other);
        let (there, session_there) = record(&product, 3, &root);
        let roots = format!("[workspace]\nroots = [{:?}]\n", root.path());
        let product = product.config(&roots);
        let mut client = Mcp::connect(&product, &workspace);
        let hello = match version {
            "2026-07-28" => client.discover().await,
            _ => client.initialize(version).await,
        };
        assert!(hello["capabilities"]["completions"].is_object(), "{hello:#}");

        for uri in ["sandbox://runs/{id}", "sandbox://runs/{id}/changes.patch"] {
            let template = json!({"type": "ref/resource", "uri": uri});
            let all = complete(&mut client, &template, "id", "").await;
            assert_eq!(all, json!({"values": [there, mine], "hasMore": false}), "of {uri}");
            let typed = complete(&mut client, &template, "id", "20260101-000001").await;
            assert_eq!(typed["values"], json!([mine]));
            let none = complete(&mut client, &template, "id", "20260101-000002").await;
            assert_eq!(none["values"], json!([]), "another folder's run");
        }
        let review = complete(&mut client, &prompt("review-run"), "run_id", "").await;
        assert_eq!(review["values"], json!([there, mine]));
        let delegate = prompt("delegate");
        let folders = complete(&mut client, &delegate, "workspace", "").await;
        assert_eq!(folders["values"], json!([workspace.path(), root.path()]));
        let commands = complete(&mut client, &delegate, "command", "refactor-").await;
        assert_eq!(commands["values"], json!(["refactor-apply", "refactor-audit"]));
        let sessions = complete(&mut client, &delegate, "session", "").await;
        let mut sorted: Vec<_> = sessions["values"].as_array().expect("values").clone();
        sorted.sort_by_key(ToString::to_string);
        assert_eq!(json!(sorted), json!(["new", session, session_there]));
        let context = json!({"arguments": {"workspace": root.path()}});
        let params = json!({
            "ref": delegate, "argument": {"name": "session", "value": "ses-"}, "context": context,
        });
        let sessions = client.ask("completion/complete", params).await;
        assert_eq!(sessions["completion"]["values"], json!([session_there]));
        for (name, argument) in [("delegate", "goal"), ("git-commit", "arguments")] {
            let free = complete(&mut client, &prompt(name), argument, "x").await;
            assert_eq!(free["values"], json!([]));
        }
        client.close().await.assert_code(0);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_a_hundred_at_most_and_odd_questions_are_refused() {
    let (product, workspace, other) =
        (Product::without_engine(), Workspace::new(), Workspace::new());
    for number in 0..150 {
        record(&product, number, &workspace);
        record(&product, 500 + number, &other);
    }
    let mut client = Mcp::start(&product, &workspace).await;
    let review = prompt("review-run");
    let began = Instant::now();
    let all = complete(&mut client, &review, "run_id", "").await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(all["values"].as_array().map(Vec::len), Some(100));
    assert_eq!(
        (&all["values"][0], &all["hasMore"]),
        (&json!("20260101-000149-aaaa"), &json!(true))
    );
    let sessions = complete(&mut client, &prompt("delegate"), "session", "ses-").await;
    assert_eq!(sessions["values"].as_array().map(Vec::len), Some(100));
    let folder = product.folder("state").display().to_string();
    for typed in ["../", &folder, "\u{1b}[31m", &"2".repeat(100_000), "%"] {
        let none = complete(&mut client, &review, "run_id", typed).await;
        assert_eq!(none, json!({"values": [], "hasMore": false}));
    }
    let argument = |name: &str| json!({"name": name, "value": ""});
    for params in [
        json!({"ref": prompt("no-such"), "argument": argument("run_id")}),
        json!({"ref": prompt("review-run"), "argument": argument("task")}),
        json!({"ref": {"type": "ref/resource", "uri": "file:///{id}"}, "argument": argument("id")}),
        json!({"ref": {"type": "ref/resource", "uri": "sandbox://runs/{id}"}, "argument": argument("x")}),
        json!({"ref": {"type": "ref/tool", "name": "run_in_sandbox"}, "argument": argument("task")}),
        json!({"ref": prompt("review-run"), "argument": {"name": "run_id"}}),
        json!({}),
    ] {
        let id = client.request("completion/complete", params.clone()).await;
        let answer = client.answer(id).await;
        assert_eq!(answer["error"]["code"], -32602, "{params}: {answer:#}");
    }
    client.ping().await;
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
