//! The same server over HTTP as over stdio, for every version of the protocol and for many clients.

use http::{Method, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Script, Web, Workspace};

async fn house(script: Script) -> (Model, Product, Workspace, Web) {
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    (model, product, workspace, web)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_with_sessions_gets_its_version_and_a_result() {
    let (_model, product, _workspace, web) = house(Script::bash("true").then_say("Done.")).await;
    for version in ["2025-06-18", "2025-11-25"] {
        let mut client = web.client();
        let hello = client.initialize(version).await;
        assert_eq!(hello["protocolVersion"], version, "{hello:#}");
        assert_eq!(hello["serverInfo"]["name"], "sandbox-mcp");
        client.ask("ping", json!({})).await;
        let (_, mut stream) = client.start_run(json!({"task": "do it"})).await;
        stream.progress_says("started run").await;
        let result = stream.result().await;
        assert_eq!(result["structuredContent"]["answer"], "Done.", "{result:#}");
        assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
        let (_, gone) = client.post("tools/list", json!({})).await;
        assert_eq!(gone.status, StatusCode::NOT_FOUND, "the session is over");
    }
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_without_sessions_works_by_discovery() {
    let (_model, product, _workspace, web) = house(Script::bash("true").then_say("Done.")).await;
    let client = web.client().modern();
    let (_, mut hello) = client.post("server/discover", json!({})).await;
    assert_eq!(hello.header("mcp-session-id"), "");
    let hello = hello.result().await;
    assert!(hello["supportedVersions"].to_string().contains("2026-07-28"), "{hello:#}");
    let (_, mut stream) = client.start_run(json!({"task": "do it"})).await;
    stream.progress_says("started run").await;
    let result = stream.result().await;
    assert_eq!(result["structuredContent"]["answer"], "Done.", "{result:#}");
    let id = result["structuredContent"]["run_id"].clone();
    let again = client.tool("get_run", json!({ "run_id": id })).await;
    assert_eq!(again["structuredContent"]["answer"], "Done.", "{again:#}");
    assert_eq!(client.delete().await, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(client.listen(None).await.status, StatusCode::METHOD_NOT_ALLOWED);
    let metrics = web.metrics().await;
    assert_eq!(metrics["sandbox_mcp_http_sessions_total"], "0");
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_prompts_and_resources_are_those_of_stdio() {
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    let client = web.greeted().await;
    let mut stdio = Mcp::start(&product, &workspace).await;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let (here, there) =
            (client.ask(method, json!({})).await, stdio.ask(method, json!({})).await);
        assert_eq!(here, there, "{method}");
    }
    let prompt = json!({"name": "nothing"});
    let (_, mut answer) = client.post("prompts/get", prompt).await;
    assert_eq!(answer.response().await.expect("an answer")["error"]["code"], -32602);
    stdio.close().await.assert_code(0);
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_harms_nobody() {
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    let client = web.greeted().await;
    for (body, status) in [
        ("", 415),
        ("{", 415),
        ("[]", 415),
        ("null", 415),
        (r#"{"jsonrpc":"2.0","id":1}"#, 415),
        (r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":5}}"#, 200),
        (r#"{"jsonrpc":"2.0","id":8,"method":"no/such"}"#, 200),
    ] {
        let request = client.builder(Method::POST).body(Full::from(body)).expect("sound");
        let answer = web.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text().await);
    }
    let mut stranger = web.client();
    stranger.session = Some("00000000-0000-0000-0000-000000000000".into());
    assert_eq!(stranger.post("tools/list", json!({})).await.1.status, StatusCode::NOT_FOUND);
    stranger.session = None;
    assert_eq!(stranger.post("tools/list", json!({})).await.1.status, StatusCode::BAD_REQUEST);
    stranger.version = Some("1999-01-01");
    assert_eq!(stranger.post("tools/list", json!({})).await.1.status, StatusCode::BAD_REQUEST);
    client.ask("ping", json!({})).await;
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

/// Both processes stand in one line: with one place, nobody runs beside another.
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_and_a_stdio_server_share_the_line_and_the_history() {
    let gate = Gate::default();
    let held = Script::new(Answer::new([Part::Text("First.".into())]).behind(&gate));
    let model = Model::routed([("first", held), ("", Script::say("Later."))]).await;
    let product = Product::with_model(&model).await.config("[limits]\nconcurrency = 1\n");
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    let mut stdio = Mcp::start(&product, &workspace).await;
    let first = stdio.start_run(json!({"task": "first", "mode": "read_only"}), "s").await;
    model.step(1).await;

    let clients = [web.greeted().await, web.greeted().await, web.client().modern()];
    let mut waiting = Vec::new();
    for client in &clients {
        let (_, mut stream) = client.start_run(json!({"task": "later", "mode": "read_only"})).await;
        stream.progress_says("queued").await;
        waiting.push(stream);
    }
    let metrics = web.metrics().await;
    assert_eq!(metrics["sandbox_mcp_runs_running"], "1");
    assert_eq!(metrics["sandbox_mcp_runs_waiting"], "3");
    gate.open();
    assert_eq!(stdio.result(first).await["structuredContent"]["answer"], "First.");
    for mut stream in waiting {
        let result = stream.result().await;
        assert_eq!(result["structuredContent"]["answer"], "Later.", "{result:#}");
    }
    let listed = clients[2].tool("list_runs", json!({})).await;
    assert_eq!(listed["structuredContent"]["runs"].as_array().map(Vec::len), Some(4));
    assert_eq!(stdio.tool("list_runs", json!({})).await, without_meta(listed));
    let metrics = web.metrics().await;
    assert_eq!(metrics["sandbox_mcp_runs_total{status=\"completed\"}"], "3", "its own");
    stdio.close().await.assert_code(0);
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

/// What only protocol 2026-07-28 adds to a result.
fn without_meta(mut result: Value) -> Value {
    if let Some(result) = result.as_object_mut() {
        result.retain(|key, _| key != "resultType" && key != "_meta");
    }
    result
}
