//! `doctor` finds what is wrong and names the remedy; 1 on an error, 0 otherwise.

use std::time::Duration;

use crate::common::model::{MODEL, Options};
use crate::common::{Finished, Model, Product, Reply, Script, Workspace};
use rustix::process::Signal;
use serde_json::Value;

/// All findings of `doctor --json`.
#[track_caller]
fn findings(told: &Finished) -> Vec<Value> {
    let document: Value =
        serde_json::from_str(&told.stdout).unwrap_or_else(|error| panic!("{error}: {told:#?}"));
    let findings = document["findings"].as_array().expect("findings").clone();
    for finding in &findings {
        let keys: Vec<_> = finding.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["area", "check", "level", "message", "remedy"]);
        let text = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("area") && text("check") && text("message"), "{finding:#}");
        assert_eq!(
            text("remedy"),
            finding["level"] != "ok",
            "a remedy where one is due: {finding:#}"
        );
    }
    let errors = at_level(&findings, "error").len();
    assert_eq!(document["ok"], errors == 0, "{document:#}");
    told.assert_code(i32::from(errors != 0));
    findings
}

fn at_level(findings: &[Value], level: &str) -> Vec<String> {
    findings.iter().filter(|one| one["level"] == level).map(Value::to_string).collect()
}

#[track_caller]
fn the<'f>(findings: &'f [Value], area: &str, check: &str) -> &'f Value {
    let found = findings.iter().find(|one| one["area"] == area && one["check"] == check);
    found.unwrap_or_else(|| panic!("nothing about {area}, {check}: {findings:#?}"))
}

