//! The answer is the agent's closing words, whole and nothing else; the numbers are the gateway's.

use crate::common::{Answer, Mcp, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

fn text(words: &str) -> Part {
    Part::Text(words.into())
}

fn call(name: &str, args: &Value) -> Part {
    Part::Call { name: name.into(), args: args.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_words_only_and_true_numbers() {
    let looks = Answer::new([
        Part::Reasoning("I should look first.".into()),
        text("Let me look."),
        call("bash", &json!({"command": "echo one", "description": "Says one"})),
        call("bash", &json!({"command": "exit 3", "description": "Fails"})),
    ]);
    let reads = Answer::new([call("read", &json!({"filePath": "/workspace/not-there.txt"}))]);
    let ends = Answer::new(
        ["The ", "answer: ", "grün, ", "日本", "語 ", "and 🦀.", "\n\nSecond ", "paragraph."]
            .map(text),
    );
    let script = Script::new(looks.tokens(1000, 50, 20))
        .then(reads.tokens(1500, 30, 0))
        .then(ends.tokens(2000, 40, 5));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "think and answer"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["answer"], "The answer: grün, 日本語 and 🦀.\n\nSecond paragraph.");
    assert_eq!(report["error"], json!(null));
    let usage = &report["usage"];
    assert_eq!(
        usage["requests"],
        model.requests().iter().filter(|r| r.method == "POST").count(),
        "{usage}"
    );
    assert_eq!(usage["steps"], 3, "{usage}");
    assert_eq!(usage["input_tokens"], 4500, "{usage}");
    assert_eq!(usage["output_tokens"], 120, "{usage}");
    assert_eq!(usage["reasoning_tokens"], 25, "{usage}");
    let tool = |name: &str| {
        let tools = report["tools"].as_array().expect("tools");
        tools.iter().find(|tool| tool["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(
        tool("bash"),
        json!({"name": "bash", "calls": 2, "errors": 1}),
        "a command that fails is an error"
    );
    assert_eq!(tool("read"), json!({"name": "read", "calls": 1, "errors": 1}));
    let timing = &report["timing"];
    let parts = ["queued_ms", "prepare_ms", "boot_ms", "agent_ms", "cleanup_ms"];
    let sum: u64 = parts.iter().map(|part| timing[part].as_u64().expect("a time")).sum();
    let total = timing["total_ms"].as_u64().expect("total");
    assert!(sum <= total && sum * 10 >= total * 8, "the parts explain the whole: {timing}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_at_the_models_limit_is_truncated_and_kept() {
    let model =
        Model::start(Script::new(Answer::new([text("As I was say")]).finish("length"))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "talk"]).await;

    let report = run.assert_status("truncated");
    run.assert_code(1);
    assert_eq!(report["answer"], "As I was say");
    assert!(report["error"]["message"].is_string(), "{report:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn words_before_the_last_tool_are_no_answer() {
    // Work and talk first, then an end without a word: that is no output, whatever was said before.
    let talks = Answer::new([
        text("I will now do it."),
        call("bash", &json!({"command": "true", "description": "Does it"})),
    ]);
    let model = Model::start(Script::new(talks).then(Answer::new([]))).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "do it"]).await;

    run.assert_status("no_output");
    run.assert_code(1);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_whole_on_stdout_and_clipped_and_marked_for_a_host() {
    let long =
        (0..5000).map(|line| format!("line {line} of the answer")).collect::<Vec<_>>().join("\n");
    let model = Model::start(Script::say(&long)).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["tell me all"]).await;
    run.assert_code(0);
    assert_eq!(run.stdout.trim_end(), long, "stdout gets every line");

    let mut client = Mcp::start(&product, &workspace).await;
    let result = client.run(json!({"task": "tell me all"})).await;
    let content = &result["structuredContent"];
    let size = content.to_string().len();
    assert!(size <= 8 << 10, "{size} bytes for the host's model");
    let answer = content["answer"].as_str().expect("an answer");
    assert!(answer.starts_with("line 0 of the answer\n"), "{answer}");
    assert!(!answer.contains("line 2500 of"), "clipped");
    assert!(
        answer.contains("clipped") || answer.contains("truncated") || answer.contains('…'),
        "marked: {answer}"
    );
    let transcript = content["transcript"].as_str().expect("a transcript");
    let recorded = std::fs::read_to_string(transcript).expect("the transcript's file");
    assert!(recorded.contains("line 4999 of the answer"), "the rest is on disk");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_tool_call_is_the_agents_trouble_and_not_the_end() {
    let script = Script::call("no_such_tool", json!({"a": 1}))
        .then(Reply::call("bash", json!({"wrong": "arguments"})))
        .then_say("I gave up on tools.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let run = product.run(&workspace, ["--json", "try"]).await;

    let report = run.assert_status("completed");
    assert_eq!(report["answer"], "I gave up on tools.");
    let tools = report["tools"].as_array().expect("tools");
    let errors: u64 = tools.iter().map(|tool| tool["errors"].as_u64().expect("a number")).sum();
    assert_eq!(errors, 2, "{tools:?}");
    product.check_nothing_left().await;
}
