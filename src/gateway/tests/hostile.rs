//! A sandbox that tries to get more out of its socket than the model.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::gateway::Limits;
use crate::gateway::testing::{Bench, endpoint, limits, question};
use crate::model::testing::{Server, finish};

/// A server that must not be reached.
async fn forbidden() -> (Server, Bench) {
    let server =
        Server::start(|_, _, mut line| async move { line.answer(&[finish("stop")]).await }).await;
    let bench = Bench::open(&server.url()).await;
    (server, bench)
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

#[tokio::test]
async fn other_paths_methods_and_proxying_are_refused_on_the_wire() {
    let (server, bench) = forbidden().await;
    for request in [
        "POST /api/pull HTTP/1.1\r\nHost: x\r\n",
        "DELETE /api/delete HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/../api/pull HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/chat/completions/../../../api/pull HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/%2e%2e/api/pull HTTP/1.1\r\nHost: x\r\n",
        "POST //v1/chat/completions HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/chat/completions#x HTTP/1.1\r\nHost: x\r\n",
        "\r\n\nPOST /v1/chat/completions#/api/pull HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/responses HTTP/1.1\r\nHost: x\r\n",
        "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n",
        "POST http://127.0.0.1/v1/chat/completions HTTP/1.1\r\nHost: x\r\n",
        "GET http://127.0.0.1/v1/models HTTP/1.1\r\nHost: x\r\n",
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n",
        "GET /v1/models HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "TRACE /v1/chat/completions HTTP/1.1\r\nHost: x\r\n",
    ] {
        let answer = bench
            .raw(format!("{request}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
            .await;
        assert!(matches!(status(&answer), "403" | "400"), "{request}{answer}");
        if status(&answer) == "403" {
            assert!(
                answer.contains("POST /v1/chat/completions") && answer.contains("not_allowed"),
                "{answer}"
            );
        }
    }
    assert!(server.seen().is_empty());
    assert_eq!(bench.gateway.record().requests, 0);
    assert!(bench.gateway.record().refused >= 10);
}

#[tokio::test]
async fn smuggled_requests_reach_nobody() {
    let (server, bench) = forbidden().await;
    let inner = "POST /api/pull HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}";
    for request in [
        // Two lengths; a length and chunks; a chunked body with a second request behind it.
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\n{{}}{inner}"
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{inner}"
        ),
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n{inner}"
        ),
        format!("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX: a\r\n\r\n{inner}"),
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}"
            .to_owned(),
        "POST /v1/chat/completions HTTP/1.1\nHost: x\nContent-Length: -1\n\n{}".to_owned(),
        "garbage\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}".to_owned(),
    ] {
        bench.raw(request.as_bytes()).await;
    }
    for seen in server.seen() {
        assert_eq!(seen.path(), "/v1/chat/completions", "{}", seen.head);
        assert_eq!(seen.json()["model"], "ours");
    }
}

#[tokio::test]
async fn nothing_of_the_agents_head_goes_on() {
    let (server, bench) = forbidden().await;
    let body = question().to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: evil\r\nX-Forwarded-Host: evil\r\nCookie: a=b\r\n\
         Authorization: Bearer stolen\r\nContent-Type: text/plain\r\nTrailer: x\r\nConnection: close, X-Foo\r\n\
         X-Foo: evil\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = bench.raw(request.as_bytes()).await;
    assert_eq!(status(&answer), "200");
    let head = &server.seen()[0].head;
    assert!(!head.contains("evil") && !head.contains("stolen") && !head.contains("a=b"), "{head}");
    assert_eq!(
        server.seen()[0].header("host"),
        Some(format!("127.0.0.1:{}", server.port).as_str())
    );
}

