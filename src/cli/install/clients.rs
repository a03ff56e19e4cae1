//! The clients we know, one row each; `docs/clients.md` says how each was seen to behave.

use serde_json::{Map, Value, json};

use super::around::Place;
use super::document::Format;

/// One client.
#[derive(Debug)]
pub struct Client {
    pub id: &'static str,
    pub name: &'static str,
    /// It is installed where one of these programs is on the `PATH`…
    pub programs: &'static [&'static str],
    /// … or one of these files or folders is there.
    pub marks: &'static [Place],
    /// The user's own file: the first that is there, else the first.
    pub user: &'static [Place],
    /// The project's, likewise. Empty where the client has none.
    pub project: &'static [&'static str],
    pub format: Format,
    /// The table of servers in it.
    pub servers: &'static str,
    pub entry: fn(&Wish) -> Value,
    pub passes: Passes,
    pub patience: Patience,
    /// What a person should know who has just registered it.
    pub hint: &'static str,
}

/// What an entry should say; each client has words of its own for it.
#[derive(Debug, Default)]
pub struct Wish {
    pub command: String,
    /// Variables to set, by name.
    pub variables: Map<String, Value>,
    /// Variables to hand on.
    pub names: Vec<String>,
    /// Seconds that a call may last.
    pub patience: u64,
}

/// What a client hands on of its own environment.
#[derive(Clone, Copy, Debug)]
pub enum Passes {
    Everything,
    /// Not what looks like a secret by its name, and no way to ask for it.
    AllButSecrets,
    /// What is named to it.
    Named,
    /// Its own, which a desktop started and no shell has set up. With the form in which a file can
    /// refer to a variable, where there is one.
    Desktop(Option<fn(&str) -> String>),
}

/// How long a client waits for a call.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// The setting of its entry, with its units in a second.
    pub key: Option<(&'static str, u64)>,
    /// Seconds without the setting.
    pub default: u64,
    /// More is cut to this.
    pub most: u64,
    /// Signs of life set its clock back.
    pub renewed: bool,
    /// It waits as its setting says, so that the server is told to let a call last as its run does.
    pub told: bool,
}

const NEVER: u64 = u64::MAX;

/// Of clients that have no setting, or none that was seen to work.
const UNKNOWN: Patience =
    Patience { key: None, default: 60, most: NEVER, renewed: false, told: false };