/// `doctor ARGS`, started in the workspace.
async fn doctor<'a>(
    product: &Product,
    workspace: &Workspace,
    args: impl IntoIterator<Item = &'a str>,
) -> Finished {
    let mut command = product.command(["doctor"]);
    command.args(args).current_dir(workspace.path());
    product.start(command).wait().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_machine() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let workspace = Workspace::new();

    let told = doctor(&product, &workspace, ["--json"]).await;
    let all = findings(&told);
    assert_eq!(at_level(&all, "error"), [] as [&str; 0]);
    let text = all.iter().map(Value::to_string).collect::<Vec<_>>().join("\n").to_lowercase();
    for subject in
        ["engine", "image", "model", "config", "workspace", "seccomp", "cgroup", MODEL, "131072"]
    {
        assert!(text.contains(subject), "nothing about {subject}: {text}");
    }
    assert_eq!(the(&all, "workspace", "owner")["level"], "ok");
    assert_eq!(the(&all, "model", "tools")["level"], "ok");
    let trips = model.requests().iter().filter(|request| request.method == "POST").count();
    assert_eq!(trips, 2, "one real tool-call round trip");

    let told = doctor(&product, &workspace, []).await;
    told.assert_code(0);
    let lines: Vec<_> = told.stdout.lines().collect();
    assert!(lines.iter().any(|line| line.trim_start().starts_with("ok ")), "{}", told.stdout);
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("  warning")) {
        assert!(lines[at + 1].trim_start().starts_with('→'), "no remedy below {line}");
    }
    assert!(!told.stdout.contains('\u{1b}'), "no colour in a pipe: {:?}", told.stdout);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_engine() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let told = doctor(&product, &Workspace::new(), ["--json", "--deep"]).await;
    let all = findings(&told);
    let error = the(&all, "engine", "found");
    assert_eq!(error["level"], "error");
    assert!(error.to_string().contains("/no/such/docker.sock"), "{error:#}");
    // The rest is examined all the same, and one trouble is one error.
    assert_eq!(the(&all, "model", "tools")["level"], "ok");
    assert_eq!(at_level(&all, "error").len(), 1, "{all:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_and_a_model_server_that_never_answer() {
    let options = Options { models: Some(Reply::Silence), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::without_engine();
    let socket = product.folder("home").join("engine.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let silent = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            held.push(connection);
        }
    });
    let product = product
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("DOCKER_HOST", &format!("unix://{}", socket.display()));
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    assert!(told.took < Duration::from_secs(30), "{:?}", told.took);
    let all = findings(&told);
    assert_eq!(the(&all, "engine", "found")["level"], "error");
    assert_eq!(the(&all, "model", "server")["level"], "error");
    silent.abort();
    std::fs::remove_file(socket).expect("our own socket");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_model_server() {
    let url = Model::refused_url();
    let product = Product::new().await.env("SANDBOX_MCP_MODEL_URL", &url);
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    told.assert_code(1);
    let all = findings(&told);
    let address = url.trim_start_matches("http://").trim_end_matches("/v1");
    let error = the(&all, "model", "server");
    assert_eq!(error["level"], "error");
    assert!(error.to_string().contains(address), "{error:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_engine_that_is_named_is_the_one_that_is_tried() {
    let named = |variables: &[(&str, &str)]| {
        let product = Product::without_engine().without("DOCKER_HOST");
        variables.iter().fold(product, |product, (name, value)| product.env(name, value))
    };
    let podman = [("CONTAINER_HOST", "unix:///no/such/podman.sock")];
    let both = [podman[0], ("DOCKER_HOST", "unix:///no/such/docker.sock")];
    let secured = [
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", "/no/such/certificates"),
    ];
    for (variables, said) in [
        (&podman[..], "/no/such/podman.sock"),
        (&both, "/no/such/docker.sock"),
        (&secured, "ca.pem, cert.pem and key.pem of /no/such/certificates"),
    ] {
        let product = named(variables);
        let told = doctor(&product, &Workspace::new(), ["--json"]).await;
        let error = the(&findings(&told), "engine", "found").to_string();
        assert!(error.contains(said), "{error}");
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usual_port_is_named() {
    const PORTS: [u16; 5] = [8000, 1234, 11434, 52625, 8080];
    let product = Product::without_engine().env("DOCKER_HOST", "unix:///no/such/docker.sock");
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    let about: Vec<_> =
        all.iter().filter(|one| one["area"] == "model").map(Value::to_string).collect();
    for port in PORTS {
        let port = format!(":{port}");
        assert!(about.iter().any(|one| one.contains(&port)), "nothing about {port}: {about:#?}");
    }
    // Whoever tests this may have a model server of their own.
    let taken = PORTS.iter().any(|port| std::net::TcpStream::connect(("localhost", *port)).is_ok());
    if !taken {
        let error = the(&all, "model", "server");
        assert_eq!(error["level"], "error");
        let remedy = error["remedy"].as_str().expect("a remedy");
        assert!(remedy.contains("--model-url rehearsal"), "{remedy}");
        assert!(remedy.contains("ollama serve"), "{remedy}");
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_tools() {
    // vLLM without its tool-call parser answers in words: runs would do nothing.
    let side = Some(Reply::say("I would call a tool if I could."));
    let options = Options { side, ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::with_model(&model).await;
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    let error = the(&all, "model", "tools");
    assert_eq!(error["level"], "error");
    assert!(error["remedy"].to_string().contains("--tool-call-parser"), "{error:#}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_too_small_for_the_agent() {
    let options = Options { context: Some(4096), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::with_model(&model).await;
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    let warnings = at_level(&all, "warning");
    assert!(warnings.iter().any(|warning| warning.contains("4096")), "{all:#?}");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_used_and_never_shown() {
    let key = "sk-nobody-sees-this";
    let options = Options { key: Some(key.into()), ..Options::default() };
    let model = Model::with(options, [("", Script::say("never asked"))]).await;
    let product = Product::without_engine()
        .env("SANDBOX_MCP_MODEL_URL", &model.url())
        .env("SANDBOX_MCP_API_KEY", key);
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    assert_eq!(the(&all, "model", "tools")["level"], "ok");
    let said = the(&all, "model", "key")["message"].as_str().expect("words");
    assert_eq!(said, "SANDBOX_MCP_API_KEY is set");
    assert!(!told.stdout.contains(key) && !told.stderr.contains(key), "{told:#?}");

    let product = product.env("SANDBOX_MCP_API_KEY", "sk-wrong");
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    let error = the(&all, "model", "server");
    assert_eq!(error["level"], "error");
    assert!(error["remedy"].to_string().contains("api_key_env"), "{error:#}");
    assert!(!told.stdout.contains("sk-wrong"), "{}", told.stdout);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_a_finding() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await.config("[limits]\ntimeout = 300\npidz = 5\n");
    let told = doctor(&product, &Workspace::new(), ["--json"]).await;
    let all = findings(&told);
    let error = the(&all, "configuration", "settings");
    assert_eq!(error["level"], "error");
    let message = error["message"].as_str().expect("words");
    for part in ["config.toml", "line 3", "pidz", "pids"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    // The rest is examined with the defaults.
    assert_eq!(the(&all, "engine", "found")["level"], "ok");
    assert_eq!(the(&all, "image", "built")["level"], "ok");
    assert!(all.iter().any(|one| one["area"] == "model"), "{all:#?}");

    let told = doctor(&product, &Workspace::new(), ["--config", "/no/such/file.toml"]).await;
    told.assert_code(1);
    assert!(told.stdout.contains("/no/such/file.toml"), "{}", told.stdout);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_judged_as_a_run_would_judge_it() {
    let product = Product::without_engine()
        .env("DOCKER_HOST", "unix:///no/such/docker.sock")
        .env("SANDBOX_MCP_MODEL_URL", "rehearsal");
    let workspace = Workspace::new();
    workspace.write("sub/file", "");
    let told = doctor(&product, &workspace, ["--json"]).await;
    let all = findings(&told);
    assert_eq!(the(&all, "workspace", "folder")["level"], "ok");

    for (named, said) in [("missing", "does not exist"), ("sub/file", "not a folder")] {
        let told = doctor(&product, &workspace, ["--json", "--workspace", named]).await;
        let error = the(&findings(&told), "workspace", "folder").clone();
        assert_eq!(error["level"], "error");
        assert!(error["message"].to_string().contains(said), "{error:#}");
    }

    // Where somebody merely happens to be is no error.
    let told = product.call(["doctor", "--json"]).await;
    assert_eq!(the(&findings(&told), "workspace", "folder")["level"], "warning");

    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(workspace.at("sub"), Some(0), Some(0)).expect("chown");
        let told = doctor(&product, &workspace, ["--json", "--workspace", "sub"]).await;
        let owner = the(&findings(&told), "workspace", "owner").clone();
        assert_eq!(owner["level"], "warning");
        assert!(owner["remedy"].to_string().contains("chown"), "{owner:#}");
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_rehearses_a_whole_run() {
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::with_model(&model).await;
    let told = doctor(&product, &Workspace::new(), ["--deep", "--json"]).await;
    let all = findings(&told);
    assert_eq!(at_level(&all, "error"), [] as [&str; 0]);
    for (check, said) in [
        ("rehearsal", "rehears"),
        ("user", ":"),
        ("privileges", "no capability"),
        ("network", "lo and 0 routes"),
        ("file system", "read-only"),
        ("seccomp", "filtered"),
        ("limits", "processes"),
        ("changes", "REHEARSAL.md"),
    ] {
        let message = the(&all, "sandbox", check)["message"].as_str().expect("words");
        assert!(message.contains(said), "{check}: {message}");
    }
    assert!(model.steps().is_empty(), "the real model is not asked to rehearse");
    let records = std::fs::read_dir(product.folder("state").join("runs")).expect("records");
    assert_eq!(records.count(), 0, "a rehearsal is no record of work");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_rehearsal_leaves_nothing_behind() {
    let product = Product::new().await.env("SANDBOX_MCP_MODEL_URL", "rehearsal");
    let workspace = Workspace::new();
    let mut command = product.command(["doctor", "--deep"]);
    command.current_dir(workspace.path());
    let running = product.start(command);
    product.container_of(&running).await;
    running.signal(Signal::INT);
    let told = running.wait().await;
    told.assert_code(1);
    assert!(told.stdout.contains("cancelled"), "{}", told.stdout);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_leads_to_servers_elsewhere_and_headers_reach_them() {
    // The proxy is the model server itself: who asks it for another host has been told to.
    let model = Model::start(Script::say("never asked")).await;
    let product = Product::without_engine()
        .env("DOCKER_HOST", "unix:///no/such/docker.sock")
        .env("http_proxy", &format!("http://{}", model.address))
        .env("HTTP_PROXY", &format!("http://{}", model.address))
        .env("NO_PROXY", "direct.test")
        .env("MY_BASIC_AUTH", "Basic bmFtZTpodW50ZXIy")
        .config("[model.headers]\nAuthorization = \"MY_BASIC_AUTH\"\nX-Team = \"NOT_SET\"\n");
    let args = |url: &'static str| ["--json", "--model", MODEL, "--model-url", url];
    let told = doctor(&product, &Workspace::new(), args("http://models.test:8000")).await;
    let all = findings(&told);
    assert_eq!(the(&all, "model", "tools")["level"], "ok", "{all:#?}");
    let asked = model.requests();
    assert!(asked.iter().all(|one| one.header("host") == Some("models.test:8000")));
    assert!(asked.iter().all(|one| one.header("authorization") == Some("Basic bmFtZTpodW50ZXIy")));
    let text = told.stdout + &told.stderr;
    assert!(!text.contains("bmFtZTpodW50ZXIy") && text.contains("NOT_SET"), "{text}");

    let told = doctor(&product, &Workspace::new(), args("http://direct.test:8000")).await;
    assert_eq!(the(&findings(&told), "model", "server")["level"], "error");
    assert_eq!(model.requests().len(), asked.len(), "`NO_PROXY` holds");
    product.check_nothing_left().await;
}
