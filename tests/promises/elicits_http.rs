//! The same questions over HTTP, where an answer comes in a request of its own, a connection may
//! break while a person thinks, and others speak to the same server.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::Web;
use crate::common::web::Client;
use crate::elicits::{ELICIT, arguments, assert_refused, assert_untouched, no, trusted, yes};
use crate::outcome::{RUN, Result};

async fn house() -> (Result, Web) {
    let result = trusted();
    let web = Web::start(&result.product, &result.workspace).await;
    (result, web)
}

async fn close(result: Result, web: Web) {
    web.stop().await.assert_code(0);
    result.product.check_nothing_left().await;
}

fn host(web: &Web) -> Client<'_> {
    web.client().able(json!({"elicitation": {}}))
}

async fn with_session<'a>(web: &'a Web, version: &'static str) -> Client<'a> {
    let mut client = host(web);
    client.initialize(version).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_comes_on_the_stream_of_its_call() {
    for version in ["2025-06-18", "2025-11-25"] {
        let (result, web) = house().await;
        let client = with_session(&web, version).await;
        // Where a host listens for other things, this is none of them.
        let _listening = client.listen(None).await;
        let (_, mut stream) = client.post("tools/call", arguments()).await;
        let (question, params) = stream.asked(ELICIT).await;
        let message = params["message"].as_str().expect("a message");
        assert!(message.contains("- `.envrc` (added): shells or version managers"), "{message}");
        assert_untouched(&result).await;
        client.reply(&question, yes()).await;
        let done = stream.result().await;
        assert_eq!(done["structuredContent"]["state"], "applied", "{done:#}");
        assert_eq!(result.workspace.read(".envrc"), "export A=1");
        close(result, web).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_changes_nothing_and_stands_in_every_session() {
    let (result, web) = house().await;
    let client = with_session(&web, "2025-11-25").await;
    for (said, kind) in [
        (json!({"action": "cancel"}), "not_answered"),
        (json!({"action": "decline", "content": {"allow": true}}), "not_answered"),
        (no(), "declined"),
    ] {
        let (_, mut stream) = client.post("tools/call", arguments()).await;
        let (question, _) = stream.asked(ELICIT).await;
        client.reply(&question, said).await;
        assert_refused(&result, &stream.result().await, kind).await;
    }
    // A model cannot ask again by another door.
    for other in [with_session(&web, "2025-11-25").await, host(&web).modern()] {
        let answer = other.ask("tools/call", arguments()).await;
        assert_refused(&result, &answer, "not_asked").await;
        assert!(answer.to_string().contains("has said no"), "{answer:#}");
    }
    close(result, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_ask_is_told_how_a_person_does_it() {
    let (result, web) = house().await;
    for client in [web.greeted().await, web.client().modern()] {
        let answer = client.ask("tools/call", arguments()).await;
        assert_refused(&result, &answer, "protected").await;
        let hint = answer["structuredContent"]["error"]["hint"].as_str().expect("a hint");
        assert!(hint.contains("sandbox-mcp apply RUN --allow-protected"), "{hint}");
    }
    close(result, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_session_answers_no_question_of_this_one() {
    let (result, web) = house().await;
    let client = with_session(&web, "2025-11-25").await;
    let other = with_session(&web, "2025-11-25").await;
    let (_, mut stream) = client.post("tools/call", arguments()).await;
    let (question, _) = stream.asked(ELICIT).await;
    let body = json!({"jsonrpc": "2.0", "id": question, "result": yes()});
    // Its numbers are its own: this one names nothing there, and later a question of its own.
    other.tell(&body).await;
    assert_untouched(&result).await;
    let (_, mut others) = other.post("tools/call", arguments()).await;
    let (own, _) = others.asked(ELICIT).await;
    other.reply(&own, json!({"action": "cancel"})).await;
    assert_refused(&result, &others.result().await, "not_answered").await;
    // Nor does somebody without a session, or with one that is made up.
    let stranger = host(&web);
    assert!(stranger.tell(&body).await.is_client_error());
    let mut stranger = host(&web);
    (stranger.session, stranger.version) = (Some("x".repeat(32)), Some("2025-11-25"));
    assert_eq!(stranger.tell(&body).await, StatusCode::NOT_FOUND);
    host(&web).modern().tell(&body).await;
    assert_untouched(&result).await;

    client.reply(&question, no()).await;
    assert_refused(&result, &stream.result().await, "declined").await;
    close(result, web).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_while_a_person_thinks_withdraws_the_question() {
    let (result, web) = house().await;
    let client = with_session(&web, "2025-11-25").await;
    let (id, mut stream) = client.post("tools/call", arguments()).await;
    let (question, _) = stream.asked(ELICIT).await;
    let last = stream.last_id.clone().expect("events have ids");
    drop(stream);
    // Who comes back hears that at once, and a late yes is none.
    let mut again = client.listen(Some(&last)).await;
    let answer = again.response().await.expect("the answer");
    assert_eq!(answer["id"], id);
    assert_refused(&result, &answer["result"], "not_answered").await;
    assert!(answer.to_string().contains("the connection broke"), "{answer:#}");
    client.reply(&question, yes()).await;
    client.ask("ping", json!({})).await;
    assert_untouched(&result).await;

    // Nor does a session that ends, or the server.
    let (_, mut stream) = client.post("tools/call", arguments()).await;
    stream.asked(ELICIT).await;
    assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
    // The refusal may still get out before the stream ends.
    if let Some(answer) = stream.response().await {
        assert_refused(&result, &answer["result"], "cancelled").await;
    }
    assert_untouched(&result).await;
    let client = with_session(&web, "2025-11-25").await;
    let (_, mut stream) = client.post("tools/call", arguments()).await;
    stream.asked(ELICIT).await;
    web.server.signal(rustix::process::Signal::TERM);
    assert_refused(&result, &stream.result().await, "cancelled").await;
    close(result, web).await;
}

async fn question(client: &Client<'_>) -> String {
    let asked = client.ask("tools/call", arguments()).await;
    assert_eq!(asked["resultType"], "input_required", "{asked:#}");
    assert_eq!(asked["inputRequests"]["allow"]["method"], ELICIT, "{asked:#}");
    asked["requestState"].as_str().expect("a state").to_owned()
}

async fn again(client: &Client<'_>, state: &str, said: Value) -> Value {
    let params = json!({
        "name": "apply_changes", "arguments": {"run_id": RUN},
        "requestState": state, "inputResponses": {"allow": said},
    });
    client.ask("tools/call", params).await
}

/// Each of these requests has a connection and a server object of its own.
#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_the_question_is_the_answer_and_good_for_one() {
    let (result, web) = house().await;
    let client = host(&web).modern();
    let state = question(&client).await;
    // A name that nobody was given opens nothing, and does not close what is open.
    let made_up = again(&client, &"0".repeat(32), yes()).await;
    assert!(made_up.to_string().contains("no open question"), "{made_up:#}");
    assert_untouched(&result).await;
    let done = again(&client, &state, yes()).await;
    assert_eq!(done["structuredContent"]["state"], "applied", "{done:#}");
    assert_eq!(result.workspace.read(".envrc"), "export A=1");
    let twice = again(&client, &state, yes()).await;
    assert!(twice.to_string().contains("no open question"), "{twice:#}");
    close(result, web).await;

    let (result, web) = house().await;
    let client = host(&web).modern();
    let state = question(&client).await;
    let answer = again(&client, &state, no()).await;
    assert_refused(&result, &answer, "declined").await;
    let answer = again(&client, &state, yes()).await;
    assert!(answer.to_string().contains("no open question"), "{answer:#}");
    let answer = client.ask("tools/call", arguments()).await;
    assert_refused(&result, &answer, "not_asked").await;
    close(result, web).await;
}
