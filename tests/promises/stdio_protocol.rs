//! The stdio protocol, frame by frame, as hosts of three protocol versions speak it.

use std::time::Duration;

use crate::common::{Answer, Gate, Mcp, Model, Part, Product, Reply, Script, Workspace};
use serde_json::{Value, json};

async fn house(script: Script) -> (Model, Product, Workspace) {
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    (model, product, Workspace::new())
}

/// Checks `value` against the parts of JSON schema that our output schema uses.
#[track_caller]
fn assert_fits(value: &Value, schema: &Value, root: &Value, at: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.trim_start_matches('#');
        let target = root.pointer(pointer).unwrap_or_else(|| panic!("{name} leads nowhere"));
        return assert_fits(value, target, root, at);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let fits = |option: &Value| {
                std::panic::catch_unwind(|| assert_fits(value, option, root, at)).is_ok()
            };
            assert!(options.iter().any(fits), "{at}: {value} fits none of {options:?}");
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at}: {value} is not one of {values:?}");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = |kind: &str| match &schema["type"] {
        Value::String(name) => name == kind,
        Value::Array(names) => names.iter().any(|name| name == kind),
        _ => true,
    };
    assert!(
        allowed(kind) || (kind == "integer" && allowed("number")),
        "{at}: {value} is not {}",
        schema["type"]
    );
    for (name, property) in value.as_object().into_iter().flatten() {
        let described = &schema["properties"][name];
        assert!(
            described.is_object() || schema["properties"].is_null() || described == true,
            "{at}.{name} is not in the schema"
        );
        assert_fits(property, described, root, &format!("{at}.{name}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        assert!(value.get(name).is_some(), "{at}.{name} is missing");
    }
    for item in value.as_array().into_iter().flatten() {
        assert_fits(item, &schema["items"], root, &format!("{at}[]"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_with_initialize_gets_its_version_and_a_result() {
    for version in ["2025-06-18", "2025-11-25"] {
        let (_model, product, workspace) = house(Script::bash("true").then_say("Done.")).await;
        let mut client = Mcp::connect(&product, &workspace);
        let hello = client.initialize(version).await;
        assert_eq!(hello["protocolVersion"], version, "{hello:#}");
        assert_eq!(hello["serverInfo"]["name"], "sandbox-mcp");
        assert_eq!(hello["serverInfo"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(hello["capabilities"]["tools"].is_object());
        client.ping().await;
        let result = client.run(json!({"task": "do it"})).await;
        assert_eq!(result["structuredContent"]["answer"], "Done.", "{result:#}");
        assert!(!client.progress("t").is_empty());
        let end = client.close().await;
        end.assert_code(0);
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_without_initialize_works_by_discovery() {
    let (_model, product, workspace) = house(Script::bash("true").then_say("Done.")).await;
    let mut client = Mcp::connect(&product, &workspace);
    let hello = client.discover().await;
    assert!(hello.to_string().contains("2026-07-28"), "{hello:#}");
    assert!(hello.to_string().contains("sandbox-mcp"), "{hello:#}");
    let tools = client.ask("tools/list", json!({})).await;
    assert!(
        tools["tools"]
            .as_array()
            .is_some_and(|tools| tools.iter().any(|t| t["name"] == "run_in_sandbox"))
    );
    let result = client.run(json!({"task": "do it"})).await;
    assert_eq!(result["structuredContent"]["answer"], "Done.", "{result:#}");
    assert!(!client.progress("t").is_empty());
    let logs = client
        .frames()
        .into_iter()
        .filter(|frame| frame["method"] == "notifications/message")
        .count();
    assert_eq!(logs, 0, "logs only for a request that asked for them");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_describes_itself_and_the_result_fits() {
    let (_model, product, workspace) =
        house(Script::bash("echo x > made.txt").then_say("Done.")).await;
    let mut client = Mcp::start(&product, &workspace).await;

    let tools = client.ask("tools/list", json!({})).await;
    let tool = tools["tools"]
        .as_array()
        .and_then(|tools| tools.iter().find(|tool| tool["name"] == "run_in_sandbox"));
    let tool = tool.expect("run_in_sandbox");
    assert!(tool["description"].as_str().is_some_and(|text| text.len() > 40), "{tool:#}");
    assert_eq!(tool["inputSchema"]["required"], json!(["task"]));
    for argument in ["task", "workspace", "mode", "timeout", "model", "command"] {
        let described = &tool["inputSchema"]["properties"][argument];
        assert!(
            described["description"].is_string() || described["$ref"].is_string(),
            "{argument}: {described}"
        );
    }
    assert_ne!(tool["annotations"]["readOnlyHint"], true, "it can write");

    let result = client.run(json!({"task": "do it"})).await;
    assert_ne!(result["isError"], true);
    let content = &result["structuredContent"];
    let schema = &tool["outputSchema"];
    assert_eq!(schema["type"], "object");
    assert_fits(content, schema, schema, "result");
    let text = result["content"][0]["text"].as_str().expect("the same as text");
    assert_eq!(&serde_json::from_str::<Value>(text).expect("JSON"), content);
    let fields: Vec<&String> = content.as_object().expect("an object").keys().collect();
    assert_eq!(
        fields.iter().position(|field| *field == "run_id"),
        Some(0),
        "essentials first: {text}"
    );
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_an_error_with_its_report() {
    let (_model, product, workspace) =
        house(Script::new(Reply::error(500, "CUDA out of memory"))).await;
    let mut client = Mcp::start(&product, &workspace).await;
    let tools = client.ask("tools/list", json!({})).await;
    let schema = tools["tools"][0]["outputSchema"].clone();
    let result = client.run(json!({"task": "do it"})).await;
    assert_eq!(result["isError"], true, "{result:#}");
    assert_eq!(result["structuredContent"]["status"], "model_error");
    assert!(
        result["structuredContent"]["error"]["message"].to_string().contains("CUDA out of memory")
    );
    assert_fits(&result["structuredContent"], &schema, &schema, "result");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_arguments_are_named_with_what_is_allowed() {
    let (model, product, workspace) = house(Script::say("never asked")).await;
    let mut client = Mcp::start(&product, &workspace).await;
    for (arguments, words) in [
        (json!({}), &["task"][..]),
        (json!({"task": 7}), &["task"]),
        (json!({"task": "x", "mode": "sideways"}), &["mode", "sideways", "direct", "read_only"]),
        (json!({"task": "x", "timeout": 0}), &["timeout", "1 or more"]),
        (json!({"task": "x", "timeout": 999_999}), &["timeout", "3600"]),
        (json!({"task": "x", "timeout": "long"}), &["timeout"]),
        (json!({"task": "x", "command": "no-such"}), &["command", "no-such", "git-commit"]),
        (json!({"task": "x", "workspace": "/etc"}), &["workspace", "/etc"]),
        (json!({"task": "x", "workspace": "/"}), &["workspace"]),
        (json!({"task": "x", "workspace": "../../etc"}), &["workspace"]),
        (json!({"task": "x", "tsak": "y"}), &["tsak"]),
    ] {
        let id = client.start_run(arguments.clone(), "t").await;
        let answer = client.answer(id).await;
        let failed = answer["result"]["isError"] == true || answer["error"].is_object();
        assert!(failed, "{arguments} was accepted: {answer:#}");
        let told = answer.to_string();
        for word in words {
            assert!(told.contains(word), "{arguments}: `{word}` is not in {told}");
        }
    }
    assert_eq!(model.steps().len(), 0);
    client.ping().await;
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_works_outside_the_servers_folder() {
    let (model, product, workspace) = house(Script::say("Done.")).await;
    let other = Workspace::new();
    workspace.write("inside/file.txt", "x");
    std::os::unix::fs::symlink(other.path(), workspace.at("way-out")).expect("a symlink");
    let mut client = Mcp::start(&product, &workspace).await;
    for outside in [other.path().to_owned(), workspace.at("way-out"), workspace.at("inside/../..")]
    {
        let result = client.run(json!({"task": "x", "workspace": outside})).await;
        assert_eq!(result["isError"], true, "{outside:?}: {result:#}");
        assert!(result["content"][0]["text"].to_string().contains("workspace"), "{result:#}");
    }
    assert_eq!(model.steps().len(), 0);
    let result = client.run(json!({"task": "x", "workspace": "inside"})).await;
    assert_eq!(
        result["structuredContent"]["status"], "completed",
        "a folder below is fine: {result:#}"
    );
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_methods_and_tools_and_noise_are_survived() {
    let (_model, product, workspace) = house(Script::say("Done.")).await;
    let mut client = Mcp::connect(&product, &workspace);
    client.initialize("2025-11-25").await;
    let id = client.request("no/such/method", json!({})).await;
    assert_eq!(client.answer(id).await["error"]["code"], -32601);
    let id = client.request("tools/call", json!({"name": "no_such_tool", "arguments": {}})).await;
    let answer = client.answer(id).await;
    assert!(answer["error"].is_object() || answer["result"]["isError"] == true, "{answer:#}");
    client.server.feed(b"this is no JSON\n\n{\"jsonrpc\": \"2.0\"}\n[]\n\xff\xfe\n").await;
    client.ping().await;
    let result = client.run(json!({"task": "still there?"})).await;
    assert_eq!(result["structuredContent"]["status"], "completed", "{result:#}");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_input_before_and_after_the_handshake_is_a_clean_exit() {
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let silent = Mcp::connect(&product, &workspace).close().await;
    silent.assert_code(0);
    assert_eq!(silent.stdout, "");
    let greeted = Mcp::start(&product, &workspace).await.close().await;
    greeted.assert_code(0);
    assert!(greeted.took < Duration::from_secs(10), "{:?}", greeted.took);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_without_an_engine_and_a_call_says_what_is_missing() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    assert!(client.ask("tools/list", json!({})).await["tools"].is_array());
    let result = client.run(json!({"task": "x"})).await;
    assert_eq!(result["structuredContent"]["status"], "sandbox_error", "{result:#}");
    assert!(
        result["structuredContent"]["error"].to_string().contains("/no/such/docker.sock"),
        "{result:#}"
    );
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_increases_is_short_tells_and_never_falls_silent() {
    let gate = Gate::default();
    // Longer than the second within which only the latest news is told.
    let long = format!("sleep 3; echo {}", "very ".repeat(100));
    let mut script = Script::bash(&long);
    for step in 0..6 {
        script = script.then_bash(&format!("echo step {step}"));
    }
    let script = script.then(Answer::new([Part::Text("Done.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await.config("[mcp]\nheartbeat = 1\n");
    let workspace = Workspace::new();
    let mut client = Mcp::start(&product, &workspace).await;
    let id = client.start_run(json!({"task": "do it"}), "t").await;
    client.progress_says("t", "bash: sleep 3; echo").await;
    model.step(8).await;

    // Nothing happens any more: only heartbeats can add to this.
    let silent = client.progress("t").len();
    client
        .server
        .stdout
        .until("three heartbeats", |_, _| (client.progress("t").len() >= silent + 3).then_some(()))
        .await;
    for _ in 0..3 {
        client.ping().await;
    }
    gate.open();
    let answer = client.answer(id).await;
    let took =
        answer["result"]["structuredContent"]["timing"]["total_ms"].as_u64().expect("a time");

    let progress = client.progress("t");
    let values: Vec<f64> =
        progress.iter().map(|params| params["progress"].as_f64().expect("a number")).collect();
    assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "strictly increasing: {values:?}");
    for params in &progress {
        let message = params["message"].as_str().expect("a message");
        assert!(!message.is_empty() && message.chars().count() <= 200, "{message:?}");
        assert!(!message.contains('\n'), "{message:?}");
    }
    let most = usize::try_from(took / 1000).expect("a number") + 4;
    assert!(progress.len() <= most, "{} in {took} ms: about one a second", progress.len());
    let frames = client.frames();
    let end = frames
        .iter()
        .position(|frame| frame["id"] == id && frame["method"].is_null())
        .expect("the answer");
    let late = frames[end..].iter().any(|frame| frame["method"] == "notifications/progress");
    assert!(!late, "no progress after the answer");
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_no_progress() {
    let (_model, product, workspace) = house(Script::bash("true").then_say("Done.")).await;
    let mut client = Mcp::start(&product, &workspace).await;
    let params = json!({"name": "run_in_sandbox", "arguments": {"task": "x"}});
    let id = client.request("tools/call", params).await;
    assert_eq!(client.result(id).await["structuredContent"]["status"], "completed");
    let progress = client
        .frames()
        .into_iter()
        .filter(|frame| frame["method"] == "notifications/progress")
        .count();
    assert_eq!(progress, 0);
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_comes_fast() {
    // A generous bound; the benchmark has the number.
    let product = Product::without_engine();
    let workspace = Workspace::new();
    let began = std::time::Instant::now();
    let mut client = Mcp::start(&product, &workspace).await;
    client.ask("tools/list", json!({})).await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    client.close().await.assert_code(0);
    product.check_nothing_left().await;
}
