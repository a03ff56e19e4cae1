//! A run belongs to the machine and not to the connection: it goes on without its client where that
//! was wanted, ends cleanly without it where not, and any process can look at it and stop it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::common::{
    Answer, Gate, Mcp, Model, Part, Product, Script, Workspace, eventually, leftovers,
};

mod in_line;

/// "Within seconds", with room for a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

/// Uses a tool, then waits at the gate and answers.
fn gated(gate: &Gate) -> Script {
    Script::bash("echo made > made.txt")
        .then(Answer::new([Part::Text("It went on.".into())]).behind(gate))
}

/// Starts a run in the background and gives its id, when it is in the middle of its work.
async fn in_background(client: &mut Mcp, model: &Model, task: Value) -> String {
    let asked = Instant::now();
    let result = client.run(task).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "it answers at once: {:?}", asked.elapsed());
    let id = assert_running(&result);
    model.step(2).await;
    id
}

fn assert_running(result: &Value) -> String {
    let content = &result["structuredContent"];
    assert_eq!((&content["status"], &result["isError"]), (&json!("running"), &json!(false)));
    assert!(content["next"].as_str().is_some_and(|next| next.contains("get_run")), "{result:#}");
    content["run_id"].as_str().expect("an id").to_owned()
}

async fn get_run(client: &mut Mcp, id: &str, wait: u64) -> Value {
    client.tool("get_run", json!({ "run_id": id, "wait_seconds": wait })).await
}

fn owner_of(product: &Product, id: &str) -> Pid {
    let path = product.folder("state").join("runs").join(id).join("owner");
    let owner = std::fs::read_to_string(path).expect("an owner");
    let pid = owner.split('.').next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    pid.expect("a pid")
}

