//! Every way in which a model server fails, told at once and by its name.

use std::future::Future;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::testing::{Bench, KEY, endpoint, limits, question};
use crate::model::testing::{Line, Server, closed_port, finish, text, usage};
use crate::model::{Fault, FaultKind};

/// One question to a server that fails as `script` does: the fault, and what the agent saw.
async fn failing<S, F>(script: S) -> (Fault, u16, String)
where
    S: Fn(Line) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let server = Server::start(move |_, _, line| script(line)).await;
    let mut bench = Bench::open(&server.url()).await;
    let started = Instant::now();
    let (status, body) = bench.ask().await;
    assert!(started.elapsed() < Duration::from_secs(4), "too late: {:?}", started.elapsed());
    (bench.fault(), status, body)
}

fn is_told(fault: &Fault, status: u16, body: &str) {
    assert_eq!(status, 400, "{body}");
    let body: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["error"]["code"], fault.kind.as_str());
    assert!(body["error"]["message"].as_str().is_some_and(|said| said.contains(&fault.message)));
}

#[tokio::test]
async fn nobody_listens() {
    let port = closed_port().await;
    let mut bench = Bench::open(&format!("http://127.0.0.1:{port}")).await;
    let (status, body) = bench.ask().await;
    let fault = bench.fault();
    assert_eq!(fault.kind, FaultKind::ConnectionRefused);
    assert!(
        fault.is_unreachable() && fault.message.contains(&format!("127.0.0.1:{port}")),
        "{fault}"
    );
    assert!(fault.hint.as_ref().is_some_and(|hint| hint.contains("start the model server")));
    is_told(&fault, status, &body);
}

#[tokio::test]
async fn the_name_leads_nowhere() {
    // A label of 64 characters fails in the resolver's own code, so no network is asked.
    let mut bench = Bench::open(&format!("http://{}.invalid:1", "x".repeat(64))).await;
    bench.ask().await;
    let fault = bench.fault();
    assert_eq!(fault.kind, FaultKind::HostNotFound, "{fault}");
    assert!(fault.is_unreachable());
}

#[tokio::test]
async fn a_plain_server_is_taken_for_a_tls_one() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(
                &mut stream,
                b"HTTP/1.1 400 Bad Request\r\n\r\n",
            )
            .await;
        }
    });
    let mut bench = Bench::open(&format!("https://127.0.0.1:{port}")).await;
    bench.ask().await;
    let fault = bench.fault();
    assert_eq!(fault.kind, FaultKind::Tls, "{fault}");
}

#[tokio::test]
async fn it_takes_the_request_and_says_nothing() {
    let (fault, status, body) = failing(|mut line| async move { line.hung_up().await }).await;
    assert_eq!(fault.kind, FaultKind::FirstByteTimeout);
    assert!(fault.is_unreachable());
    is_told(&fault, status, &body);
}

#[tokio::test]
async fn it_sends_a_head_and_nothing_more() {
    let (fault, status, body) = failing(|mut line| async move {
        line.begin_stream().await;
        line.hung_up().await;
    })
    .await;
    assert_eq!(fault.kind, FaultKind::FirstByteTimeout);
    is_told(&fault, status, &body);
}

#[tokio::test]
async fn it_falls_silent_in_the_middle() {
    let (fault, status, body) = failing(|mut line| async move {
        line.begin_stream().await;
        line.event(&text("half an")).await;
        line.hung_up().await;
    })
    .await;
    assert_eq!((fault.kind, status), (FaultKind::Stalled, 200));
    assert!(!fault.is_unreachable());
    assert!(body.contains("half an") && body.contains("\"code\":\"stalled\""), "{body}");
}

#[tokio::test]
async fn it_hangs_up_in_the_middle() {
    for clean in [true, false] {
        let (fault, status, body) = failing(move |mut line| async move {
            line.begin_stream().await;
            line.event(&text("half an")).await;
            line.chunk(b"data: {\"choices\":[{\"del").await;
            if clean {
                line.end_stream().await;
            }
        })
        .await;
        let expected = if clean { FaultKind::NotJson } else { FaultKind::StreamCut };
        assert_eq!((fault.kind, status), (expected, 200), "{fault}");
        assert!(body.contains("half an") && body.contains("\n\ndata: {\"error\""), "{body}");
    }
    let (fault, ..) = failing(|mut line| async move {
        line.begin_stream().await;
        line.event(&text("half an")).await;
        line.end_stream().await;
    })
    .await;
    assert_eq!(fault.kind, FaultKind::StreamCut);
}

