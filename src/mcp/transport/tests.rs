use std::time::Duration;

use rmcp::model::{
    CallToolResult, ProgressNotification, ProgressNotificationParam, ProgressToken, ServerResult,
};
use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use super::*;

const LONGEST: usize = 1000;

fn connected() -> (Lines, Ends, DuplexStream, BufReader<DuplexStream>) {
    let (to, reader) = duplex(4096);
    let (writer, from) = duplex(4096);
    let ends = Ends::default();
    (connect(reader, writer, LONGEST, &ends), ends, to, BufReader::new(from))
}

async fn line(from: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).await.expect("an open pipe");
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

fn answer(id: i64) -> ServerJsonRpcMessage {
    let result = ServerResult::CallToolResult(CallToolResult::success(Vec::new()));
    ServerJsonRpcMessage::response(result, RequestId::Number(id))
}

fn news() -> ServerJsonRpcMessage {
    let token = ProgressToken(RequestId::Number(1));
    let progress = ProgressNotification::new(ProgressNotificationParam::new(token, 1.0));
    ServerJsonRpcMessage::notification(progress.into())
}

#[tokio::test]
async fn frames_leave_in_the_order_in_which_they_were_sent() {
    let (mut lines, _ends, _to, mut from) = connected();
    let mut sent = Vec::new();
    for id in 0..100 {
        sent.push(lines.send(answer(id)));
    }
    // Awaited the other way round, as tasks may be.
    let waiting = tokio::spawn(async move {
        for receipt in sent.into_iter().rev() {
            receipt.await.expect("written");
        }
    });
    for id in 0..100 {
        assert_eq!(line(&mut from).await["id"], id);
    }
    waiting.await.expect("no panic");
}

#[tokio::test]
async fn a_host_that_has_left_gets_answers_and_no_news() {
    let (mut lines, ends, to, mut from) = connected();
    lines.send(news()).await.expect("written");
    assert_eq!(line(&mut from).await["method"], "notifications/progress");
    drop(to);
    ends.client_gone.cancelled().await;
    lines.send(news()).await.expect("dropped in silence");
    let nothing = ServerJsonRpcMessage::error(no_answer(), Some(RequestId::Number(1)));
    lines.send(nothing).await.expect("dropped in silence");
    lines.send(answer(2)).await.expect("written");
    assert_eq!(line(&mut from).await["id"], 2);
    lines.close().await.expect("a good end");
    assert_eq!(line(&mut from).await, Value::Null);
}

#[tokio::test]
async fn the_end_of_input_is_known_at_once_and_passed_on_at_the_release() {
    let (mut lines, ends, mut to, _from) = connected();
    // A script may leave out the last newline.
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    to.write_all(ping.as_bytes()).await.expect("an open pipe");
    drop(to);
    ends.client_gone.cancelled().await;
    assert!(lines.receive().await.is_some(), "what came before the end is not lost");
    assert!(timeout(Duration::from_millis(50), lines.receive()).await.is_err());
    ends.release.cancel();
    assert!(lines.receive().await.is_none());
}

#[tokio::test]
async fn nobody_who_reads_is_an_end_too() {
    let (mut lines, ends, _to, from) = connected();
    drop(from);
    assert!(lines.send(answer(1)).await.is_err());
    ends.client_gone.cancelled().await;
}

#[tokio::test]
async fn a_flood_of_bad_lines_piles_up_no_further_than_its_bound() {
    let (lines, ends, mut to, mut from) = connected();
    for _ in 0..10_000 {
        to.write_all(b"42\n").await.expect("read even though nobody takes the refusals");
    }
    drop(to);
    ends.client_gone.cancelled().await;
    let mut refusals = 0;
    while let Ok(Value::Object(_)) = timeout(Duration::from_millis(50), line(&mut from)).await {
        refusals += 1;
    }
    assert!((1..1000).contains(&refusals), "{refusals}");
    drop(lines);
}

#[tokio::test]
async fn a_host_that_does_not_read_is_held_back_until_it_does() {
    let (mut lines, _ends, mut to, mut from) = connected();
    let ping = |id: i64| json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string() + "\n";
    // An answer that fills what may wait.
    let long = "x".repeat(9 << 20);
    let error = ErrorData::invalid_params(long, None);
    let unread = lines.send(ServerJsonRpcMessage::error(error, Some(RequestId::Number(0))));
    to.write_all(ping(1).as_bytes()).await.expect("an open pipe");
    let cancelled = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 },
    });
    to.write_all((cancelled.to_string() + "\n").as_bytes()).await.expect("an open pipe");
    assert!(timeout(Duration::from_millis(100), lines.receive()).await.is_err(), "held back");
    assert_eq!(line(&mut from).await["id"], 0);
    unread.await.expect("written");
    assert!(matches!(lines.receive().await, Some(JsonRpcMessage::Request(_))));
    assert!(matches!(lines.receive().await, Some(JsonRpcMessage::Notification(_))));
}

#[tokio::test]
async fn a_cancellation_finds_its_request_by_the_id_as_a_text() {
    let (mut lines, _ends, mut to, _from) = connected();
    let ping = json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" }).to_string() + "\n";
    let cancelled = json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "2" },
    });
    let cancelled = cancelled.to_string() + "\n";
    to.write_all((ping + &cancelled + &cancelled).as_bytes()).await.expect("an open pipe");
    lines.receive().await.expect("the request");
    for id in [RequestId::Number(2), RequestId::String("2".into())] {
        let Some(JsonRpcMessage::Notification(sent)) = lines.receive().await else {
            panic!("none")
        };
        let ClientNotification::CancelledNotification(sent) = sent.notification else {
            panic!("another")
        };
        assert_eq!(sent.params.request_id, Some(id), "the second finds no open request");
    }
}
