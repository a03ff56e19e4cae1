//! HTTP clients as they are: what they leave out is no reason to turn them away, and what one of
//! them does, or a stranger, keeps nobody else out.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::web::Answer;
use crate::common::{Product, Web, Workspace};

async fn house(config: &str) -> (Product, Workspace, Web) {
    let product = Product::without_engine().config(config);
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    (product, workspace, web)
}

async fn close(product: Product, web: Web) {
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

async fn post(web: &Web, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = web.with_token(Method::POST, path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    web.send(request.body(Full::from(body.to_owned())).expect("sound")).await
}

const STALE: (&str, &str) = ("mcp-session-id", "11111111-1111-4111-8111-111111111111");

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_leaves_out_is_no_reason_to_turn_it_away() {
    let (product, _workspace, web) = house("").await;
    let greeting = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
    for headers in [
        &[][..],
        &[("accept", "*/*")],
        &[("accept", "application/json")],
        &[("accept", "text/event-stream")],
        &[("accept", "application/json, text/event-stream"), STALE],
        &[STALE, ("mcp-protocol-version", "2024-11-05")],
    ] {
        for path in ["/mcp", "/mcp/"] {
            let answer = post(&web, path, headers, greeting).await;
            assert_eq!(answer.status, StatusCode::OK, "{path} {headers:?}");
            let kind = answer.header("content-type").to_owned();
            let session = answer.header("mcp-session-id").to_owned();
            let said = answer.text().await;
            assert!(said.contains("sandbox-mcp"), "{path} {headers:?}: {said}");
            if headers == [("accept", "application/json")] {
                assert_eq!(kind, "application/json");
                let hello: Value = serde_json::from_str(&said).expect("one object");
                assert_eq!(hello["id"], 1);
            }
            // Half an emoji, and arguments as a text.
            let call = r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{"name":"search_project","arguments":"{\"pattern\":\"\\ud83d\",\"max_matches\":\"3\"}"}}"#;
            let session = [("mcp-session-id", session.as_str()), ("accept", "application/json")];
            let found = post(&web, path, &session, call).await.json().await;
            assert_eq!(found["id"], "x", "{found:#}");
            assert!(found["error"].is_null(), "{found:#}");
        }
    }
    let unknown = r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    assert_eq!(post(&web, "/mcp", &[STALE], unknown).await.status, StatusCode::NOT_FOUND);
    let html = post(&web, "/mcp", &[("accept", "text/html")], greeting).await;
    assert_eq!(html.status, StatusCode::NOT_ACCEPTABLE);
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_never_take_the_places_of_clients() {
    let (product, _workspace, web) = house("[http]\nconnections = 8\n").await;
    let client = web.greeted().await;
    let listening = client.listen(None).await;
    assert_eq!(listening.status, StatusCode::OK);
    let mut strangers = Vec::new();
    for number in 0..300 {
        let mut stream = TcpStream::connect(web.address).await.expect("it listens");
        if number % 2 == 0 {
            stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: ").await.ok();
        }
        strangers.push(stream);
    }
    for _ in 0..3 {
        let began = Instant::now();
        web.greeted().await.ask("tools/list", json!({})).await;
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    client.ask("ping", json!({})).await;
    drop(strangers);
    close(product, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_cannot_hold_all_streams() {
    let (product, _workspace, web) = house("[http]\nconnections = 8\n").await;
    let client = web.greeted().await;
    let mut listening = Vec::new();
    for _ in 0..20 {
        listening.push(client.listen(None).await);
    }
    let other = tokio::time::timeout(Duration::from_secs(5), web.greeted()).await;
    other.expect("there is a place").ask("tools/list", json!({})).await;
    assert!(listening.iter().all(|stream| stream.status == StatusCode::OK));
    while listening[0].message().await.is_some() {}
    client.ask("ping", json!({})).await;
    drop(listening);
    close(product, web).await;
}

/// Sends everything, and only then begins to read.
async fn all_at_once(web: &Web, head: &str, length: usize) -> String {
    let mut stream = TcpStream::connect(web.address).await.expect("it listens");
    let host = web.address;
    let head =
        format!("POST /mcp HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n{head}\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    stream.write_all(&vec![b'x'; length]).await.expect("it reads on");
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer));
    read.await.expect("in time").expect("no reset");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_who_sends_all_before_they_read() {
    let (product, _workspace, web) = house("[limits]\ntask = \"64k\"\n").await;
    let answer = all_at_once(&web, "", 12 << 20).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    let token = format!("authorization: Bearer {}\r\n", web.token);
    let answer = all_at_once(&web, &token, 12 << 20).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("limits.task"), "{answer}");
    close(product, web).await;
}