#[tokio::test]
async fn it_hangs_up_before_it_answers() {
    let (fault, status, body) = failing(|line| async move { drop(line) }).await;
    assert_eq!(fault.kind, FaultKind::StreamCut);
    is_told(&fault, status, &body);
    let (fault, ..) = failing(|mut line| async move {
        line.begin_stream().await;
        line.end_stream().await;
    })
    .await;
    assert_eq!(fault.kind, FaultKind::StreamCut);
}

#[tokio::test]
async fn it_says_no_in_its_own_words() {
    for (answer_status, said, kind) in [
        (400, "temperature must be positive", FaultKind::HttpStatus),
        (401, "invalid api key", FaultKind::Unauthorized),
        (403, "forbidden", FaultKind::Unauthorized),
        (404, "The model `ours` does not exist.", FaultKind::ModelNotFound),
        (404, "no such path", FaultKind::HttpStatus),
        (400, "This model's maximum context length is 4096 tokens", FaultKind::ContextOverflow),
        (500, "CUDA error: an illegal memory access", FaultKind::HttpStatus),
        (502, "bad gateway", FaultKind::HttpStatus),
        (302, "elsewhere", FaultKind::HttpStatus),
    ] {
        let (fault, status, body) = failing(move |mut line| async move {
            line.json(answer_status, &json!({"error": {"message": said}})).await;
        })
        .await;
        assert_eq!((fault.kind, fault.status), (kind, Some(answer_status)), "{said}");
        assert!(fault.message.contains(said), "{fault}");
        is_told(&fault, status, &body);
    }
}

#[tokio::test]
async fn it_does_not_speak_the_language() {
    for (head, body) in [
        ("content-type: text/html\r\n", "<html><title>Sign in</title></html>"),
        ("content-type: application/json\r\n", "{\"choices\": [tru"),
        ("content-type: text/event-stream\r\n", "<html>oops</html>\n"),
        ("content-type: text/event-stream\r\n", "data: {\"choices\":\n\n"),
        ("", "It works!\n"),
    ] {
        let (fault, status, seen) =
            failing(move |mut line| async move { line.reply(200, head, body).await }).await;
        assert_eq!(fault.kind, FaultKind::NotJson, "{body}: {fault}");
        is_told(&fault, status, &seen);
    }
    let (fault, ..) =
        failing(|mut line| async move { line.raw("SSH-2.0-OpenSSH_9.2\r\n").await }).await;
    assert_eq!(fault.kind, FaultKind::NotJson, "{fault}");
}

#[tokio::test]
async fn it_reports_an_error_inside_a_success() {
    let error = json!({"error": {"message": "CUDA out of memory", "code": 500}});
    let first = error.clone();
    let (fault, status, body) = failing(move |mut line| {
        let error = first.clone();
        async move { line.answer(&[error]).await }
    })
    .await;
    assert_eq!(
        (fault.kind, fault.message.as_str()),
        (FaultKind::StreamError, "CUDA out of memory")
    );
    is_told(&fault, status, &body);
    let later = error.clone();
    let (fault, status, body) = failing(move |mut line| {
        let error = later.clone();
        async move { line.answer(&[text("half"), error]).await }
    })
    .await;
    assert_eq!((fault.kind, status), (FaultKind::StreamError, 200));
    assert!(body.contains("sandbox_mcp"), "{body}");
    let (fault, ..) = failing(move |mut line| {
        let error = error.clone();
        async move { line.json(200, &error).await }
    })
    .await;
    assert_eq!(fault.message, "CUDA out of memory");
}

#[tokio::test]
async fn a_busy_server_is_asked_twice_more_and_then_told() {
    for status in [429, 503] {
        let server = Server::start(move |_, _, mut line| async move {
            let head = "retry-after: 0\r\ncontent-type: application/json\r\n";
            line.reply(status, head, "{\"error\":{\"message\":\"queue is full\"}}").await;
        })
        .await;
        let mut bench = Bench::open(&server.url()).await;
        let (agent_status, body) = bench.ask().await;
        let fault = bench.fault();
        assert_eq!(fault.status, Some(status));
        assert_eq!(fault.kind == FaultKind::RateLimited, status == 429);
        is_told(&fault, agent_status, &body);
        assert_eq!(server.seen().len(), 3);
        let record = bench.gateway.record();
        assert_eq!((record.requests, record.retries), (1, 2));
    }
}

