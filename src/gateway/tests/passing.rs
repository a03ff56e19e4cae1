//! What passes, and what becomes of it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::gateway::Traffic;
use crate::gateway::testing::{Bench, KEY, limits, question};
use crate::model::Endpoint;
use crate::model::sse;
use crate::model::testing::{Server, finish, text, tool_call, usage};

#[tokio::test]
async fn a_request_goes_out_rebuilt_and_its_answer_comes_back_in_one_form() {
    let events = [text("hello"), finish("stop"), usage(11, 3)];
    let sent = events.clone();
    let server = Server::start(move |_, _, mut line| {
        let events = sent.clone();
        async move { line.answer(&events).await }
    })
    .await;
    let bench = Bench::open(&server.url()).await;
    let (status, body) = bench.ask().await;
    assert_eq!(status, 200);
    let events: Vec<_> = body.split_terminator("\n\n").collect();
    assert_eq!(events.last(), Some(&"data: [DONE]"));
    let event = |at: usize| -> Value {
        serde_json::from_str(events[at].strip_prefix("data: ").expect("data")).expect("JSON")
    };
    let delta = json!({"role": "assistant", "content": "hello"});
    assert_eq!(event(0)["choices"], json!([{"index": 0, "delta": delta, "finish_reason": null}]));
    assert_eq!(event(1)["choices"], json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
    let counted = json!({"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14});
    assert_eq!((&event(2)["choices"], &event(2)["usage"]), (&json!([]), &counted));
    assert_eq!(
        (&event(0)["object"], &event(0)["model"]),
        (&json!("chat.completion.chunk"), &json!("ours"))
    );

    let seen = server.seen();
    assert_eq!(seen[0].line(), "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {KEY}").as_str()));
    assert!(seen[0].header("user-agent").is_some_and(|agent| agent.starts_with("sandbox-mcp/")));
    let body = seen[0].json();
    assert_eq!(body["model"], "ours");
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    assert!(!seen[0].head.contains("from-inside"), "{}", seen[0].head);
}

#[tokio::test]
async fn each_piece_goes_on_before_the_next_is_sent() {
    let (release, gate) = mpsc::channel::<()>(1);
    let gate = std::sync::Arc::new(tokio::sync::Mutex::new(gate));
    let server = Server::start(move |_, _, mut line| {
        let gate = gate.clone();
        async move {
            line.begin_stream().await;
            for word in ["one", "two", "three"] {
                line.event(&text(word)).await;
                gate.lock().await.recv().await;
            }
            line.event(&finish("stop")).await;
            line.end_stream().await;
        }
    })
    .await;
    let bench = Bench::open(&server.url()).await;
    let mut response = bench.post(&question()).await;
    for word in ["one", "two", "three"] {
        // The server waits for us: if anything were held back, nothing would come.
        let chunk = tokio::time::timeout(Duration::from_secs(5), response.chunk()).await;
        let chunk = chunk.expect("held back").expect("a piece").expect("a piece");
        let said = String::from_utf8_lossy(&chunk).into_owned();
        assert!(
            said.contains(&format!("\"content\":\"{word}\"")) && said.ends_with("\n\n"),
            "{said}"
        );
        release.send(()).await.expect("the server waits");
    }
    assert!(response.text().await.expect("the rest").contains("\"stop\""));
}

#[tokio::test]
async fn everything_is_counted_and_told_as_it_happens() {
    let server = Server::start(|number, _, mut line| async move {
        if number == 0 {
            let events = [
                text("let me see"),
                tool_call(0, "bash", "{\"command\":"),
                json!({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "\"ls\"}"}}]}}]}),
                tool_call(1, "read", "not json"),
                finish("tool_calls"),
                json!({"choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": 20, "completion_tokens_details": {"reasoning_tokens": 7}}}),
            ];
            line.answer(&events).await;
        } else {
            line.answer(&[text("done"), finish("length"), usage(200, 30)]).await;
        }
    })
    .await;
    let mut bench = Bench::open(&server.url()).await;
    bench.ask().await;
    bench.ask().await;
    let told = bench.told();
    let call = |name: &str, arguments: Value| Traffic::ToolCall {
        number: 1,
        name: name.into(),
        arguments,
    };
    assert_eq!(told[0], Traffic::RequestStarted { number: 1 });
    assert!(matches!(told[1], Traffic::FirstByte { number: 1, after_ms } if after_ms < 5000));
    assert_eq!(told[2], call("bash", json!({"command": "ls"})));
    assert_eq!(told[3], call("read", json!("not json")));
    assert_eq!(
        told[4],
        Traffic::Answered {
            number: 1,
            finish_reason: Some("tool_calls".into()),
            input_tokens: 100,
            output_tokens: 20,
            reasoning_tokens: 7,
        }
    );
    assert_eq!(told[5], Traffic::RequestStarted { number: 2 });
    let record = bench.gateway.record();
    assert_eq!((record.requests, record.answers, record.faults), (2, 2, 0));
    assert_eq!((record.input_tokens, record.output_tokens, record.reasoning_tokens), (300, 50, 7));
    assert_eq!(record.finish_reasons, [Some("tool_calls".to_owned()), Some("length".to_owned())]);
    assert!(record.bytes_sent > 0 && record.bytes_received > 0);
}

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_read_too() {
    let whole = json!({
        "choices": [{"message": {"content": "hi", "tool_calls": [{"id": "1", "function": {"name": "x", "arguments": "{}"}}]}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    });
    let server = Server::of_json(&[
        ("/v1/chat/completions", whole.clone()),
        ("/v1/completions", whole.clone()),
    ])
    .await;
    let mut bench = Bench::open(&server.url()).await;
    let response = bench.post(&json!({"messages": []})).await;
    let passed: Value = response.json().await.expect("JSON");
    let message = json!({"role": "assistant", "content": "hi", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "x", "arguments": "{}"}},
    ]});
    assert_eq!(
        passed["choices"],
        json!([{"index": 0, "message": message, "finish_reason": "tool_calls"}])
    );
    assert_eq!(passed["usage"]["total_tokens"], 7);
    assert!(
        bench
            .told()
            .iter()
            .any(|event| matches!(event, Traffic::ToolCall { name, .. } if name == "x"))
    );
    assert_eq!(bench.gateway.record().input_tokens, 5);
    assert!(
        !server.seen()[0].json().as_object().expect("an object").contains_key("stream_options")
    );
}

