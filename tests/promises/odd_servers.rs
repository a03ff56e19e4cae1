//! Model servers that leave the letter of the API: the agent works with them all the same, or the
//! report names the server's fault and its remedy.

use crate::common::{Answer, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

/// A stream of these events, as it stands here and without the closing event.
fn events(events: &[String]) -> Reply {
    Reply::Plain {
        status: 200,
        headers: vec![("content-type", "text/event-stream".into())],
        body: events.iter().map(|event| format!("data: {event}\n\n")).collect::<Vec<_>>().concat(),
    }
}

fn delta(delta: &Value, finish: Option<&str>) -> String {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).to_string()
}

fn counted(tokens: u64) -> String {
    let usage = json!({"prompt_tokens": 50, "completion_tokens": tokens, "completion_tokens_details": {"reasoning_tokens": 2}});
    json!({"choices": [], "usage": usage}).to_string()
}

fn write(name: &str) -> Value {
    json!({"command": format!("echo it > {name}"), "description": "Writes"})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_gets_one_form_of_what_they_send() {
    let object = json!({"name": "bash", "arguments": write("object")});
    let call = |arguments: Value| json!({"index": 0, "function": {"name": "bash", "arguments": arguments}});
    let whole = json!({"choices": [{"message": {"content": null, "tool_calls": [
        {"id": "w", "type": "function", "function": {"name": "bash", "arguments": write("whole").to_string()}},
    ]}, "finish_reason": "stop"}]});
    let script = Script::new(events(&[
        delta(&json!({"role": "", "tool_calls": [{"function": object}]}), None),
        delta(&json!({}), Some("tool_calls")),
    ]))
    .then(events(&[
        delta(&json!({"tool_calls": [call(json!(write("one").to_string()))]}), None),
        delta(&json!({"tool_calls": [call(json!(write("two").to_string()))]}), Some("stop")),
    ]))
    .then(Reply::Plain { status: 200, headers: vec![], body: whole.to_string() })
    .then(events(&[
        r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"Good \ud83d"}]}}]}"#.into(),
        r#"{"choices":[{"delta":{"content":"\ude00 morning"},"finish_reason":"eos_token"}]}"#.into(),
    ]));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "work"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["answer"], "Good 😀 morning");
    for name in ["object", "one", "two", "whole"] {
        assert_eq!(workspace.read(name), "it\n", "{report:#}");
    }
    assert_eq!(report["tools"], json!([{"name": "bash", "calls": 4, "errors": 0}]));
    assert_eq!(model.steps().len(), 4, "none was asked twice");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_they_refuse_is_left_out_for_the_rest_of_the_run() {
    let refusal = "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra inputs are not permitted'}]";
    let script = Script::new(Reply::error(400, refusal)).then_bash("true").then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "work"]).await;

    assert_eq!(run.assert_status("completed")["answer"], "Done.");
    let bodies: Vec<_> = model.steps().into_iter().map(|step| step.body).collect();
    let options: Vec<_> = bodies.iter().map(|body| body.get("stream_options").is_some()).collect();
    assert_eq!(options, [true, false, false]);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_did_nothing_are_not_completed() {
    let written = "I do it.\n<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>";
    let broken = "{\"command\": \"ls #\", }}#";
    let unusable = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "bash", "arguments": broken}}]});
    for (reply, kind, remedy) in [
        (Reply::say(written), "call_as_text", "--tool-call-parser"),
        (
            events(&[
                delta(&json!({"reasoning": "I make the note, "}), Some("stop")),
                counted(40),
            ]),
            "parser_mismatch",
            "--tool-call-parser",
        ),
        (
            events(&[delta(&unusable, Some("tool_calls")), counted(9)]),
            "unusable_calls",
            "--tool-call-parser",
        ),
        (
            events(&[delta(&json!({"content": "half"}), Some("abort")), counted(9)]),
            "stream_cut",
            "log",
        ),
        (
            events(&[
                delta(&json!({"content": "half"}), Some("length")),
                json!({"choices": [], "usage": {"prompt_tokens": 131_000, "completion_tokens": 72}})
                    .to_string(),
            ]),
            "context_overflow",
            "context",
        ),
    ] {
        let model = Model::start(Script::new(reply)).await;
        let product = Product::with_model(&model).await;
        let workspace = Workspace::new();
        let run = product.run(&workspace, ["--json", "--timeout", "100", "work"]).await;
        let report = run.assert_status("model_error");
        assert_eq!(report["error"]["kind"], kind, "{report:#}");
        let hint = report["error"]["hint"].as_str().expect("a hint");
        assert!(hint.contains(remedy), "{hint}");
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_words_that_come_as_thoughts_are_the_answer_and_thoughts_before_it_are_not() {
    for (closing, answer) in [
        (Part::Reasoning("The folder is empty.".into()), "The folder is empty."),
        (Part::Text("<think>Be brief.</think>\n\nIt is empty.".into()), "It is empty."),
    ] {
        let script = Script::bash("ls").then(Answer::new([closing]));
        let model = Model::start(script).await;
        let product = Product::with_model(&model).await;
        let workspace = Workspace::new();
        let run = product.run(&workspace, ["--json", "look"]).await;
        assert_eq!(run.assert_status("completed")["answer"], answer);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_vanished_beside_words_is_doubted() {
    let words = delta(&json!({"content": "I write the note."}), Some("stop"));
    let model = Model::start(Script::new(events(&[words, counted(60)]))).await;
    let product = Product::with_model(&model).await;
    let run = product.run(&Workspace::new(), ["--json", "write a note"]).await;
    let report = run.assert_status("completed");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("60 tokens") && remarks.contains("--tool-call-parser"), "{remarks}");
    product.check_nothing_left().await;
}
