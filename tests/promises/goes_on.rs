//! An agent that was cut, ended without a word or came to a stop is started again in the same
//! sandbox and conversation, so often as is allowed, and the report says so.

use std::time::Duration;

use crate::common::{Answer, Finished, Gate, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

fn text(words: &str) -> Part {
    Part::Text(words.into())
}

async fn run(model: &Model, config: &str) -> (Finished, Value, Workspace) {
    let product = Product::with_model(model).await.config(config);
    let workspace = Workspace::new();
    let run = product.run(&workspace, ["--json", "--timeout", "100", "count the beans"]).await;
    product.check_nothing_left().await;
    let report = run.report();
    (run, report, workspace)
}

#[track_caller]
fn continued(report: &Value) -> Vec<&str> {
    let times = report["continued"].as_array().expect("a list");
    times.iter().map(|time| time["reason"].as_str().expect("a reason")).collect()
}

/// The second part is the same conversation, and what was said next is ours.
#[track_caller]
fn same_conversation(model: &Model, last: usize, ours: &str) {
    let asked = &model.steps()[last];
    let said = asked.said_by("user");
    assert!(said.contains("count the beans") && said.contains(ours), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_answer_that_was_cut_at_the_limit() {
    let script = Script::new(Answer::new([text("One bean, two be")]).finish("length"))
        .then_say("Two beans.");
    let model = Model::start(script).await;
    let (run, report, _) = run(&model, "").await;
    run.assert_status("completed");
    run.assert_code(0);
    assert_eq!(report["answer"], "Two beans.");
    assert_eq!(continued(&report), ["length"]);
    assert!(report["continued"][0]["at_ms"].as_u64().is_some_and(|at| at > 0));
    assert!(report["remarks"].to_string().contains("started again"), "{report:#}");
    assert_eq!(report["usage"]["steps"], 2, "the sums are over all parts");
    assert_eq!(report["usage"]["input_tokens"], 200);
    same_conversation(&model, 1, "cut because it was too long");
    assert!(model.steps()[1].said_by("assistant").contains("One bean, two be"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_silence() {
    let script = Script::bash("echo 2 > beans").then(Answer::new([])).then_say("Two.");
    let model = Model::start(script).await;
    let (run, report, workspace) = run(&model, "").await;
    run.assert_status("completed");
    assert_eq!((report["answer"].as_str(), continued(&report)), (Some("Two."), vec!["silence"]));
    assert_eq!(workspace.read("beans"), "2\n");
    same_conversation(&model, 2, "without an answer");
    assert!(model.steps()[2].body.to_string().contains("echo 2 > beans"), "it knows what it did");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stream_that_was_cut() {
    let script = Script::bash("echo 2 > beans")
        .then(Answer::new([text("I was about"), Part::Cut]))
        .then_bash("cat beans")
        .then_say("Two.");
    let model = Model::start(script).await;
    let (run, report, _) = run(&model, "").await;
    // The agent asks again at once by itself; which request meets which reply is not ours to say.
    run.assert_status("completed");
    assert_eq!((report["answer"].as_str(), continued(&report)), (Some("Two."), vec!["cut"]));
}

/// Stops the agent behind our back where it waits for an answer, which comes once it is stopped.
async fn freeze(config: &str) -> Finished {
    let stop = "touch ready; (setsid sh -c 'until [ -e go ]; do sleep 0.05; done; kill -STOP $0; touch frozen' \
                $PPID > /dev/null 2>&1 &); ps -o comm= -p $PPID";
    let gate = Gate::default();
    let late = Answer::new([text("Thawed.")]).behind(&gate);
    let model = Model::start(Script::bash(stop).then(late)).await;
    let limits = "[limits]\nstall = 9\n[model]\nfirst_byte_timeout = 9\n";
    let product = Product::with_model(&model).await.config(&format!("{limits}{config}"));
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "--timeout", "100", "freeze"]);
    model.step(2).await;
    product.put_beside("ready", "go").await;
    product.made("frozen").await;
    gate.open();
    let run = run.wait().await;
    product.check_nothing_left().await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_standstill() {
    let run = freeze("").await;
    let report = run.assert_status("completed");
    assert_eq!((report["answer"].as_str(), continued(&report)), (Some("Thawed."), vec!["stalled"]));
    assert!(run.took < Duration::from_secs(90), "{:?}", run.took);

    let run = freeze("[agent]\ncontinue = 0\n").await;
    let report = run.assert_status("failed");
    assert_eq!(report["error"]["kind"], "stalled", "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_takes_its_time_is_no_standstill() {
    let model = Model::start(Script::bash("sleep 16").then_say("Waited.")).await;
    let (run, report, _) =
        run(&model, "[limits]\nstall = 9\n[model]\nfirst_byte_timeout = 9\n").await;
    run.assert_status("completed");
    assert_eq!(continued(&report), [] as [&str; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_often() {
    let cut = || Answer::new([text("and ")]).finish("length");
    let model = Model::start(Script::new(cut())).await;
    let (run, report, _) = run(&model, "[agent]\ncontinue = 2\n").await;
    run.assert_status("truncated");
    assert_eq!(continued(&report), ["length", "length"]);
    assert_eq!((model.steps().len(), report["answer"].as_str()), (3, Some("and")));
}

#[tokio::test(flavor = "multi_thread")]
async fn never_where_it_is_switched_off_or_would_meet_the_same() {
    let model = Model::start(Script::new(Answer::new([text("Half")]).finish("length"))).await;
    let (run, report, _) = run(&model, "[agent]\ncontinue = 0\n").await;
    run.assert_status("truncated");
    assert_eq!((continued(&report).len(), model.steps().len()), (0, 1));

    let model = Model::start(Script::new(Reply::error(400, "no such tool parser"))).await;
    let (run, report, _) = self::run(&model, "").await;
    run.assert_status("model_error");
    assert_eq!(continued(&report).len(), 0);

    let model = Model::start(Script::bash("true").then(Answer::new([]))).await;
    let (run, report, _) = self::run(&model, "[limits]\nmax_requests = 2\n").await;
    run.assert_status("budget_exhausted");
    assert_eq!(report["usage"]["requests"], 2, "the budget is that of the whole run: {report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_last_is_checked() {
    let script = Script::new(Answer::new([text("Ha")]).finish("length"))
        .then_bash("touch done.txt")
        .then_say("Done.");
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let check = "[ -e done.txt ]";
    let run = product.run(&workspace, ["--json", "--verify", check, "count the beans"]).await;
    let report = run.assert_status("completed");
    assert_eq!(continued(&report), ["length"]);
    let verify = &report["verify"];
    assert_eq!((&verify["before"]["exit_code"], &verify["passed"]), (&json!(1), &json!(true)));
    product.check_nothing_left().await;
}
