//! The settings and their defaults.
//!
//! This is the only list of them: which keys are known, what they hold, the examples in error
//! messages and the reference in `docs/configuration.md` are all derived from or tested against
//! these structs and their comments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Size;
use super::http::Http;
use super::openings::{Agent, Credential, Egress, Env, Git, Hooks, Mount};

/// Everything that can be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    // The two lists come first: printed as TOML, they must stand before every section.
    /// Keys that are put into requests to one host outside of the sandbox, which never sees them.
    /// Each has `host`, `header`, `value_env` and, if need be, `prefix`.
    #[schemars(example = example_credential())]
    pub credential: Vec<Credential>,
    /// Files and folders of this machine that the agent may read, each with `path` and, if need
    /// be, a `target` below `/mnt`.
    #[schemars(example = example_mount())]
    pub mount: Vec<Mount>,
    pub model: Model,
    pub engine: Engine,
    pub image: Image,
    pub sandbox: Sandbox,
    pub limits: Limits,
    pub workspace: Workspace,
    pub egress: Egress,
    pub env: Env,
    pub git: Git,
    pub agent: Agent,
    pub hooks: Hooks,
    pub mcp: Mcp,
    pub http: Http,
    pub history: History,
}

fn example_credential() -> serde_json::Value {
    serde_json::json!([{
        "host": "api.github.com",
        "header": "Authorization",
        "value_env": "GH_TOKEN",
        "prefix": "Bearer ",
    }])
}

fn example_mount() -> serde_json::Value {
    serde_json::json!([{ "path": "~/reference", "target": "/mnt/reference" }])
}

/// Which kind of model server to talk to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Ask the well-known loopback ports.
    #[default]
    Auto,
    /// vLLM.
    Vllm,
    /// LM Studio.
    LmStudio,
    /// Ollama.
    Ollama,
    /// `FastFlowLM`.
    #[serde(rename = "fastflowlm")]
    FastFlowLm,
    /// llama.cpp's server.
    LlamaCpp,
    /// Any other server that speaks the same protocol.
    OpenaiCompatible,
    /// The scripted model inside this program: it rehearses a run and knows nothing.
    Rehearsal,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Kind of model server; `auto` asks the usual loopback ports.
    pub source: Source,
    /// Base address of the server, with or without `/v1`, or `rehearsal` for the scripted model; the
    /// source's usual port when absent.
    #[schemars(example = "http://127.0.0.1:8000/v1")]
    pub url: Option<String>,
    /// Model id; the one that is loaded, or the first of the server's list, when absent.
    #[schemars(example = "qwen3-coder-30b")]
    pub model: Option<String>,
    /// Name of the environment variable that holds the API key.
    pub api_key_env: String,
    /// Headers that the server is sent besides, by their names: each value is the name of the
    /// environment variable that holds it. With `Authorization` and a variable that holds
    /// `Basic …`, for a server behind a name and a password.
    #[schemars(example = serde_json::json!({ "Authorization": "MY_BASIC_AUTH" }))]
    pub headers: BTreeMap<String, String>,
    /// PEM bundle of further certificate authorities that the server's certificate may be by,
    /// besides those that this machine trusts.
    #[schemars(example = "~/certificates/company.pem")]
    pub ca_bundle: Option<PathBuf>,
    /// The model can see pictures, where the server does not tell.
    #[schemars(example = true)]
    pub vision: Option<bool>,
    /// Context length in tokens, where the server does not tell or tells too much.
    #[schemars(example = 65536)]
    pub context: Option<u64>,
    /// Most tokens in one answer.
    #[schemars(example = 8192)]
    pub output: Option<u64>,
    /// Seconds that the server may take to begin an answer (long prompts take long to read), and to
    /// load its model before that.
    pub first_byte_timeout: u64,
    /// Seconds of silence in the middle of an answer before it counts as stalled.
    pub stall_timeout: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            source: Source::Auto,
            url: None,
            model: None,
            api_key_env: "SANDBOX_MCP_API_KEY".into(),
            headers: BTreeMap::new(),
            ca_bundle: None,
            vision: None,
            context: None,
            output: None,
            first_byte_timeout: 300,
            stall_timeout: 60,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Engine {
    /// Engine to use (`unix:///…`, `tcp://…`, `ssh://…`); `DOCKER_HOST`, `CONTAINER_HOST`, the current Docker
    /// context and the usual sockets are tried in this order when absent.
    #[schemars(example = "unix:///run/user/1000/docker.sock")]
    pub host: Option<String>,
}