#[tokio::test]
async fn a_hiccup_is_bridged_and_a_long_wait_is_not_waited() {
    let server = Server::start(|number, _, mut line| async move {
        match number {
            0 => line.reply(503, "", "starting").await,
            _ => line.answer(&[finish("stop"), usage(1, 1)]).await,
        }
    })
    .await;
    let bench = Bench::open(&server.url()).await;
    let started = Instant::now();
    assert_eq!(bench.ask().await.0, 200);
    assert!(started.elapsed() >= Duration::from_millis(500));
    assert_eq!(bench.gateway.record().faults, 0);

    let server = Server::start(|_, _, mut line| async move {
        line.reply(429, "retry-after: 60\r\n", "slow down").await;
    })
    .await;
    let mut bench = Bench::open(&server.url()).await;
    let started = Instant::now();
    bench.ask().await;
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(bench.fault().kind, FaultKind::RateLimited);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn the_budget_is_kept_and_told_once() {
    let server =
        Server::start(|_, _, mut line| async move { line.answer(&[finish("stop")]).await }).await;
    let limits = crate::gateway::Limits { max_requests: 2, ..limits() };
    let mut bench = Bench::with(endpoint(&server.url()), limits).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(bench.ask().await.0);
    }
    assert_eq!(statuses, [200, 200, 400, 400]);
    assert_eq!(server.seen().len(), 2);
    assert_eq!(bench.gateway.record().requests, 2);
    let fault = bench.fault();
    assert_eq!(fault.kind, FaultKind::BudgetExhausted);
    assert!(fault.hint.is_some_and(|hint| hint.contains("limits.max_requests")));
}

#[tokio::test]
async fn an_agent_that_hangs_up_stops_the_server_and_is_no_fault() {
    let (told, mut hung_up) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |number, _, mut line| {
        let told = told.clone();
        async move {
            // Once in the middle of the answer, once before it.
            if number == 0 {
                line.begin_stream().await;
                line.event(&text("one")).await;
                line.event(&usage(9, 4)).await;
            }
            line.hung_up().await;
            let _ = told.send(number);
        }
    })
    .await;
    let limits = crate::gateway::Limits {
        first_byte_timeout: Duration::from_secs(30),
        stall_timeout: Duration::from_secs(30),
        ..limits()
    };
    let mut bench = Bench::with(endpoint(&server.url()), limits).await;
    let mut response = bench.post(&question()).await;
    response.chunk().await.expect("a piece");
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(response);
    let patience = Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(patience, hung_up.recv()).await.expect("cancelled"), Some(0));
    let asking = tokio::time::timeout(Duration::from_millis(200), bench.ask());
    asking.await.expect_err("nothing comes");
    assert_eq!(tokio::time::timeout(patience, hung_up.recv()).await.expect("cancelled"), Some(1));
    let record = bench.gateway.record();
    assert_eq!((record.faults, record.answers, record.requests), (0, 0, 2));
    assert!(bench.told().iter().all(|event| !matches!(event, crate::gateway::Traffic::Faulted(_))));
}

#[tokio::test]
async fn the_key_is_never_said_back() {
    let (fault, status, body) = failing(|mut line| async move {
        let said = format!("Incorrect API key provided: {KEY}.");
        line.json(401, &json!({"error": {"message": said}})).await;
    })
    .await;
    assert!(fault.message.contains("[api key]") && !fault.message.contains(KEY), "{fault}");
    assert!(!body.contains(KEY), "{body}");
    is_told(&fault, status, &body);

    let server = Server::start(|_, seen, mut line| async move {
        // A server that echoes its request, with the key cut in two.
        let said = seen.header("authorization").expect("a key").to_owned();
        let event = crate::model::sse::encode(&text(&said));
        let (one, two) = event.split_at(event.len() / 2);
        line.begin_stream().await;
        line.chunk(one).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        line.chunk(two).await;
        line.event(&finish("stop")).await;
        line.end_stream().await;
    })
    .await;
    let bench = Bench::open(&server.url()).await;
    let (status, body) = bench.ask().await;
    assert_eq!(status, 200);
    assert!(body.contains("Bearer [api key]") && !body.contains(KEY), "{body}");
    assert_eq!(bench.gateway.record().last_answer, "Bearer [api key]");
}

#[tokio::test]
async fn a_context_that_is_shared_is_told_from_one_that_is_too_small() {
    let too_long = "request (10749 tokens) exceeds the available context size (8192 tokens)";
    for (status, said, shared) in
        [(400, too_long, false), (500, "Context size has been exceeded.", true)]
    {
        let server = Server::start(move |_, _, mut line| async move {
            line.json(status, &json!({"error": {"message": said, "code": status}})).await;
        })
        .await;
        let endpoint = crate::model::Endpoint {
            source: crate::config::Source::LlamaCpp,
            ..endpoint(&server.url())
        };
        let mut bench = Bench::with(endpoint, limits()).await;
        bench.ask().await;
        let fault = bench.fault();
        assert_eq!(fault.kind, FaultKind::ContextOverflow, "{fault}");
        let hint = fault.hint.expect("a hint");
        assert_eq!(hint.contains("slots"), shared, "{hint}");
    }
}
