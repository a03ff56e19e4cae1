//! After `sandbox-mcp install X` the real X connects, and after `--uninstall` it knows nothing of us.

use std::time::Duration;

use crate::common::clients::{CODEX, GEMINI, Npm, OPENCODE};
use crate::common::{Finished, Model, Product, Script, Workspace};
use serde_json::{Value, json};
use tokio::process::Command;

/// A client in a house of its own.
struct Client {
    npm: Npm,
    product: Product,
    workspace: Workspace,
}

impl Client {
    /// For connections alone, which need no container.
    fn connecting(npm: Option<Npm>) -> Option<Self> {
        let product = Product::without_engine().env("SANDBOX_MCP_MODEL_URL", "rehearsal");
        Some(Self { npm: npm?, product, workspace: Workspace::new() })
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let command = self.npm.command(program);
        let path = command.get_envs().find(|(key, _)| *key == "PATH").and_then(|(_, value)| value);
        let path = path.expect("a search path").to_owned();
        let mut command = Command::from(command);
        self.product.furnish(&mut command);
        command.args(args).env("PATH", path).current_dir(self.workspace.path());
        // OpenCode believes this and not its folder.
        command.env("PWD", self.workspace.path());
        command
            .env("DISABLE_AUTOUPDATER", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        command.env("OPENCODE_DISABLE_MODELS_FETCH", "1").env("OPENCODE_DISABLE_AUTOUPDATE", "1");
        // Its own scratch files are not ours to look for.
        command.env("TMPDIR", self.product.folder("data"));
        command
    }

    async fn run(&self, program: &str, args: &[&str]) -> Finished {
        let mut running = self.product.start(self.command(program, args));
        running.close_stdin();
        running.wait().await
    }

    async fn install(&self, args: &[&str]) -> Finished {
        let mut command = self.product.command(["install"]);
        command.args(args).current_dir(self.workspace.path());
        let mut running = self.product.start(command);
        running.close_stdin();
        let told = running.wait().await;
        told.assert_code(0);
        told
    }

    /// Registers, looks, registers again, removes, looks.
    async fn comes_and_goes(&self, id: &str, list: [&str; 3], connected: &str) {
        let told = self.install(&[id]).await;
        assert!(told.stdout.contains("registered as `sandbox`"), "{told:#?}");
        let listed = self.run(list[0], &list[1..]).await;
        let shown = format!("{}{}", listed.stdout, listed.stderr).to_lowercase();
        let line = shown.lines().find(|line| line.contains("sandbox")).unwrap_or_default();
        assert!(line.contains(connected) && !line.contains("disconnected"), "{listed:#?}");
        let again = self.install(&[id]).await;
        assert!(again.stdout.contains("already registered"), "{again:#?}");

        self.install(&[id, "--uninstall"]).await;
        let listed = self.run(list[0], &list[1..]).await;
        let shown = format!("{}{}", listed.stdout, listed.stderr).to_lowercase();
        assert!(!shown.lines().any(|line| line.contains("sandbox") && line.contains(connected)));
        self.product.leftovers().check_within(Duration::from_secs(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code_connects() {
    let Some(client) = Client::connecting(Npm::tools()) else { return };
    client.comes_and_goes("claude-code", ["claude", "mcp", "list"], "connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn opencode_connects() {
    let Some(client) = Client::connecting(Npm::client(OPENCODE)) else { return };
    client.comes_and_goes("opencode", ["opencode", "mcp", "list"], "connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini_connects_in_a_folder_that_a_person_trusts() {
    let Some(client) = Client::connecting(Npm::client(GEMINI)) else { return };
    let folder = client.product.folder("home").join(".gemini");
    std::fs::create_dir_all(&folder).expect("made");
    let trust = json!({client.workspace.path().to_str().expect("UTF-8"): "TRUST_FOLDER"});
    std::fs::write(folder.join("trustedFolders.json"), trust.to_string()).expect("written");
    client.comes_and_goes("gemini", ["gemini", "mcp", "list"], "connected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn codex_connects() {
    let Some(client) = Client::connecting(Npm::client(CODEX)) else { return };
    client.install(&["codex"]).await;
    let servers = client.codex_servers().await;
    assert_eq!(servers[0]["name"], "sandbox", "{servers:#}");
    assert_eq!(servers[0]["serverInfo"]["name"], "sandbox-mcp", "{servers:#}");
    assert!(servers[0]["tools"]["run_in_sandbox"].is_object(), "{servers:#}");
    let config = client.run("codex", &["mcp", "get", "sandbox", "--json"]).await;
    let config: Value = serde_json::from_str(&config.stdout).expect("JSON");
    assert_eq!(config["tool_timeout_sec"], 4800.0, "{config:#}");
    assert_eq!(config["startup_timeout_sec"], 30.0, "{config:#}");
    let passed = config["transport"]["env_vars"].to_string();
    assert!(passed.contains("DOCKER_HOST") && passed.contains("SANDBOX_MCP_API_KEY"), "{passed}");

    let again = client.install(&["codex"]).await;
    assert!(again.stdout.contains("already registered"), "{again:#?}");
    client.install(&["codex", "--uninstall"]).await;
    assert_eq!(client.codex_servers().await, json!([]));
    client.product.leftovers().check_within(Duration::from_secs(15)).await;
}

impl Client {
    /// What its server for editors says of the MCP servers, which it connects to for that.
    async fn codex_servers(&self) -> Value {
        let mut running = self.product.start(self.command("codex", &["app-server"]));
        let info = json!({"clientInfo": {"name": "test", "version": "1"}});
        for request in [
            json!({"id": 1, "method": "initialize", "params": info}),
            json!({"method": "initialized"}),
            json!({"id": 2, "method": "mcpServerStatus/list", "params": {}}),
        ] {
            running.feed(format!("{request}\n").as_bytes()).await;
        }
        let answer = |text: &str, _| {
            let mut lines =
                text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let answer = lines.find(|answer| answer["id"] == 2)?;
            assert!(answer["error"].is_null(), "{answer:#}");
            Some(answer["result"]["data"].clone())
        };
        let servers = running.stdout.until("the list of servers", answer).await;
        running.close_stdin();
        running.wait().await;
        servers
    }
}

/// A whole delegation: the host is `OpenCode`, and so is the agent inside; one model server plays
/// the models of both.
#[tokio::test(flavor = "multi_thread")]
async fn opencode_as_the_host_gets_the_whole_result() {
    let Some(npm) = Npm::client(OPENCODE) else { return };
    let delegate = json!({"task": "the inner task"});
    let routes = [
        ("the inner task", Script::bash("echo hello > note.txt").then_say("Written inside.")),
        ("the outer", Script::call("sandbox_run_in_sandbox", delegate).then_say("Delegated.")),
    ];
    let model = Model::with(crate::common::model::Options::default(), routes).await;
    let product = Product::with_model(&model).await;
    let client = Client { npm, product, workspace: Workspace::new() };
    client.install(&["opencode"]).await;
    let file = client.product.folder("config").join("opencode/opencode.json");
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(&file).expect("registered")).expect("JSON");
    let name = crate::common::model::MODEL;
    config["provider"] = json!({"local": {"npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": model.url()}, "models": {name: {}}}});
    config["model"] = format!("local/{name}").into();
    config["enabled_providers"] = json!(["local"]);
    std::fs::write(&file, config.to_string()).expect("written");

    let ended = client.run("opencode", &["run", "--format", "json", "the outer work"]).await;

    ended.assert_code(0);
    assert!(ended.stdout.contains("Delegated."), "{ended:#?}");
    // What the host's model was given to go on with.
    let steps = model.steps();
    let last = steps.iter().rfind(|step| step.said_by("user").contains("the outer"));
    let result = last.expect("a step of the host").said_by("tool");
    let result: Value = serde_json::from_str(&result).expect("the whole result, as JSON");
    assert_eq!(result["status"], "completed", "{result:#}");
    assert_eq!(result["answer"], "Written inside.");
    assert_eq!(client.workspace.read("note.txt"), "hello\n");
    client.product.leftovers().watch_run(result["run_id"].as_str().expect("a run id"));
    client.product.leftovers().check_within(Duration::from_secs(15)).await;
}
