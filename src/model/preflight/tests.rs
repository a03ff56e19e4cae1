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

#[tokio::test]
async fn words_that_a_parser_took_are_counted() {
    let thought = |text: &str| json!({"choices": [{"index": 0, "delta": {"reasoning": text}}]});
    let failing = |events: Vec<Value>| async move {
        let error = trip(Source::Vllm, move |_, _, mut line| {
            let events = events.clone();
            async move { line.answer(&events).await }
        })
        .await;
        error.expect_err("a failure").to_string()
    };
    let counted = json!({"choices": [], "usage": {"prompt_tokens": 235, "completion_tokens": 27,
        "completion_tokens_details": {"reasoning_tokens": 2}}});
    // Both gone, and then the call alone.
    let said = failing(vec![thought("I make"), finish("stop"), counted.clone()]).await;
    assert!(said.contains("27 tokens (2 of them reasoning)"), "{said}");
    assert!(said.contains("neither words nor a tool call"), "{said}");
    assert!(said.contains("--reasoning-parser"), "{said}");
    let said = failing(vec![text("I make the note, "), finish("stop"), counted.clone()]).await;
    assert!(said.contains("no tool call and only the words: I make the note,"), "{said}");
    // Words that account for what was counted are what the model wanted to say.
    let long = text("I am afraid that I cannot do this for you, whatever you say.");
    let said = failing(vec![long, finish("stop"), counted]).await;
    assert!(said.contains("called no tool, and said"), "{said}");

    // Closing words that come as thoughts are the answer.
    let done = trip(Source::Vllm, move |number, _, mut line| async move {
        let events = match number {
            0 => [tool_call(0, TOOL, "{\"name\":\"harbour\"}"), finish("tool_calls")],
            _ => [thought("It is Cormorant."), finish("stop")],
        };
        line.answer(&events).await;
    })
    .await
    .expect("works");
    assert!(done.as_thoughts && done.used_result);
    assert_eq!(done.answer, "It is Cormorant.");
}

#[tokio::test]
async fn a_slow_reader_is_measured_and_a_loading_one_waited_for() {
    let done = trip(Source::LlamaCpp, |number, _, mut line| async move {
        match number {
            0 => {
                let said =
                    json!({"error": {"message": "Loading model", "type": "unavailable_error"}});
                line.json(503, &said).await;
            }
            1 => {
                line.begin_stream().await;
                tokio::time::sleep(Duration::from_millis(400)).await;
                line.event(&tool_call(0, TOOL, "{}")).await;
                line.event(&finish("tool_calls")).await;
                line.event(&usage(40, 5)).await;
                line.chunk(b"data: [DONE]\n\n").await;
                line.end_stream().await;
            }
            _ => line.answer(&[text("cormorant"), finish("stop"), usage(50, 5)]).await,
        }
    })
    .await
    .expect("works");
    let reading = done.reading.expect("counted");
    assert_eq!(reading.tokens, 40);
    let whole = reading.of(11_000);
    assert!(whole >= Duration::from_secs(110) && whole < Duration::from_secs(900), "{whole:?}");
}

#[tokio::test]
async fn a_refused_key_is_named() {
    let server = Server::start(|_, _, mut line| async move {
        line.json(401, &json!({"error": "no: sk-0123456789abcdef"})).await;
    })
    .await;
    let endpoint = Endpoint {
        api_key: crate::model::Secret::new("sk-0123456789abcdef"),
        key_variable: "THE_KEY".into(),
        ..endpoint(&server, Source::Vllm)
    };
    let said = tool_round_trip(&endpoint).await.expect_err("locked").to_string();
    assert!(said.contains("refused the key in THE_KEY"), "{said}");
    assert!(!said.contains("sk-0123"), "{said}");
}