/// What the agent finds inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    Lean,
    #[default]
    Standard,
    Full,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    /// A ready image to use as it is; nothing is built then.
    #[schemars(example = "sandbox-mcp:latest")]
    pub name: Option<String>,
    /// Base image (Debian or Ubuntu); a locally made `sandbox-mcp-base:bookworm`, else Debian's.
    #[schemars(example = "debian:bookworm-slim")]
    pub base: Option<String>,
    /// What the image brings: the bare tools, the usual languages, or everything.
    pub profile: Profile,
    /// More Debian packages to install at build time.
    #[schemars(example = ["golang-go"])]
    pub packages: Vec<String>,
    /// PEM bundle of extra certificate authorities, for networks that intercept TLS.
    #[schemars(example = "~/certificates/company.pem")]
    pub ca_bundle: Option<PathBuf>,
    /// Days after which `doctor` warns that the image's packages are old; 0 for never.
    pub max_age: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            name: None,
            base: None,
            profile: Profile::default(),
            packages: Vec::new(),
            ca_bundle: None,
            max_age: 30,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sandbox {
    /// `uid:gid` inside; the workspace owner's when absent. Never 0 on a rootful engine.
    #[schemars(example = "1000:1000")]
    pub user: Option<String>,
    /// Mask for the modes of files that the agent makes. While it is the default, `apply` gives new
    /// files the modes of your own mask.
    pub umask: String,
    /// Container runtime of the engine (`runsc` for gVisor); the engine's default when absent.
    #[schemars(example = &"runsc")]
    pub runtime: Option<String>,
    /// Path of the workspace inside; its own path on this machine when absent, or `/workspace` where
    /// that cannot be.
    #[schemars(example = &"/workspace")]
    pub path: Option<String>,
    /// Controls that a run may go without where the engine does not give them: limits, which a
    /// rootless one does not apply on control groups of version 1, and a user that is not root
    /// inside, which a rootless Docker does not have.
    #[schemars(example = ["no-memory-limit", "no-pids-limit", "no-cpu-limit"])]
    pub accept: Vec<String>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { user: None, umask: "0027".into(), runtime: None, path: None, accept: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Seconds a run may take when the caller does not say.
    pub timeout: u64,
    /// Most seconds that a caller may ask for.
    pub max_timeout: u64,
    /// Runs at the same time, of all processes; the number of processor cores when absent.
    #[schemars(example = 4)]
    pub concurrency: Option<usize>,
    /// Memory, swap included; what lies in /tmp and in the home inside counts too.
    pub memory: Size,
    /// Processor cores; at most the machine's own number is used.
    pub cpus: f64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of /tmp inside, which lives in memory.
    pub tmp: Size,
    /// Size of the home folder inside, likewise.
    pub home: Size,
    /// Model requests in one run before it is stopped.
    pub max_requests: u32,
    /// Longest task text.
    pub task: Size,
    /// Most bytes of agent output that are kept of one run; the rest is drained and dropped.
    pub output: Size,
    /// Seconds without any sign of life (a line of the agent, traffic, a tool at work) after which
    /// the agent counts as stalled, found within twice that time; 0 for never.
    pub stall: u64,
    /// Seconds that `agent.verify` may take each time; never more than is left of the run.
    pub verify_timeout: u64,
    /// Most that a run may add to its workspace before it is stopped; no file inside can be larger
    /// than this and 16 MiB.
    pub disk: Size,
    /// How many files and folders it may add.
    pub files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: 300,
            max_timeout: 3600,
            concurrency: None,
            memory: Size::mebibytes(4096),
            cpus: 2.0,
            pids: 512,
            tmp: Size::mebibytes(512),
            home: Size::mebibytes(64),
            max_requests: 200,
            task: Size::mebibytes(8),
            output: Size::mebibytes(64),
            stall: 300,
            verify_timeout: 600,
            disk: Size::mebibytes(10 << 10),
            files: 500_000,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Workspace {
    /// Folders below which workspaces may lie, besides the folder the program was started in.
    #[schemars(example = ["~/projects"])]
    pub roots: Vec<PathBuf>,
    /// More paths, relative to the workspace, that are applied only with a person's yes.
    #[schemars(example = ["deploy", "scripts/release.sh"])]
    pub protected: Vec<String>,
    /// The kind of view that a run has: an overlay, a copy, or a copy where that is quick and else an
    /// overlay where that can be had.
    pub isolation: Isolation,
    /// Statuses of a direct run after which its changes are applied by themselves, if its check
    /// passed. After any other they wait.
    #[schemars(example = ["completed", "truncated"])]
    pub apply_on: Vec<String>,
    /// Apply what is in no conflict and needs no yes, and leave the rest waiting; with false all
    /// changes wait then.
    #[schemars(example = false)]
    pub partial: bool,
    /// Access of a run to the workspace's repository: its history, or nothing.
    pub git: GitAccess,
    /// Object stores elsewhere (`objects` folders) that the workspace's repository may borrow from:
    /// their whole history can be read.
    #[schemars(example = ["~/src/project/.git/objects"])]
    pub objects: Vec<PathBuf>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            protected: Vec::new(),
            isolation: Isolation::default(),
            apply_on: vec!["completed".into()],
            partial: true,
            git: GitAccess::default(),
            objects: Vec::new(),
        }
    }
}

/// The kind of view that a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    #[default]
    Auto,
    Overlay,
    Copy,
}

/// Access of a run to a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GitAccess {
    #[default]
    History,
    None,
}

/// Which runs go on when their client has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Those that no call waits for.
    #[default]
    Background,
    /// All of them.
    All,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Seconds between two signs of life to a host while nothing happens.
    pub heartbeat: u64,
    /// Seconds after which a call answers that its run goes on in the background; 0 is never. When
    /// absent, 50, and never for hosts that are known to wait.
    #[schemars(example = 50)]
    pub sync_limit: Option<u64>,
    /// Runs that go on when their host has gone: those in the background, or all.
    pub keep: Keep,
}

impl Default for Mcp {
    fn default() -> Self {
        Self { heartbeat: 8, sync_limit: None, keep: Keep::Background }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// Runs to keep on disk; the oldest go first, and one that goes on never.
    pub keep: usize,
    /// Days to keep them.
    pub max_age_days: u64,
    /// Room that they may take together.
    pub max_bytes: Size,
}

impl Default for History {
    fn default() -> Self {
        Self { keep: 200, max_age_days: 90, max_bytes: Size::mebibytes(2048) }
    }
}
