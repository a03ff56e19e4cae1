//! The settings that open something: each is empty or off by default.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where a sandbox may connect to, besides the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Domains that a sandbox may reach through our proxy: `api.example.com` is that name alone,
    /// `.example.com` the name and all below it.
    #[schemars(example = [".github.com", "api.example.com"])]
    pub allow: Vec<String>,
    /// Let it reach every public name. Private and local addresses stay closed all the same.
    pub open: bool,
    /// More ports than 443 and 80 on the domains that are allowed.
    #[schemars(example = [8443])]
    pub ports: Vec<u16>,
    /// Ports of this machine's own loopback that a sandbox finds on its 127.0.0.1.
    #[schemars(example = [5432])]
    pub host_ports: Vec<u16>,
}

/// What runs on this machine, outside of any sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Shell lines to run before each sandbox starts; what they export is what `env.pass` and
    /// credentials read. For keys that live for a short time.
    #[schemars(example = "export GH_TOKEN=$(gh auth token)")]
    pub before_start: Option<String>,
    /// Seconds that the hook may take.
    pub timeout: u64,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { before_start: None, timeout: 30 }
    }
}

/// Environment variables of the agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Env {
    /// Variables to hand in, by their name inside: each value is the name of a variable out here.
    /// The agent can read what is handed in; a `credential` it cannot.
    #[schemars(example = json!({ "GH_TOKEN": "MY_GH_TOKEN" }))]
    pub pass: BTreeMap<String, String>,
    /// Variables to set, with their values.
    #[schemars(example = json!({ "CI": "true" }))]
    pub set: BTreeMap<String, String>,
}

/// Who the agent's commits are by.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Git {
    /// Author and committer of commits that the agent makes; when not set, whom git on this machine
    /// names for that workspace, else "sandbox agent".
    #[schemars(example = "Ada Lovelace")]
    pub name: Option<String>,
    /// Their address; when not set, the one that git on this machine names.
    #[schemars(example = "ada@example.com")]
    pub email: Option<String>,
}

/// A key that is used for the agent and never shown to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The one host that gets it. Reached over TLS only, and without being in `egress.allow`.
    pub host: String,
    /// The header that it is put into.
    pub header: String,
    /// Name of the environment variable out here that holds it.
    pub value_env: String,
    /// What stands in front of the value, such as `Bearer `.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
}

/// A file or folder of this machine that the agent may read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where it is out here.
    pub path: PathBuf,
    /// Where it is inside: `/mnt/` and a name; its own name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
    /// Must be true: nothing but the workspace can be written.
    #[serde(default = "yes")]
    pub read_only: bool,
}

impl Mount {
    /// Where it is inside; none where the target is no such place.
    pub fn target(&self) -> Option<PathBuf> {
        const BELOW: &str = "/mnt";
        let target = match &self.target {
            Some(target) => target.clone(),
            None => Path::new(BELOW).join(self.path.file_name()?),
        };
        let name = target.strip_prefix(BELOW).ok()?.to_str()?;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        (plain && !name.contains(|c: char| c.is_control())).then_some(target)
    }
}

fn yes() -> bool {
    true
}

/// How the agent works, and what it has besides its own tools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// MCP servers for the agent, by name: `command` (a list) runs in the sandbox with the
    /// variables in `env`; `url` with its `headers` is reached through `egress`.
    #[schemars(example = json!({ "notes": { "command": ["python3", "notes.py"] } }))]
    pub mcp: BTreeMap<String, McpServer>,
    /// Shell command that checks the result: run in the sandbox before the agent and after it.
    #[schemars(example = "cargo test")]
    pub verify: Option<String>,
    /// How often the agent is started again where it stopped, when its answer or the model's stream
    /// was cut, when it ended without an answer, or stalled.
    #[serde(rename = "continue")]
    pub continues: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self { mcp: BTreeMap::new(), verify: None, continues: 1 }
    }
}

/// One MCP server inside: exactly one of `command` and `url`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct McpServer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}