#[tokio::test]
async fn the_list_of_models_is_ours_and_no_question_to_the_server() {
    let server = Server::of_json(&[]).await;
    let bench = Bench::open(&server.url()).await;
    let list: Value = bench.get("/v1/models").await.json().await.expect("JSON");
    assert_eq!(list["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["data"][0]["id"], "ours");
    assert_eq!(bench.get("/v1/models/ours").await.status(), 200);
    assert_eq!(bench.get("/v1/models/theirs").await.status(), 404);
    assert!(server.seen().is_empty());
    assert_eq!(bench.gateway.record().requests, 0);
}

#[tokio::test]
async fn the_rehearsal_passes_through_the_same_relay() {
    let mut bench = Bench::with(Endpoint::rehearsal(), limits()).await;
    let tools = json!([{"type": "function", "function": {"name": "bash", "parameters": {}}}]);
    let mut request = question();
    request["tools"] = tools;
    let body = bench.post(&request).await.text().await.expect("a text");
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    assert!(
        bench
            .told()
            .iter()
            .any(|event| matches!(event, Traffic::ToolCall { name, .. } if name == "bash"))
    );
    assert_eq!(bench.gateway.record().finish_reasons, [Some("tool_calls".to_owned())]);
}

#[tokio::test]
async fn a_stream_ends_for_the_agent_when_the_server_says_so_even_if_it_holds_the_line() {
    let server = Server::start(|_, _, mut line| async move {
        line.begin_stream().await;
        line.event(&finish("stop")).await;
        line.chunk(&sse::encode_done()).await;
        line.hung_up().await;
    })
    .await;
    let bench = Bench::open(&server.url()).await;
    let (status, _) =
        tokio::time::timeout(Duration::from_millis(300), bench.ask()).await.expect("at once");
    assert_eq!(status, 200);
    assert_eq!(bench.gateway.record().answers, 1);
}

#[tokio::test]
async fn a_large_task_passes() {
    let server =
        Server::start(|_, _, mut line| async move { line.answer(&[finish("stop")]).await }).await;
    let limits = crate::gateway::Limits::default();
    let bench = Bench::with(crate::gateway::testing::endpoint(&server.url()), limits).await;
    let mut request = question();
    request["messages"][0]["content"] = json!("ä\u{0} \"x\"\n".repeat(400_000));
    let response = bench.post(&request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(server.seen()[0].json()["messages"], request["messages"]);
}
