//! Hosts read runs on record as resources: those of the folders they may work in, clean and bounded.

use crate::common::{Mcp, Model, Product, Script, Workspace};
use serde_json::{Value, json};

async fn text_of(client: &mut Mcp, uri: &str) -> String {
    let result = client.ask("resources/read", json!({ "uri": uri })).await;
    assert_eq!(result["contents"][0]["uri"], uri);
    result["contents"][0]["text"].as_str().expect("text").to_owned()
}

async fn uris(client: &mut Mcp) -> Vec<String> {
    let listed = client.ask("resources/list", json!({})).await;
    let resources = listed["resources"].as_array().expect("a list").clone();
    resources.iter().map(|resource| resource["uri"].as_str().expect("a uri").to_owned()).collect()
}

fn changes(client: &Mcp) -> usize {
    let method = "notifications/resources/list_changed";
    client.frames().iter().filter(|frame| frame["method"] == method).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_can_be_read_as_soon_as_it_is_over() {
    let script = "curl -sS -m 5 https://api.example.com/; echo x > made.txt";
    let answer = format!("{}\u{1b}[31mthe end\u{202e}", "long ".repeat(4000));
    let model = Model::start(Script::bash(script).then_say(&answer)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::connect(&product, &workspace);
    let hello = client.initialize("2025-11-25").await;
    assert_eq!(hello["capabilities"]["resources"], json!({ "listChanged": true }));
    assert!(uris(&mut client).await.is_empty());

    let result = client.run(json!({ "task": "make a file" })).await;
    assert_eq!(changes(&client), 1, "told before the answer");
    let content = &result["structuredContent"];
    let uri = content["resource"].as_str().expect("a resource").to_owned();
    assert_eq!(uri, format!("sandbox://runs/{}", content["run_id"].as_str().expect("an id")));
    assert!(content.to_string().len() < 9 << 10, "{content}");
    assert!(content["answer"].as_str().is_some_and(|text| text.contains(" bytes cut")));

    let listed = client.ask("resources/list", json!({})).await;
    let resource = &listed["resources"][0];
    assert_eq!(resource["uri"], uri);
    assert_eq!(resource["title"], "completed: make a file");
    let templates = client.ask("resources/templates/list", json!({})).await;
    let templates: Vec<_> = templates["resourceTemplates"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|template| {
            template["uriTemplate"].as_str().expect("text").replace("sandbox://runs/{id}", "")
        })
        .collect();
    assert_eq!(templates, ["", "/events", "/answer", "/log", "/egress", "/changes.patch"]);

    let report: Value = serde_json::from_str(&text_of(&mut client, &uri).await).expect("JSON");
    assert_eq!((&report["status"], &report["state"]), (&json!("completed"), &json!("ended")));
    assert_eq!(report["changes"], content["changes"]);
    let whole = text_of(&mut client, &format!("{uri}/answer")).await;
    assert_eq!(whole.trim(), format!("{}the end", "long ".repeat(4000)));
    let events = text_of(&mut client, &format!("{uri}/events")).await;
    let lines = events.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() > 5 && lines.iter().enumerate().all(|(at, line)| line["seq"] == at + 1));
    assert!(text_of(&mut client, &format!("{uri}/egress")).await.contains("api.example.com"));
    text_of(&mut client, &format!("{uri}/log")).await;
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_folders_and_other_names_are_not_there() {
    let product = Product::without_engine();
    let (here, elsewhere) = (Workspace::new(), Workspace::new());
    let put = |id: &str, workspace: &Workspace| {
        let folder = product.folder("state").join("runs").join(id);
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = workspace.path().to_str().expect("utf-8");
        let report = json!({
            "status": "reached_the_moon", "answer": "a\u{1b}[31mb", "workspace": { "path": path },
        });
        std::fs::write(folder.join("run.json"), report.to_string()).expect("a file");
    };
    for number in 10..70 {
        put(&format!("202601{number}-000000-aaaa"), &here);
    }
    put("20270101-000000-aaaa", &elsewhere);
    std::fs::write(product.folder("state").join("secret"), "a secret").expect("a file");

    let mut client = Mcp::start(&product, &here).await;
    let listed = uris(&mut client).await;
    assert_eq!(listed.len(), 50);
    assert_eq!(listed[0], "sandbox://runs/20260169-000000-aaaa", "the newest of this folder first");
    let report = text_of(&mut client, "sandbox://runs/20260110-000000-aaaa").await;
    assert!(report.contains("\"answer\":\"ab\""), "{report}");
    assert_eq!(text_of(&mut client, "sandbox://runs/20260110-000000-aaaa/answer").await, "ab");
    for uri in [
        "sandbox://runs/20270101-000000-aaaa",
        "sandbox://runs/20270101-000000-aaaa/answer",
        "sandbox://runs/20260101-000000-zzzz",
        "sandbox://runs/20260110-000000-aaaa/../../secret",
        "sandbox://runs/20260110-000000-aaaa/run.json",
        "sandbox://runs/../../secret",
        "sandbox://runs/last\u{1b}[31m",
        "file:///etc/passwd",
    ] {
        let id = client.request("resources/read", json!({ "uri": uri })).await;
        let refused = client.answer(id).await;
        assert_eq!(refused["error"]["code"], -32002, "{uri}: {refused}");
        let message = refused["error"]["message"].as_str().expect("a message");
        assert!(message.contains("there is no resource") && !message.contains('\u{1b}'));
    }
    let id = client.request("resources/read", json!({ "uri": 3 })).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32602);
    client.ping().await;
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_without_a_session_is_told_nothing_unasked() {
    let model = Model::start(Script::say("Done.")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::connect(&product, &workspace);
    let hello = client.discover().await;
    assert_eq!(hello["capabilities"]["resources"], json!({}), "{hello:#}");
    let result = client.run(json!({ "task": "look" })).await;
    let uri = result["structuredContent"]["resource"].as_str().expect("a resource").to_owned();
    assert_eq!(uris(&mut client).await, std::slice::from_ref(&uri));
    assert_eq!(text_of(&mut client, &format!("{uri}/answer")).await, "Done.");
    assert_eq!(changes(&client), 0);
    let id = client.request("resources/read", json!({ "uri": "sandbox://runs/x" })).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32602);
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
