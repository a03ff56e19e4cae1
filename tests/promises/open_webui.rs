//! `Open WebUI`'s three ways to a sandbox, each through the real packages: the tool for its Tools
//! page, its own MCP client, and mcpo. What is asserted is what a person sees in the chat.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::webui::Python;
use crate::common::{
    Model, Product, Reply, Running, Script, Web, Workspace, eventually, leftovers,
};

mod mcpo;
mod native;
mod tool;

const BINARY: &str = env!("CARGO_BIN_EXE_sandbox-mcp");

const TOOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integrations/open-webui/sandbox_tool.py");

/// Runs until it is killed.
const HANG: &str = "echo under way; sleep 600";

/// What the product promises from the wish to the end, with room for a busy machine.
const SOON: Duration = Duration::from_secs(20);

struct House {
    model: Model,
    product: Product,
    workspace: Workspace,
    /// Where scripts may put a way to the server that can be cut.
    relay: u16,
}

impl House {
    /// With a script for each task that has a word.
    async fn new<const N: usize>(scripts: [(&str, Script); N]) -> Self {
        let model = Model::routed(scripts).await;
        let relay = free_port();
        let config = format!("[http]\nallowed_hosts = [\"127.0.0.1:{relay}\"]");
        let product = Product::with_model(&model).await.config(&config);
        Self { model, product, workspace: Workspace::new(), relay }
    }

    /// A script of ours in this house, in no project's folder.
    fn start(&self, command: std::process::Command) -> Running {
        let mut command = self.product.furnished(command);
        command.env("DATA_DIR", self.product.folder("data"));
        command.env("RELAY_PORT", self.relay.to_string());
        // Its own scratch files are not ours to look for.
        command.env("TMPDIR", self.product.folder("data")).current_dir("/");
        self.product.start(command)
    }

    /// What a JSON line each says.
    async fn lines(&self, command: std::process::Command) -> Vec<Value> {
        let mut running = self.start(command);
        running.close_stdin();
        let ended = running.wait().await;
        ended.assert_code(0);
        let lines = ended.stdout.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
    }

    async fn container_goes(&self, pid: u32) {
        eventually("the container to go", SOON, || {
            leftovers::owned("container", pid).is_empty().then_some(())
        })
        .await;
    }

    async fn close(self, web: Option<Web>) {
        if let Some(web) = web {
            web.stop().await.assert_code(0);
        }
        self.product.leftovers().check_within(SOON).await;
    }
}

/// A port that nobody is given by chance: below those that connections get.
fn free_port() -> u16 {
    let first = u16::try_from(std::process::id() % 12_000).expect("small");
    let mut ports = (0..12_000).map(|more| 20_000 + (first + more) % 12_000);
    let free = ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("a free port")
}

/// The newest run on record.
async fn last_run(product: &Product) -> Value {
    let listed = product.call(["runs", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    listed[0].clone()
}
