//! How long things live over HTTP: calls, runs, streams, sessions and the server itself.

use std::time::{Duration, Instant};

use http::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::web::Client;
use crate::common::{
    Answer, Gate, Model, Part, Product, Script, Web, Workspace, eventually, leftovers,
};

/// What the product promises from the wish to the end.
const PROMISED: Duration = Duration::from_secs(10);

/// "Within seconds", with room for a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

const HANG: &str = "echo under way; sleep 600";

struct House {
    model: Model,
    product: Product,
    _workspace: Workspace,
    web: Web,
}

impl House {
    async fn new(script: Script, config: &str) -> Self {
        let model = Model::start(script).await;
        let product = Product::with_model(&model).await.config(config);
        let workspace = Workspace::new();
        let web = Web::start(&product, &workspace).await;
        Self { model, product, _workspace: workspace, web }
    }

    async fn close(self) {
        self.web.stop().await.assert_code(0);
        self.product.leftovers().check_within(SECONDS).await;
    }

    async fn container_goes(&self) {
        eventually("the container to go", PROMISED, || {
            leftovers::owned("container", self.web.server.pid).is_empty().then_some(())
        })
        .await;
    }
}

/// Uses a tool, then waits at the gate and answers.
fn gated(gate: &Gate) -> Script {
    // Longer than from one message to the next: what is shorter may never be said.
    Script::bash("echo made > made.txt; sleep 2")
        .then(Answer::new([Part::Text("It went on.".into())]).behind(gate))
}

