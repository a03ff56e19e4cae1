//! The round trip against models that can, and against those that cannot.

use crate::model::testing::{Line, Seen, Server, finish, text, tool_call, usage};

use super::*;

fn endpoint(server: &Server, source: Source) -> Endpoint {
    Endpoint {
        source,
        base_url: format!("{}/v1", server.url()),
        model: "m".into(),
        ..Endpoint::rehearsal()
    }
}

async fn trip<S, F>(source: Source, script: S) -> Result<RoundTrip, Error>
where
    S: Fn(usize, Seen, Line) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let server = Server::start(script).await;
    tool_round_trip(&endpoint(&server, source)).await
}

#[tokio::test]
async fn a_model_that_can_is_told_from_its_words() {
    let done = trip(Source::Vllm, |number, seen, mut line| async move {
        if number == 0 {
            assert_eq!(seen.json()["tools"][0]["function"]["name"], TOOL);
            line.answer(&[tool_call(0, TOOL, "{\"name\":\"harbour\"}"), finish("tool_calls")])
                .await;
        } else {
            let messages = seen.json()["messages"].clone();
            assert_eq!(messages[2]["tool_calls"][0]["id"], "id-0");
            assert_eq!(messages[3]["tool_call_id"], "id-0");
            line.answer(&[text("It is Cormorant."), finish("stop"), usage(50, 5)]).await;
        }
    })
    .await
    .expect("works");
    assert!(done.used_result && done.counts_tokens && done.total_ms >= done.call_ms);
    assert_eq!(done.answer, "It is Cormorant.");
}

#[tokio::test]
async fn the_rehearsal_can() {
    let done = tool_round_trip(&Endpoint::rehearsal()).await.expect("works");
    assert!(done.used_result && done.answer.starts_with("rehearsal model:"), "{done:?}");
}

#[tokio::test]
async fn vllm_without_its_parser_is_recognised_both_ways() {
    let error = trip(Source::Vllm, |_, _, mut line| async move {
        let said = "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set";
        line.json(400, &json!({"object": "error", "message": said, "code": 400})).await;
    })
    .await
    .expect_err("no parser");
    assert!(error.to_string().contains("restart vLLM with `--enable-auto-tool-choice"), "{error}");

    let error = trip(Source::Vllm, |_, _, mut line| async move {
        let said = "<tool_call>{\"name\": \"lookup_password\"}</tool_call>";
        line.answer(&[text(said), finish("stop")]).await;
    })
    .await
    .expect_err("no parser");
    let said = error.to_string();
    assert!(said.contains("as text") && said.contains("--tool-call-parser"), "{said}");
}

#[tokio::test]
async fn each_way_of_failing_is_named() {
    async fn failing(events: Vec<Value>) -> String {
        let error = trip(Source::LlamaCpp, move |_, _, mut line| {
            let events = events.clone();
            async move { line.answer(&events).await }
        })
        .await;
        error.expect_err("a failure").to_string()
    }
    let said = failing(vec![text("I cannot."), finish("stop")]).await;
    assert!(said.contains("called no tool") && said.contains("--jinja"), "{said}");
    let said = failing(vec![text("thinking"), finish("length")]).await;
    assert!(said.contains("output limit"), "{said}");
    let said = failing(vec![tool_call(0, "other", "{}"), finish("tool_calls")]).await;
    assert!(said.contains("`other`"), "{said}");
    let said = failing(vec![tool_call(0, TOOL, "{\"name\""), finish("tool_calls")]).await;
    assert!(said.contains("not a JSON object"), "{said}");
    // A call each time, and never a word.
    let said = failing(vec![tool_call(0, TOOL, "{}"), finish("tool_calls")]).await;
    assert!(said.contains("said nothing after"), "{said}");
    let said = failing(vec![text("half")]).await;
    assert!(
        said.contains("finish")
            || said.contains("nothing after")
            || said.contains("called no tool"),
        "{said}"
    );
}