pub const CLIENTS: &[Client] = &[
    Client {
        id: "claude-code",
        name: "Claude Code",
        programs: &["claude"],
        marks: &[Place::home(".claude").unless("CLAUDE_CONFIG_DIR", ""), CLAUDE],
        user: &[CLAUDE],
        project: &[".mcp.json"],
        format: Format::Json,
        servers: "mcpServers",
        entry: |wish| {
            json!({"type": "stdio", "command": wish.command, "args": [], "env": wish.variables,
                "timeout": wish.patience * 1000})
        },
        passes: Passes::Everything,
        // Also its bound on silence, which is 30 minutes by default. The server knows that it waits.
        patience: Patience {
            key: Some(("timeout", 1000)),
            default: 100_000,
            most: NEVER,
            renewed: false,
            told: false,
        },
        hint: "`claude mcp list` shows it; `/mcp` in a running session connects anew",
    },
    Client {
        id: "codex",
        name: "Codex",
        programs: &["codex"],
        marks: &[Place::home(".codex").unless("CODEX_HOME", "")],
        user: &[Place::home(".codex/config.toml").unless("CODEX_HOME", "config.toml")],
        project: &[".codex/config.toml"],
        format: Format::Toml,
        servers: "mcp_servers",
        entry: |wish| {
            json!({"command": wish.command, "args": [], "env_vars": wish.names,
                "startup_timeout_sec": 30, "tool_timeout_sec": wish.patience,
                "supports_parallel_tool_calls": true, "env": wish.variables})
        },
        passes: Passes::Named,
        patience: Patience {
            key: Some(("tool_timeout_sec", 1)),
            default: 60,
            most: NEVER,
            renewed: false,
            told: true,
        },
        hint: "`/mcp` in a new session shows it; a project's file counts where Codex trusts the \
               project",
    },
    Client {
        id: "gemini",
        name: "Gemini CLI",
        programs: &["gemini"],
        marks: &[Place::home(".gemini").unless("GEMINI_CLI_HOME", ".gemini")],
        user: &[
            Place::home(".gemini/settings.json").unless("GEMINI_CLI_HOME", ".gemini/settings.json")
        ],
        project: &[".gemini/settings.json"],
        format: Format::Jsonc,
        servers: "mcpServers",
        entry: |wish| {
            json!({"command": wish.command, "args": [], "env": wish.variables,
                "timeout": wish.patience * 1000})
        },
        passes: Passes::AllButSecrets,
        patience: Patience {
            key: Some(("timeout", 1000)),
            default: 600,
            most: NEVER,
            renewed: false,
            told: true,
        },
        hint: "`gemini mcp list` shows it; it starts servers in trusted folders only",
    },
    Client {
        id: "opencode",
        name: "OpenCode",
        programs: &["opencode"],
        marks: &[Place::config("opencode")],
        user: &[Place::config("opencode/opencode.json"), Place::config("opencode/opencode.jsonc")],
        project: &["opencode.json", "opencode.jsonc"],
        format: Format::Jsonc,
        servers: "mcp",
        entry: |wish| {
            json!({"type": "local", "command": [wish.command], "enabled": true,
                "environment": wish.variables, "timeout": wish.patience * 1000})
        },
        passes: Passes::Everything,
        patience: Patience {
            key: Some(("timeout", 1000)),
            default: 60,
            most: NEVER,
            renewed: true,
            told: true,
        },
        hint: "`opencode mcp list` shows it",
    },
    Client {
        id: "vscode",
        name: "VS Code",
        programs: &["code"],
        marks: &[Place::config("Code")],
        user: &[Place::config("Code/User/mcp.json")],
        project: &[".vscode/mcp.json"],
        format: Format::Jsonc,
        servers: "servers",
        entry: |wish| json!({"type": "stdio", "command": wish.command, "args": [], "env": wish.variables}),
        passes: Passes::Desktop(Some(|name| format!("${{env:{name}}}"))),
        patience: Patience { default: NEVER, ..UNKNOWN },
        hint: "`MCP: List Servers` shows it, and asks for trust at the first start",
    },
    Client {
        id: "cursor",
        name: "Cursor",
        programs: &["cursor", "cursor-agent"],
        marks: &[Place::home(".cursor")],
        user: &[Place::home(".cursor/mcp.json")],
        project: &[".cursor/mcp.json"],
        format: Format::Jsonc,
        servers: "mcpServers",
        entry: |wish| json!({"type": "stdio", "command": wish.command, "args": [], "env": wish.variables}),
        passes: Passes::Desktop(Some(|name| format!("${{env:{name}}}"))),
        patience: UNKNOWN,
        hint: "Settings, Tools & MCP shows it",
    },
    Client {
        id: "zed",
        name: "Zed",
        programs: &["zed", "zeditor"],
        marks: &[Place::config("zed")],
        user: &[Place::config("zed/settings.json")],
        project: &[".zed/settings.json"],
        format: Format::Jsonc,
        servers: "context_servers",
        entry: |wish| {
            json!({"source": "custom", "command": wish.command, "args": [], "env": wish.variables,
                "timeout": wish.patience.min(600)})
        },
        passes: Passes::Desktop(None),
        // Seconds (older releases took milliseconds); its own bound is ten minutes.
        patience: Patience {
            key: Some(("timeout", 1)),
            default: 60,
            most: 600,
            renewed: false,
            told: false,
        },
        hint: "the Agent Panel's settings show it",
    },
    Client {
        id: "lm-studio",
        name: "LM Studio",
        programs: &["lms", "lm-studio"],
        marks: &[Place::home(".lmstudio")],
        user: &[Place::home(".lmstudio/mcp.json")],
        project: &[],
        format: Format::Json,
        servers: "mcpServers",
        entry: |wish| json!({"command": wish.command, "args": [], "env": wish.variables}),
        passes: Passes::Desktop(None),
        patience: UNKNOWN,
        hint: "the Program tab shows it, and asks before each call",
    },
];

const CLAUDE: Place = Place::home(".claude.json").unless("CLAUDE_CONFIG_DIR", ".claude.json");

pub fn find(id: &str) -> Option<&'static Client> {
    CLIENTS.iter().find(|client| client.id == id)
}