async fn the_run(client: &Client<'_>) -> Value {
    let listed = client.tool("list_runs", json!({})).await;
    listed["structuredContent"]["runs"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_when_its_connection_breaks_and_the_stream_can_be_taken_up_again() {
    let gate = Gate::default();
    let house = House::new(gated(&gate), "").await;
    let client = house.web.greeted().await;
    let (id, mut stream) = client.start_run(json!({"task": "go on"})).await;
    stream.progress_says("bash").await;
    house.model.step(2).await;
    let last = stream.last_id.clone().expect("events have ids");
    drop(stream);

    // Taken up while it goes on, and left again.
    let mut again = client.listen(Some(&last)).await;
    again.progress_says("").await;
    drop(again);
    gate.open();
    let run = loop {
        let run = the_run(&client).await;
        if run["state"] != "running" {
            break run;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(run["status"], "completed", "{run:#}");
    // And after its end, as often as wanted.
    for _ in 0..2 {
        let mut again = client.listen(Some(&last)).await;
        let response = again.response().await.expect("the answer");
        assert_eq!(response["id"], id);
        let content = &response["result"]["structuredContent"];
        assert_eq!(content["answer"], "It went on.", "{response:#}");
        assert_eq!(again.response().await, None, "the stream ends with it");
    }
    let told = client.tool("get_run", json!({ "run_id": run["run_id"] })).await;
    assert_eq!(told["structuredContent"]["answer"], "It went on.", "{told:#}");
    for odd in ["0", "x", "1:none", "99999999999999999999:a"] {
        let mut nothing = client.listen(Some(odd)).await;
        assert_eq!(nothing.message().await, None, "{odd}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_its_connection_is_one_in_the_background_and_outlives_the_server() {
    let gate = Gate::default();
    let house = House::new(gated(&gate), "").await;
    let client = house.web.greeted().await;
    let (_, mut stream) = client.start_run(json!({"task": "go on"})).await;
    stream.progress_says("bash").await;
    house.model.step(2).await;
    drop(stream);
    // The break is noticed at once, but by another process.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let House { product, web, .. } = house;
    web.stop().await.assert_code(0);
    product.goes_on_alone(|| gate.open(), "It went on.").await;
    product.leftovers().check_within(SECONDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_cancels_where_that_is_configured() {
    let house = House::new(Script::bash(HANG), "[http]\ndisconnect = \"cancel\"\n").await;
    let client = house.web.greeted().await;
    let (_, mut stream) = client.start_run(json!({"task": "hang"})).await;
    stream.progress_says("bash").await;
    house.product.container_of(&house.web.server).await;
    drop(stream);
    house.container_goes().await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_notification_ends_the_run_and_the_stream() {
    let house = House::new(Script::bash(HANG), "").await;
    let client = house.web.greeted().await;
    let (id, mut stream) = client.start_run(json!({"task": "hang"})).await;
    stream.progress_says("bash").await;
    house.product.container_of(&house.web.server).await;
    client.cancel(id).await;
    house.container_goes().await;
    assert_eq!(stream.response().await, None, "a cancelled request has no result");
    client.ask("ping", json!({})).await;
    eventually_async(PROMISED, async || the_run(&client).await["status"] == "cancelled").await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_takes_its_calls_along_and_leaves_the_background() {
    let gate = Gate::default();
    let house = House::new(gated(&gate), "").await;
    let (client, other) = (house.web.greeted().await, house.web.greeted().await);
    let started = client
        .tool("run_in_sandbox", json!({"task": "x", "mode": "isolated", "background": true}))
        .await;
    let background = started["structuredContent"]["run_id"].clone();
    house.model.step(2).await;
    let (_, mut stream) = client.start_run(json!({"task": "y", "mode": "isolated"})).await;
    stream.progress_says("started run").await;
    assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
    assert_eq!(stream.response().await, None);
    let mut by_state = Vec::new();
    eventually_async(PROMISED, async || {
        let listed = other.tool("list_runs", json!({})).await;
        let runs = listed["structuredContent"]["runs"].as_array().expect("runs").clone();
        by_state = runs.iter().map(|run| run["status"].clone()).collect();
        by_state == [json!("cancelled"), Value::Null]
    })
    .await;
    let listed = other.tool("list_runs", json!({})).await;
    let deleted = &listed["structuredContent"]["runs"][0]["run_id"];
    let told = other.tool("get_run", json!({ "run_id": deleted })).await;
    let why = &told["structuredContent"]["error"]["message"];
    assert_eq!(why, "the host that asked for it ended its session or went away", "{told:#}");
    gate.open();
    let end = other.tool("get_run", json!({"run_id": background, "wait_seconds": 60})).await;
    assert_eq!(end["structuredContent"]["answer"], "It went on.", "{end:#}");
    house.close().await;
}

async fn eventually_async(within: Duration, mut probe: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !probe().await {
        assert!(Instant::now() < deadline, "waited {within:?} in vain");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_the_end_of_the_stream_is_the_cancellation() {
    for progress in [true, false] {
        let house = House::new(Script::bash(HANG), "").await;
        let client = house.web.client().modern();
        let mut stream = None;
        let call;
        if progress {
            let (_, mut started) = client.start_run(json!({"task": "hang"})).await;
            started.progress_says("bash").await;
            stream = Some(started);
            call = None;
        } else {
            // Nothing is said before the answer, so there is not even a head yet.
            let arguments = json!({"name": "run_in_sandbox", "arguments": {"task": "hang"}});
            let mut pending = Box::pin(client.post("tools/call", arguments));
            let early = tokio::time::timeout(Duration::from_secs(3), &mut pending).await;
            assert!(early.is_err(), "it hangs");
            call = Some(pending);
        }
        house.product.container_of(&house.web.server).await;
        drop((stream, call));
        house.container_goes().await;
        house.close().await;
    }
}

/// Silent for longer than the session may be idle, and the client's own reader hears of life.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_silent_call_outlives_the_clock_of_idle_sessions() {
    let gate = Gate::default();
    let config = "[http]\nsession_idle = 2\nping = 1\n[mcp]\nsync_limit = 0\n";
    let house = House::new(gated(&gate), config).await;
    let client = house.web.greeted().await;
    let arguments = json!({"name": "run_in_sandbox", "arguments": {"task": "be silent"}});
    let (_, mut stream) = client.post("tools/call", arguments.clone()).await;
    house.model.step(2).await;
    let mut pings = 0;
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        let piece = stream.piece().await.expect("the stream stays");
        pings += usize::from(piece.starts_with(':'));
    }
    assert!(pings >= 3, "{pings} signs of life in six seconds");
    gate.open();
    assert_eq!(stream.result().await["structuredContent"]["answer"], "It went on.");
    // Who listens is not idle either; who does neither is forgotten.
    let listening = client.listen(None).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.ask("ping", json!({})).await;
    drop(listening);
    let metrics = async || house.web.metrics().await["sandbox_mcp_http_sessions"].clone();
    eventually_async(SECONDS, async || metrics().await == "0").await;
    let (_, gone) = client.post("ping", json!({})).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    assert_eq!(house.web.metrics().await["sandbox_mcp_http_sessions_forgotten_total"], "1");
    // The version without sessions sends its head before it has anything to say.
    let modern = house.web.client().modern();
    let asked = Instant::now();
    let (_, mut stream) = modern.post("tools/call", arguments).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert_eq!(stream.piece().await.as_deref(), Some(":\n\n"));
    assert_eq!(stream.result().await["structuredContent"]["status"], "completed");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_bounded_and_the_oldest_idle_one_goes_first() {
    let gate = Gate::default();
    let house = House::new(gated(&gate), "[http]\nsessions = 3\n").await;
    let busy = house.web.greeted().await;
    let (_, mut stream) = busy.start_run(json!({"task": "x"})).await;
    stream.progress_says("started run").await;
    let listening = house.web.greeted().await;
    let ears = listening.listen(None).await;
    let idle = house.web.greeted().await;

    let newest = house.web.greeted().await;
    assert_eq!(idle.post("ping", json!({})).await.1.status, StatusCode::NOT_FOUND);
    newest.ask("ping", json!({})).await;
    listening.ask("ping", json!({})).await;
    for _ in 0..20 {
        house.web.greeted().await;
    }
    assert_eq!(house.web.metrics().await["sandbox_mcp_http_sessions"], "3");
    listening.ask("ping", json!({})).await;
    drop(ears);

    // When all are busy, a newcomer is told so.
    let mut calls = vec![stream];
    for _ in 0..2 {
        let client = house.web.greeted().await;
        let (_, mut call) = client.start_run(json!({"task": "x", "mode": "isolated"})).await;
        call.progress_says("started run").await;
        calls.push(call);
    }
    let params = json!({
        "protocolVersion": "2025-11-25", "capabilities": {},
        "clientInfo": {"name": "one too many", "version": "1"},
    });
    let (_, refused) = house.web.client().post("initialize", params).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_ne!(refused.header("retry-after"), "");
    let told = refused.json().await;
    assert_eq!(told["error"], "all 3 sessions of this server are in use", "{told}");
    gate.open();
    for mut call in calls {
        assert_eq!(call.result().await["structuredContent"]["status"], "completed");
    }
    house.web.greeted().await;
    house.close().await;
}

async fn signalled(signal: Signal) {
    let house = House::new(Script::bash(HANG), "").await;
    let client = house.web.greeted().await;
    let listening = client.listen(None).await;
    let (_, mut stream) = client.start_run(json!({"task": "hang"})).await;
    stream.progress_says("bash").await;
    house.product.container_of(&house.web.server).await;
    let House { product, web, .. } = house;
    web.server.signal(signal);
    let result = stream.result().await;
    assert_eq!(result["structuredContent"]["status"], "cancelled", "{result:#}");
    let end = web.server.wait_within(PROMISED).await;
    end.assert_code(0);
    drop(listening);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_the_middle_answers_removes_and_ends() {
    signalled(Signal::TERM).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_does_the_same() {
    signalled(Signal::HUP).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_nine_in_the_middle_leaves_nothing() {
    let house = House::new(Script::bash("trap '' TERM HUP INT; sleep 600"), "").await;
    let client = house.web.greeted().await;
    let (_, mut stream) = client.start_run(json!({"task": "hang"})).await;
    stream.progress_says("bash").await;
    house.product.container_of(&house.web.server).await;
    let House { product, web, .. } = house;
    web.server.signal(Signal::KILL);
    assert_eq!(web.server.wait().await.signal, Some(9));
    product.leftovers().check_within(SECONDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_counted() {
    let script = Script::bash("true").then(Answer::new([Part::Text("Done.".into())]));
    let house = House::new(script, "").await;
    let before = house.web.metrics().await;
    assert_eq!(before["sandbox_mcp_run_duration_seconds_count"], "0");
    assert_eq!(before["sandbox_mcp_runs_running"], "0");
    let client = house.web.greeted().await;
    let result = client.tool("run_in_sandbox", json!({"task": "x"})).await;
    let content = &result["structuredContent"];
    assert_eq!(content["status"], "completed", "{result:#}");
    // A run that is refused is none.
    client.tool("run_in_sandbox", json!({"task": ""})).await;

    let after = house.web.metrics().await;
    let usage = &content["usage"];
    let version = format!("sandbox_mcp_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    for (name, expected) in [
        ("sandbox_mcp_runs_total{status=\"completed\"}", json!(1)),
        ("sandbox_mcp_run_duration_seconds_count", json!(1)),
        ("sandbox_mcp_run_duration_seconds_bucket{le=\"+Inf\"}", json!(1)),
        ("sandbox_mcp_run_queued_seconds_count", json!(1)),
        ("sandbox_mcp_model_requests_total", usage["requests"].clone()),
        ("sandbox_mcp_tokens_total{kind=\"input\"}", usage["input_tokens"].clone()),
        ("sandbox_mcp_tokens_total{kind=\"output\"}", usage["output_tokens"].clone()),
        ("sandbox_mcp_egress_total{verdict=\"refused\"}", json!(0)),
        ("sandbox_mcp_http_sessions", json!(1)),
        ("sandbox_mcp_http_sessions_total", json!(1)),
        (version.as_str(), json!(1)),
    ] {
        assert_eq!(after[name], expected.to_string(), "{name}");
    }
    assert!(usage["input_tokens"].as_u64() > Some(0), "{usage}");
    let number = |name: &str| after[name].parse::<f64>().expect("a number");
    assert!(number("sandbox_mcp_run_duration_seconds_sum") > 0.0);
    assert!(number("sandbox_mcp_http_requests_total{code=\"200\"}") >= 3.0);
    house.close().await;
}