#[tokio::test]
async fn bodies_that_are_too_long_too_slow_or_no_json_are_refused() {
    let server =
        Server::start(|_, _, mut line| async move { line.answer(&[finish("stop")]).await }).await;
    let limits = Limits { max_body: 10_000, ..limits() };
    let bench = Bench::with(endpoint(&server.url()), limits).await;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let long = format!("{head}Content-Length: 10001\r\n\r\n");
    assert_eq!(status(&bench.raw(long.as_bytes()).await), "413");
    let huge = format!("{head}Content-Length: 99999999999999999\r\n\r\n");
    assert_eq!(status(&bench.raw(huge.as_bytes()).await), "413");
    let chunked = format!(
        "{head}Transfer-Encoding: chunked\r\n\r\n4000\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x4000)
    );
    assert_eq!(status(&bench.raw(chunked.as_bytes()).await), "413");
    let slow = format!("{head}Content-Length: 100\r\n\r\n{{");
    assert_eq!(status(&bench.raw(slow.as_bytes()).await), "408");
    let broken = format!("{head}Content-Length: 3\r\n\r\n{{x}}");
    assert_eq!(status(&bench.raw(broken.as_bytes()).await), "400");
    assert!(server.seen().is_empty());
    let record = bench.gateway.record();
    assert_eq!(
        (record.faults, record.requests),
        (0, 0),
        "the agent's mistakes are not the model's"
    );
}

#[tokio::test]
async fn a_bomb_of_headers_and_a_head_that_never_ends_are_cut_off() {
    let (server, bench) = forbidden().await;
    let many = format!("GET /v1/models HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5000));
    assert_eq!(status(&bench.raw(many.as_bytes()).await), "431");
    let long = format!("GET /v1/models HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1 << 20));
    assert!(matches!(status(&bench.raw(long.as_bytes()).await), "431" | "closed"));
    let line = format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(1 << 20));
    assert!(matches!(status(&bench.raw(line.as_bytes()).await), "414" | "431" | "closed"));
    // Slow loris: a header every now and then.
    let started = Instant::now();
    let mut stream = bench.dial().await;
    stream.write_all(b"GET /v1/models HTTP/1.1\r\n").await.expect("taken");
    let mut rest = Vec::new();
    loop {
        let read =
            tokio::time::timeout(Duration::from_millis(50), stream.read_to_end(&mut rest)).await;
        if read.is_ok() || stream.write_all(b"a: b\r\n").await.is_err() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "the loris lives");
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_thousand_connections_cost_no_more_than_a_few_and_then_all_is_well() {
    let server =
        Server::start(|_, _, mut line| async move { line.answer(&[finish("stop")]).await }).await;
    let limits = Limits { max_connections: 8, ..limits() };
    let bench = Bench::with(endpoint(&server.url()), limits).await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        // What the kernel's queue does not hold is refused to the client, not to us.
        let connecting = tokio::net::UnixStream::connect(bench.gateway.folder().join("model.sock"));
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(20), connecting).await {
            idle.push(stream);
        } else {
            break;
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").expect("proc").count();
    assert!(idle.len() > 8 && open < idle.len() + 100, "{} connected, {open} open", idle.len());
    drop(idle);
    let asked =
        tokio::time::timeout(Duration::from_secs(10), bench.ask()).await.expect("served again");
    assert_eq!(asked.0, 200);
}

#[tokio::test]
async fn a_flood_of_large_bodies_waits_for_room() {
    let server = Server::start(|_, _, mut line| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        line.answer(&[finish("stop")]).await;
    })
    .await;
    let limits = Limits { max_body: 100_000, body_time: Duration::from_secs(20), ..limits() };
    let bench = Bench::with(endpoint(&server.url()), limits).await;
    let mut request = question();
    request["messages"][0]["content"] = json!("x".repeat(90_000));
    let asks = (0..10).map(|_| bench.post(&request));
    let started = Instant::now();
    for response in futures_util::future::join_all(asks).await {
        assert_eq!(response.status(), 200);
    }
    // Two at a time, a tenth of a second each.
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
}
