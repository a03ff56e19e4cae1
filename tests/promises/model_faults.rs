//! Each way in which a model server fails is a typed end, in the server's own words, promptly:
//! never a silent retry until the timeout.

use std::time::Duration;

use crate::common::model::Options;
use crate::common::{Answer, Finished, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

/// Far below what the agent's own retries take (76 s to for ever), above any start on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(40);

/// Limits on waiting that a test can wait for, and each fault by itself: what comes of another try is
/// in `goes_on`.
const IMPATIENT: &str =
    "[model]\nfirst_byte_timeout = 3\nstall_timeout = 3\n[agent]\ncontinue = 0\n";

struct Outcome {
    report: Value,
    run: Finished,
}

impl Outcome {
    #[track_caller]
    fn is(&self, status: &str, words: &str) {
        assert_eq!(self.report["status"], status, "{:#}\n{}", self.report, self.run.stderr);
        self.run.assert_code(1);
        assert!(self.run.took < PROMPTLY, "it took {:?}", self.run.took);
        let error = &self.report["error"];
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains(words), "`{words}` is not in: {error:#}");
        assert!(error["kind"].as_str().is_some_and(|kind| !kind.is_empty()), "{error:#}");
        assert!(
            error["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
            "what to do next: {error:#}"
        );
    }
}

async fn outcome(model: &Model) -> Outcome {
    let product = Product::with_model(model).await.config(IMPATIENT);
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--timeout", "100", "do something"]).await;
    product.check_nothing_left().await;
    Outcome { report: run.report(), run }
}

/// The fault as the first thing the agent meets.
async fn at_once(fault: impl Into<Reply>) -> Outcome {
    outcome(&Model::start(Script::new(fault)).await).await
}

/// The fault after a step that worked.
async fn later(fault: impl Into<Reply>) -> Outcome {
    let outcome =
        outcome(&Model::start(Script::bash("echo half > done.txt").then(fault)).await).await;
    assert_eq!(
        outcome.report["changes"]["files"],
        json!([{"path": "done.txt", "change": "added"}]),
        "what was done is told"
    );
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn refused() {
    let product = Product::new().await;
    let workspace = Workspace::new();
    let url = Model::refused_url();
    let run = product.run(&workspace, ["--json", "--model-url", &url, "anything"]).await;
    let outcome = Outcome { report: run.report(), run };
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    outcome.is("model_unreachable", address);
    assert!(
        outcome.run.took < Duration::from_secs(15),
        "known before a container starts: {:?}",
        outcome.run.took
    );
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_such_host() {
    let product = Product::new().await;
    let workspace = Workspace::new();
    let url = "http://no-such-host.invalid:8000/v1";
    let run = product.run(&workspace, ["--json", "--model-url", url, "anything"]).await;
    let outcome = Outcome { report: run.report(), run };
    outcome.is("model_unreachable", "no-such-host.invalid");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_in_the_middle_of_an_answer() {
    later(Reply::Vanish).await.is("model_error", "closed the connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_between_two_requests() {
    let model = Model::start(Script::bash("touch on; until [ -e go ]; do sleep 0.05; done")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--events", "wait"]);
    run.stdout.says("tool_started").await;

    let address = model.address.to_string();
    drop(model);
    product.put_beside("on", "go").await;
    let run = run.wait().await;

    product.check_nothing_left().await;
    Outcome { report: run.report(), run }.is("model_unreachable", &address);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_request() {
    at_once(Reply::error(400, "the tool parser is not enabled"))
        .await
        .is("model_error", "the tool parser is not enabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn unauthorized() {
    let options = Options { key: Some("the right key".into()), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never said"))]).await;
    outcome(&model).await.is("model_error", "Incorrect API key provided");
}

#[tokio::test(flavor = "multi_thread")]
async fn not_found() {
    at_once(Reply::error(404, "The model `x` does not exist."))
        .await
        .is("model_error", "The model `x` does not exist.");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests() {
    let busy = Reply::error(429, "the queue is full").header("retry-after", "3600");
    later(busy).await.is("model_error", "the queue is full");
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_server_error() {
    later(Reply::error(500, "CUDA out of memory")).await.is("model_error", "CUDA out of memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxys_error_page() {
    let page = "<html><h1>502 Bad Gateway</h1></html>".into();
    let reply = Reply::Plain { status: 502, headers: vec![], body: page };
    at_once(reply).await.is("model_error", "502 Bad Gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_json() {
    let body = "It works! This is the wrong server.".into();
    let reply = Reply::Plain { status: 200, headers: vec![], body };
    at_once(reply).await.is("model_error", "This is the wrong server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_json() {
    let broken =
        Answer::new([Part::Raw("data: {\"choices\": [oops\n\n".into()), Part::Text("hm".into())]);
    at_once(broken).await.is("model_error", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_inside_the_stream() {
    let error =
        json!({"error": {"message": "the engine core died", "type": "internal", "code": 500}});
    let reply =
        Answer::new([Part::Text("I ".into()), Part::Raw(format!("data: {error}\n\n")), Part::End]);
    later(reply).await.is("model_error", "the engine core died");
}

#[tokio::test(flavor = "multi_thread")]
async fn context_overflow() {
    let words =
        "This model's maximum context length is 4096 tokens. However, you requested 15000 tokens";
    at_once(Reply::error(400, words))
        .await
        .is("model_error", "maximum context length is 4096 tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_in_the_text() {
    later(Answer::new([Part::Text("I was about".into()), Part::Cut])).await.is("model_error", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_cut_in_a_tool_call() {
    let half = Part::HalfCall { name: "bash".into(), args: "{\"command\": \"touch never".into() };
    later(Answer::new([half, Part::Cut])).await.is("model_error", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_in_the_middle() {
    later(Answer::new([Part::Text("I was about".into()), Part::End])).await.is("model_error", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_stalls() {
    later(Answer::new([Part::Text("I was about".into()), Part::Stall]))
        .await
        .is("model_error", "3 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_never_answered() {
    later(Reply::Silence).await.is("model_unreachable", "3 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_byte_within_the_limit_is_no_fault() {
    let slow =
        Answer::new([Part::Pause(Duration::from_secs(3)), Part::Text("Slow, but here.".into())]);
    let model = Model::start(Script::new(slow)).await;
    let product = Product::with_model(&model)
        .await
        .config("[model]\nfirst_byte_timeout = 60\nstall_timeout = 1\n");
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "take your time"]).await;
    assert_eq!(run.assert_status("completed")["answer"], "Slow, but here.");
    assert_eq!(model.steps().len(), 1, "asked once");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_completion() {
    let outcome = at_once(Answer::new([])).await;
    outcome.is("no_output", "");
    assert_eq!(outcome.report["answer"], "");
}

#[tokio::test(flavor = "multi_thread")]
async fn thoughts_without_words() {
    at_once(Answer::new([Part::Reasoning("hm".into())])).await.is("no_output", "");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_models_in_the_list() {
    let empty = Reply::Plain {
        status: 200,
        headers: vec![],
        body: json!({"object": "list", "data": []}).to_string(),
    };
    let options = Options { models: Some(empty), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never said"))]).await;
    outcome(&model).await.is("model_error", "model");
    assert_eq!(model.steps().len(), 0, "nothing was asked of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_models_that_is_none() {
    let page =
        Reply::Plain { status: 200, headers: vec![], body: "<html>a router's page</html>".into() };
    let model = Model::with(
        Options { models: Some(page), ..Options::default() },
        [("", Script::say("never said"))],
    )
    .await;
    outcome(&model).await.is("model_error", "a router's page");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bad_call_again_and_again() {
    // A small model that repeats itself would go on for ever; the bound on requests ends it.
    let model = Model::start(Script::call("bash", json!({"wrong": "again"}))).await;
    let product = Product::with_model(&model).await.config("[limits]\nmax_requests = 12\n");
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "loop"]).await;
    run.assert_status("budget_exhausted");
    run.assert_code(1);
    let asked = model.steps().len();
    assert!((3..=12).contains(&asked), "asked {asked} times");
    product.check_nothing_left().await;
}
