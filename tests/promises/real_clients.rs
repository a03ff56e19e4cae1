//! The clients that people have, as they come from the registries, against the real server.

use crate::common::clients::{Npm, Python};
use crate::common::{Finished, Model, Product, Script, Workspace};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_sandbox-mcp");

struct House {
    model: Model,
    product: Product,
    workspace: Workspace,
}

impl House {
    async fn new() -> Self {
        let model = Model::start(Script::bash("echo hello > note.txt").then_say("Written.")).await;
        let product = Product::with_model(&model).await;
        Self { model, product, workspace: Workspace::new() }
    }

    /// What the server needs to know, for clients that hand on only what they are told.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![("SANDBOX_MCP_MODEL_URL", self.model.url())];
        for (key, folder) in [
            ("SANDBOX_MCP_STATE_DIR", "state"),
            ("XDG_RUNTIME_DIR", "run"),
            ("HOME", "home"),
            ("TMPDIR", "tmp"),
        ] {
            pairs.push((key, self.product.folder(folder).display().to_string()));
        }
        pairs.extend(crate::common::engine::host().map(|host| ("DOCKER_HOST", host.to_owned())));
        pairs
    }

    async fn run(&self, command: std::process::Command) -> Finished {
        let mut command = self.product.furnished(command);
        command.current_dir(self.workspace.path());
        let mut running = self.product.start(command);
        running.close_stdin();
        running.wait().await
    }

    /// Asserts that the client was given a whole and true result.
    async fn check(&self, result: &Value) {
        let content = &result["structuredContent"];
        assert_eq!(content["status"], "completed", "{result:#}");
        assert_eq!(content["answer"], "Written.");
        assert_eq!(self.workspace.read("note.txt"), "hello\n");
        self.product.leftovers().watch_run(content["run_id"].as_str().expect("a run id"));
        // The client may have ended before the server has.
        self.product.leftovers().check_within(std::time::Duration::from_secs(15)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_inspector() {
    let Some(npm) = Npm::tools() else { return };
    let house = House::new().await;
    let inspect = |args: &[&str]| {
        let mut command = npm.command("mcp-inspector");
        command.args(["--cli", BINARY]);
        for (key, value) in house.environment() {
            command.args(["-e", &format!("{key}={value}")]);
        }
        command.arg("--cwd").arg(house.workspace.path());
        command.args(args);
        command
    };

    let listed = house.run(inspect(&["--method", "tools/list", "--strict"])).await;
    listed.assert_code(0);
    let tools: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    assert!(tools["tools"].to_string().contains("run_in_sandbox"), "{tools:#}");

    let call =
        ["--method", "tools/call", "--tool-name", "run_in_sandbox", "--tool-arg", "task=a note"];
    let called = house.run(inspect(&call)).await;
    called.assert_code(0);
    house.check(&serde_json::from_str(&called.stdout).expect("JSON")).await;
}

/// Lists, calls with progress, and prints what it got; the SDK checks the result's schema itself.
const PYTHON_1: &str = r"
import asyncio, json, os, sys
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

async def main():
    told = []
    async def progress(progress, total, message):
        told.append(message)
    server = StdioServerParameters(command=sys.argv[1], args=[], env=dict(os.environ))
    async with stdio_client(server) as (reader, writer):
        async with ClientSession(reader, writer) as session:
            hello = await session.initialize()
            tools = await session.list_tools()
            result = await session.call_tool('run_in_sandbox', {'task': 'a note'}, progress_callback=progress)
            print(json.dumps({'version': hello.protocolVersion, 'tools': [t.name for t in tools.tools],
                'progress': told, 'isError': result.isError, 'structuredContent': result.structuredContent}))

asyncio.run(main())
";

const PYTHON_2: &str = r"
import asyncio, json, os, sys
from mcp import Client, StdioServerParameters

async def main():
    told = []
    async def progress(progress, total, message):
        told.append(message)
    server = StdioServerParameters(command=sys.argv[1], args=[], env=dict(os.environ))
    async with Client(server, mode=sys.argv[2]) as client:
        tools = await client.list_tools()
        result = await client.call_tool('run_in_sandbox', {'task': 'a note'}, progress_callback=progress)
        print(json.dumps({'version': client.protocol_version, 'tools': [t.name for t in tools.tools],
            'progress': told, 'isError': result.is_error, 'structuredContent': result.structured_content}))

asyncio.run(main())
";

async fn python(package: &str, script: &str, mode: &str, version: &str) {
    let Some(python) = Python::with(package) else { return };
    let house = House::new().await;
    let mut command = python.command();
    command.args(["-c", script, BINARY, mode]);
    let ended = house.run(command).await;
    ended.assert_code(0);
    let told: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(told["version"], version, "{told:#}");
    assert!(told["tools"].as_array().is_some_and(|tools| tools.contains(&json!("run_in_sandbox"))));
    assert_eq!(told["isError"], false);
    let progress = told["progress"].as_array().expect("progress");
    assert!(!progress.is_empty() && progress.iter().all(Value::is_string), "{progress:?}");
    house.check(&told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_first_kind() {
    python("mcp==1.30.0", PYTHON_1, "", "2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_with_initialize() {
    python("mcp==2.3.0", PYTHON_2, "legacy", "2025-11-25").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_of_the_second_kind_by_discovery() {
    python("mcp==2.3.0", PYTHON_2, "auto", "2026-07-28").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_code() {
    let Some(npm) = Npm::tools() else { return };
    let house = House::new().await;
    let claude = |args: &[&str]| {
        let mut command = npm.command("claude");
        command.args(args);
        command
            .env("DISABLE_AUTOUPDATER", "1")
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
        // Its own scratch files are not ours to look for.
        command.env("TMPDIR", house.product.folder("data"));
        command
    };
    let mut add = claude(&["mcp", "add", "sandbox"]);
    for (key, value) in house.environment() {
        add.args(["-e", &format!("{key}={value}")]);
    }
    add.args(["--", BINARY]);
    house.run(add).await.assert_code(0);

    let listed = house.run(claude(&["mcp", "list"])).await;

    // It exits with 0 whatever happens: the word is what counts.
    let line = listed.stdout.lines().find(|line| line.contains("sandbox:")).unwrap_or_default();
    assert!(line.contains("Connected") && !line.contains("Failed"), "{listed:#?}");
    house.run(claude(&["mcp", "remove", "sandbox"])).await.assert_code(0);
    house.product.leftovers().check_within(std::time::Duration::from_secs(15)).await;
}