fn report_of(product: &Product, id: &str) -> Value {
    let path = product.folder("state").join("runs").join(id).join("run.json");
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_run_outlives_the_server_and_all_its_group() {
    let gate = Gate::default();
    let model = Model::start(gated(&gate)).await;
    // The server leads a group and a session, as one that a terminal or a supervisor started.
    let product = Product::with_model(&model).await.inside(&["setsid"]);
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let id = in_background(&mut client, &model, json!({"task": "go on", "background": true})).await;
    let group = Pid::from_raw(client.server.pid.cast_signed()).expect("a pid");

    rustix::process::kill_process_group(group, Signal::KILL).expect("killed");
    // Its streams end with it: no run holds them open.
    assert_eq!(client.server.wait().await.signal, Some(9));

    let mut client = Mcp::start(&product, &workspace).await;
    let stands = get_run(&mut client, &id, 0).await;
    assert_eq!(assert_running(&stands), id);
    let content = &stands["structuredContent"];
    assert_eq!(content["phase"], "working", "{stands:#}");
    assert!(content["recent"].to_string().contains("bash"), "{stands:#}");
    assert!(content["elapsed_seconds"].is_u64() && content["runs_ahead"].is_null(), "{stands:#}");
    let listed = client.tool("list_runs", json!({ "state": "running" })).await;
    assert_eq!(listed["structuredContent"]["runs"][0]["run_id"], *id, "{listed:#}");
    let ended = client.tool("list_runs", json!({ "state": "ended" })).await;
    assert_eq!(ended["structuredContent"]["runs"], json!([]));

    gate.open();
    let result = get_run(&mut client, &id, 60).await;
    let content = &result["structuredContent"];
    assert_eq!((&content["status"], &result["isError"]), (&json!("completed"), &json!(false)));
    assert_eq!(content["answer"], "It went on.", "{result:#}");
    assert_eq!(content["changes"]["files"][0]["path"], "made.txt");
    let report = report_of(&product, &id);
    for key in ["run_id", "status", "error", "usage", "tools", "timing", "transcript"] {
        assert_eq!(content[key], report[key], "{key}");
    }
    client.close().await.assert_code(0);
    product.leftovers().check_within(SECONDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_killed_server_leaves_nothing_and_needs_no_next_start() {
    let model = Model::start(Script::bash("trap '' TERM HUP INT; sleep 600")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    client.start_run(json!({"task": "hang"}), "t").await;
    client.progress_says("t", "bash").await;
    product.container_of(&client.server).await;

    client.server.signal(Signal::KILL);
    assert_eq!(client.server.wait().await.signal, Some(9));

    product.leftovers().check_within(SECONDS).await;
    let runs = std::fs::read_dir(product.folder("state").join("runs")).expect("records");
    let ids: Vec<_> = runs.flatten().map(|run| run.file_name()).collect();
    let [id] = ids.as_slice() else { panic!("one run: {ids:?}") };
    let report = report_of(&product, id.to_str().expect("an id"));
    assert_eq!(report["status"], "cancelled", "{report:#}");
    assert_eq!(report["error"]["message"], "the program that asked for it was ended");
    assert_eq!(report["usage"]["requests"], 1, "what had been done is told: {report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_outlasts_its_host_goes_on_without_it() {
    let gate = Gate::default();
    let model = Model::start(gated(&gate)).await;
    let product = Product::with_model(&model).await.config("[mcp]\nsync_limit = 5\n");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let asked = Instant::now();
    let id = assert_running(&client.run(json!({"task": "take your time"})).await);
    assert!(asked.elapsed() >= Duration::from_secs(5), "{:?}", asked.elapsed());
    // It waits no longer than a call may last.
    let asked = Instant::now();
    assert_running(&get_run(&mut client, &id, 600).await);
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    model.step(2).await;
    client.close().await.assert_code(0);

    let mut client = Mcp::start(&product, &workspace).await;
    assert_running(&get_run(&mut client, &id, 0).await);
    gate.open();
    let end = eventually_over(&mut client, &id).await;
    assert_eq!(end["structuredContent"]["answer"], "It went on.", "{end:#}");
    client.close().await.assert_code(0);
    product.leftovers().check_within(SECONDS).await;
}

/// Asks until the run is over.
async fn eventually_over(client: &mut Mcp, id: &str) -> Value {
    for _ in 0..20 {
        let result = get_run(client, id, 5).await;
        if result["structuredContent"]["status"] != "running" {
            return result;
        }
    }
    panic!("run {id} does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_runs_are_kept_where_that_is_configured() {
    let gate = Gate::default();
    let model = Model::start(gated(&gate)).await;
    let product = Product::with_model(&model).await.config("[mcp]\nkeep = \"all\"\n");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    client.start_run(json!({"task": "go on"}), "t").await;
    model.step(2).await;
    client.close().await.assert_code(0);
    product.goes_on_alone(|| gate.open(), "It went on.").await;
    product.leftovers().check_within(SECONDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_process_can_cancel_a_run() {
    let hang = Script::bash("trap '' TERM; echo under way; sleep 600");
    let model = Model::start(hang).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut first = Mcp::start(&product, &workspace).await;
    let started = first.run(json!({"task": "hang", "background": true})).await;
    let id = assert_running(&started);
    product.container_of(&first.server).await;
    let mut second = Mcp::start(&product, &workspace).await;

    let cancelled = second.tool("cancel_run", json!({ "run_id": id })).await;
    let content = &cancelled["structuredContent"];
    assert_eq!((&content["run_id"], &content["status"]), (&json!(id), &json!("cancelled")));
    assert_eq!(leftovers::owned("container", first.server.pid), [] as [&str; 0], "{cancelled:#}");
    let again = second.tool("cancel_run", json!({ "run_id": id })).await;
    assert_eq!(again["structuredContent"]["status"], "cancelled", "{again:#}");
    assert!(again["structuredContent"]["note"].to_string().contains("over before"), "{again:#}");
    let end = get_run(&mut first, &id, 0).await;
    assert_eq!(end["structuredContent"]["status"], "cancelled", "{end:#}");

    // The other way round: a run that a shell waits for.
    let run = product.start_run(&workspace, ["--events", "hang"]);
    product.container_of(&run).await;
    let told = product.call(["runs", "cancel", "last"]).await;
    told.assert_code(0);
    assert!(told.stdout.ends_with(" · cancelled\n"), "{}", told.stdout);
    run.wait().await.assert_code(130);
    let told = product.call(["runs", "cancel", "last", "--json"]).await;
    told.assert_code(0);
    assert!(told.stderr.contains("it was over before"), "{}", told.stderr);
    first.close().await.assert_code(0);
    second.close().await.assert_code(0);
    product.leftovers().check_within(SECONDS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_hosts_is_neither_told_nor_stopped() {
    let gate = Gate::default();
    let model = Model::start(gated(&gate)).await;
    let product = Product::with_model(&model).await;
    let (mine, other) = (Workspace::new(), Workspace::new());
    let run = product.start_run(&mine, ["--json", "mine"]);
    model.step(2).await;
    let listed = product.call(["runs", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let id = listed[0]["run_id"].as_str().expect("an id").to_owned();
    let mut client = Mcp::start(&product, &other).await;

    for word in [id.as_str(), "last", "", "../runs", "20260131-235959-k3f9\u{1b}[31m"] {
        for tool in ["get_run", "cancel_run"] {
            let refused = client.tool(tool, json!({ "run_id": word })).await;
            assert_eq!(refused["isError"], true, "{tool} {word}: {refused:#}");
            let text = refused["content"][0]["text"].as_str().expect("text");
            assert!(text.contains("there is no run") && !text.contains('\u{1b}'), "{text}");
        }
    }
    let listed = client.tool("list_runs", json!({})).await;
    assert_eq!(listed["structuredContent"]["runs"], json!([]), "{listed:#}");
    for wrong in [json!({ "run_id": id, "wait_seconds": 601 }), json!({}), json!({ "run_id": 3 })] {
        let refused = client.tool("get_run", wrong).await;
        assert_eq!(refused["isError"], true, "{refused:#}");
    }
    gate.open();
    run.wait().await.assert_status("completed");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_leaves_a_run_to_itself_and_finds_it_again() {
    let gate = Gate::default();
    let model = Model::start(gated(&gate)).await;
    let product = Product::new().await;
    let workspace = Workspace::new();
    let url = model.url();
    let started =
        product.run(&workspace, ["--background", "--model-url", &url, "go on without me"]).await;
    started.assert_code(0);
    let id = started.stdout.trim();
    assert!(leftovers::is_run_id(id), "{started:#?}");
    model.step(2).await;
    gate.open();
    let followed = product.call(["runs", "follow", id]).await;
    followed.assert_code(0);
    assert!(followed.stdout.contains("» It went on."), "{}", followed.stdout);
    assert_eq!(workspace.read("made.txt"), "made\n");
    product.leftovers().check_within(SECONDS).await;

    let refused = product.run(&workspace, ["--background", "--timeout", "999999", "x"]).await;
    refused.assert_code(2);
    assert!(refused.stderr.contains("`timeout` is 999999 seconds"), "{}", refused.stderr);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_own_process_was_killed_has_died_and_nothing_of_it_is_left() {
    let model = Model::start(Script::bash("sleep 600")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let call = client.start_run(json!({"task": "hang"}), "t").await;
    client.progress_says("t", "bash").await;
    let listed = client.tool("list_runs", json!({})).await;
    let id = listed["structuredContent"]["runs"][0]["run_id"].as_str().expect("an id").to_owned();

    rustix::process::kill_process(owner_of(&product, &id), Signal::KILL).expect("killed");
    let told = client.result(call).await;
    let asked = get_run(&mut client, &id, 0).await;
    for result in [&told, &asked] {
        assert_eq!(result["isError"], true, "{result:#}");
        let content = &result["structuredContent"];
        assert_eq!((&content["run_id"], &content["status"]), (&json!(id), &json!("died")));
        assert_eq!(content["error"]["kind"], "died");
    }
    // Settled by who saw it first; only the server itself is there.
    eventually("nothing to be left of the run", SECONDS, || {
        let left = product.leftovers().now();
        (left.len() == 1 && left[0].starts_with("process ")).then_some(())
    })
    .await;
    let died = client.tool("list_runs", json!({ "state": "died" })).await;
    assert_eq!(died["structuredContent"]["runs"][0]["run_id"], *id, "{died:#}");
    let cancelled = client.tool("cancel_run", json!({ "run_id": id })).await;
    assert_eq!(cancelled["structuredContent"]["status"], "died", "{cancelled:#}");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_knows_tasks_gets_one_and_finds_it_again() {
    const TASKS: &str = "io.modelcontextprotocol/tasks";
    let gate = Gate::default();
    let model = Model::routed([("hang", Script::bash("sleep 600")), ("", gated(&gate))]).await;
    let settings = "[mcp]\nsync_limit = 5\n[limits]\nconcurrency = 2\n";
    let product = Product::with_model(&model).await.config(settings);
    let (workspace, other) = (Workspace::new(), Workspace::new());
    let mut client = Mcp::connect(&product, &workspace);
    let hello = client.discover_with(TASKS).await;
    assert_eq!(hello["capabilities"]["extensions"][TASKS], json!({}), "{hello:#}");
    let created = client.run(json!({"task": "take your time"})).await;
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")));
    let id = created["taskId"].as_str().expect("an id").to_owned();
    assert!(leftovers::is_run_id(&id), "{created:#}");
    // Who asks for the background wants a run and no task.
    let hang = json!({"task": "hang", "background": true, "workspace": workspace.at("inner")});
    workspace.write("inner/kept.txt", "kept");
    let second = assert_running(&client.run(hang).await);
    client.close().await.assert_code(0);

    let mut stranger = Mcp::connect(&product, &other);
    stranger.discover_with(TASKS).await;
    for id in [id.as_str(), "", "../x"] {
        for method in ["tasks/get", "tasks/cancel"] {
            let asked = stranger.request(method, json!({ "taskId": id })).await;
            let refused = stranger.answer(asked).await;
            assert_eq!(refused["error"]["code"], -32602, "{method} {id}: {refused}");
        }
    }
    stranger.close().await.assert_code(0);

    let mut client = Mcp::connect(&product, &workspace);
    client.discover_with(TASKS).await;
    let stands = client.ask("tasks/get", json!({ "taskId": id })).await;
    assert_eq!(stands["status"], "working", "{stands:#}");
    gate.open();
    let end = eventually_settled(&mut client, &id).await;
    assert_eq!(end["status"], "completed", "{end:#}");
    assert_eq!(end["result"]["structuredContent"]["answer"], "It went on.", "{end:#}");
    client.ask("tasks/cancel", json!({ "taskId": second })).await;
    let end = eventually_settled(&mut client, &second).await;
    assert_eq!(end["status"], "cancelled", "{end:#}");
    client.close().await.assert_code(0);
    product.leftovers().check_within(SECONDS).await;
}

async fn eventually_settled(client: &mut Mcp, id: &str) -> Value {
    for _ in 0..300 {
        let stands = client.ask("tasks/get", json!({ "taskId": id })).await;
        if stands["status"] != "working" {
            return stands;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("task {id} does not end");
}
