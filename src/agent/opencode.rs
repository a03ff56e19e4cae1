//! `OpenCode`: argv, environment, configuration, and its event lines.
//!
//! `run --format json` is used with the task on standard input, because arguments are limited,
//! visible and quoted. Everything that could make it wait or reach out is decided here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{Abilities, AgentEvent, Request};
use crate::config::McpServer;
use crate::text::{clean, one_line};

/// Where the agent lies in the image.
pub const BINARY: &str = "/usr/local/bin/opencode";

/// What of a workspace would configure the agent or run in it at its start. Switched off in its
/// environment as well, but some versions import plugins all the same.
pub const SETTINGS: [&str; 3] = [".opencode", "opencode.json", "opencode.jsonc"];

/// What of a workspace speaks to the agent, as text. With its settings off, it must be told.
pub const INSTRUCTIONS: [&str; 2] = ["AGENTS.md", "CLAUDE.md"];

/// What the agent calls our gateway.
const PROVIDER: &str = "sandbox";

/// Longest title of a tool call that is passed on.
const TITLE: usize = 160;

/// What to run inside an image to learn [`Abilities`].
pub const PROBE: [&str; 3] = ["/bin/sh", "-c", "opencode --version; opencode run --help 2>&1"];

/// Reads the output of [`PROBE`].
pub fn abilities(output: &str) -> Option<Abilities> {
    let version = output.lines().find(|line| line.starts_with(|c: char| c.is_ascii_digit()))?;
    let has =
        |flag: &str| output.split(|c: char| c.is_whitespace() || c == ',').any(|word| word == flag);
    // A binary without the JSON format is not an agent that we can follow.
    if !has("--format") {
        return None;
    }
    Some(Abilities {
        version: version.trim().to_owned(),
        unattended_flag: ["--auto", "--dangerously-skip-permissions"]
            .into_iter()
            .find(|flag| has(flag))
            .map(str::to_owned),
        title_flag: has("--title"),
        session_flag: has("--session"),
    })
}

/// The command line. Nothing of the task is in it.
pub fn argv(request: &Request<'_>, abilities: &Abilities) -> Vec<String> {
    let mut argv: Vec<String> = [BINARY, "run", "--format", "json"].map(str::to_owned).into();
    argv.extend(["--model".into(), format!("{PROVIDER}/{}", model_name(request.model))]);
    if abilities.title_flag && request.conversation.is_none() {
        // A given title saves the request that would make one up.
        argv.extend(["--title".into(), "sandbox".into()]);
    }
    if let Some(conversation) = request.conversation {
        argv.extend(["--session".into(), conversation.to_owned()]);
    }
    argv.extend(abilities.unattended_flag.clone());
    if let Some(command) = request.command {
        argv.extend(["--command".into(), command.to_owned()]);
    }
    argv
}

/// The command line that goes on with a conversation; what is said next comes by standard input.
pub fn resumed(request: &Request<'_>, abilities: &Abilities, session: &str) -> Vec<String> {
    argv(&Request { command: None, conversation: Some(session), ..request.clone() }, abilities)
}

/// Longest id of a conversation.
const SESSION: usize = 64;

/// The id of the conversation that a line belongs to. It becomes an argument, and whatever runs
/// inside can print such a line: so nothing but an id.
pub fn session(line: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Of {
        #[serde(rename = "sessionID")]
        session: String,
    }
    let Of { session } = serde_json::from_str(line).ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_id = session.starts_with(|c: char| c.is_ascii_alphanumeric())
        && session.len() <= SESSION
        && session.chars().all(plain);
    is_id.then_some(session)
}

/// The environment that the agent gets besides the image's own. Holds no secret.
pub fn environment(request: &Request<'_>) -> Vec<(String, String)> {
    let mut environment =
        vec![("OPENCODE_CONFIG_CONTENT".into(), configuration(request).to_string())];
    if let Some(folder) = request.memory {
        environment.push(("XDG_DATA_HOME".into(), folder.to_owned()));
    }
    environment
}

/// The name that the agent knows the model by: its id, without what the agent would put variables
/// and files in the place of (`{env:…}`, `{file:…}`). The gateway sends the real one.
fn model_name(id: &str) -> String {
    id.replace(['{', '}'], "_")
}

/// The configuration, with no question left open on which it could wait.
fn configuration(request: &Request<'_>) -> serde_json::Value {
    let name = model_name(request.model);
    let model = format!("{PROVIDER}/{name}");
    let mut entry = json!({
        "name": name,
        "tool_call": true,
        "limit": {"context": request.context, "output": request.output},
    });
    if request.vision {
        // Otherwise the agent tells the model that it cannot look at pictures.
        entry["attachment"] = true.into();
        entry["modalities"] = json!({"input": ["text", "image"], "output": ["text"]});
    }
    let models = serde_json::Map::from_iter([(name, entry)]);
    json!({
        "provider": {PROVIDER: {
            "npm": "@ai-sdk/openai-compatible",
            "name": "sandbox gateway",
            "options": {
                "baseURL": format!("http://127.0.0.1:{}/v1", request.model_port),
                // The key stays outside; the gateway adds it.
                "apiKey": "none",
                "timeout": request.answer_timeout_ms,
            },
            "models": models,
        }},
        // Without a list of its own it looks for providers, and with none it hangs.
        "enabled_providers": [PROVIDER],
        "instructions": request.instructions,
        "model": model,
        "small_model": model,
        "share": "disabled",
        "autoupdate": false,
        "snapshot": false,
        "lsp": false,
        "formatter": false,
        // On overflow it would compact without end; an error is what we can judge.
        "compaction": {"auto": false},
        "permission": {
            "*": "allow",
            "external_directory": "allow",
            "question": "deny",
            "doom_loop": "deny",
            // Where nothing can be reached, each call would only cost time to fail.
            "webfetch": if request.web { "allow" } else { "deny" },
            // It asks a service of others, whatever may be reached.
            "websearch": "deny",
        },
        "mcp": servers(request.mcp),
    })
}

/// MCP servers in the agent's own words.
fn servers(servers: &BTreeMap<String, McpServer>) -> serde_json::Value {
    let server = |server: &McpServer| match &server.url {
        Some(url) => json!({
            "type": "remote", "url": url, "headers": server.headers, "enabled": true,
        }),
        None => json!({
            "type": "local",
            "command": server.command,
            "environment": server.env,
            "enabled": true,
        }),
    };
    servers.iter().map(|(name, settings)| (name.clone(), server(settings))).collect()
}

/// Reads one line of output. Lines that are not events (some versions print such) are none.
pub fn parse(line: &str) -> Option<AgentEvent> {
    let line: Line = serde_json::from_str(line).ok()?;
    match line {
        Line::StepStart {} => Some(AgentEvent::StepStarted),
        Line::StepFinish { part } => Some(AgentEvent::StepFinished {
            reason: part.reason.unwrap_or_else(|| "unknown".into()),
        }),
        // Synthetic text is what the agent put into the conversation itself, not its answer.
        Line::Text { part } if part.synthetic => None,
        Line::Text { part } => Some(AgentEvent::Text { text: clean(&part.text) }),
        Line::ToolUse { part } => Some(tool(part)),
        Line::Error { error } => Some(failure(&error)),
        Line::Reasoning {} | Line::Other => None,
    }
}

fn tool(part: ToolPart) -> AgentEvent {
    let state = part.state;
    let input = state.input.as_ref();
    let title = state.title.filter(|title| !title.is_empty()).or_else(|| input.map(summary));
    let exit = state.metadata.and_then(|metadata| metadata.exit);
    // A call of a tool that there is not is completed, as the tool `invalid`.
    let ok = state.status == "completed" && part.tool != "invalid" && exit.is_none_or(|e| e == 0);
    AgentEvent::Tool {
        name: one_line(&part.tool, 64),
        title: one_line(&title.unwrap_or_default(), TITLE),
        ok,
        exit,
        error: state.error.map(|error| one_line(&error, 400)),
    }
}

/// What a tool call is about, from its arguments: the one that a person would want to see.
pub fn summary(arguments: &serde_json::Value) -> String {
    ["command", "filePath", "path", "pattern", "url", "description", "name", "prompt"]
        .into_iter()
        .find_map(|key| arguments.get(key)?.as_str())
        .map(|text| one_line(text, TITLE))
        .unwrap_or_default()
}

fn failure(error: &serde_json::Value) -> AgentEvent {
    let text = |value: &serde_json::Value| value.as_str().map(|text| one_line(text, 500));
    let name = text(&error["name"]).unwrap_or_else(|| "error".into());
    let message = text(&error["data"]["message"])
        .or_else(|| text(&error["message"]))
        .unwrap_or_else(|| name.clone());
    let status = error["data"]["statusCode"].as_u64().and_then(|code| u16::try_from(code).ok());
    AgentEvent::Error { name, message, status }
}

/// An event line, as far as it is read. Unknown kinds and fields are other versions' business.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    StepStart {},
    StepFinish {
        part: FinishPart,
    },
    Text {
        part: TextPart,
    },
    ToolUse {
        part: ToolPart,
    },
    Reasoning {},
    Error {
        error: serde_json::Value,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct FinishPart {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct TextPart {
    text: String,
    #[serde(default)]
    synthetic: bool,
}

#[derive(Deserialize)]
struct ToolPart {
    tool: String,
    state: ToolState,
}

#[derive(Deserialize)]
struct ToolState {
    status: String,
    input: Option<serde_json::Value>,
    title: Option<String>,
    error: Option<String>,
    metadata: Option<ToolMetadata>,
}

#[derive(Deserialize)]
struct ToolMetadata {
    exit: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    // Lines as OpenCode 1.18.33 printed them, without ids and times.
    const STEP: &str =
        r#"{"type":"step_start","timestamp":1,"sessionID":"s","part":{"type":"step-start"}}"#;
    const BASH: &str = r#"{"type":"tool_use","part":{"type":"tool","tool":"bash","callID":"c1","state":{"status":"completed","input":{"command":"ls; exit 3","description":"List"},"output":"x","metadata":{"output":"x","exit":3,"truncated":false},"title":"ls; exit 3","time":{"start":1,"end":2}}}}"#;
    const BAD: &str = r#"{"type":"tool_use","part":{"type":"tool","tool":"bash","state":{"status":"error","input":{},"error":"invalid arguments","time":{"start":1,"end":2}}}}"#;
    const FINISH: &str = r#"{"type":"step_finish","part":{"reason":"tool-calls","type":"step-finish","tokens":{"total":120,"input":60,"output":15,"reasoning":5,"cache":{"write":0,"read":40}},"cost":0}}"#;

    #[test]
    fn real_lines_are_understood() {
        assert_eq!(parse(STEP), Some(AgentEvent::StepStarted));
        assert_eq!(parse(FINISH), Some(AgentEvent::StepFinished { reason: "tool-calls".into() }));
        assert_eq!(
            parse(BASH),
            Some(AgentEvent::Tool {
                name: "bash".into(),
                title: "ls; exit 3".into(),
                ok: false,
                exit: Some(3),
                error: None
            })
        );
        assert!(matches!(parse(BAD), Some(AgentEvent::Tool { ok: false, .. })));
    }

    #[test]
    fn errors_keep_the_servers_words() {
        let line = r#"{"type":"error","error":{"name":"APIError","data":{"message":"no such model","statusCode":404,"isRetryable":false}}}"#;
        assert_eq!(
            parse(line),
            Some(AgentEvent::Error {
                name: "APIError".into(),
                message: "no such model".into(),
                status: Some(404)
            })
        );
    }

    #[test]
    fn what_is_not_an_event_is_nothing() {
        for line in ["", "not json", "[]", "{}", r#"{"type":"new_kind"}"#, r#"{"type":"text"}"#] {
            assert_eq!(parse(line), None, "{line}");
        }
        let synthetic = r#"{"type":"text","part":{"text":"summary","synthetic":true}}"#;
        assert_eq!(parse(synthetic), None);
    }

    #[test]
    fn only_an_id_becomes_an_argument() {
        let of = |id: &str| session(&json!({"type": "x", "sessionID": id}).to_string());
        assert_eq!(session(STEP), Some("s".into()));
        assert_eq!(of("ses_6b2AZ-9"), Some("ses_6b2AZ-9".into()));
        let long = "a".repeat(65);
        for hostile in ["", "-s", "--attach=http://x", "a b", "a\n", "ä", "../x", "_a", &long] {
            assert_eq!(of(hostile), None, "{hostile:?}");
        }
        assert_eq!(session("{}"), None);
        assert_eq!(session(r#"{"sessionID":["a"]}"#), None);
    }

    #[test]
    fn escapes_in_the_agents_words_are_gone() {
        let line = r#"{"type":"text","part":{"text":"a\u001b[31mb\u0000\u202ec"}}"#;
        assert_eq!(parse(line), Some(AgentEvent::Text { text: "abc".into() }));
    }

    #[test]
    fn the_command_line_follows_what_the_binary_can_do() {
        let old = "1.17.9\n --format x\n --dangerously-skip-permissions  y";
        let new = "1.18.33\n -i, --interactive\n --format\n --title  t\n --auto  auto-approve";
        let request = Request {
            model: "a/{env:HOME}",
            context: 1,
            output: 1,
            vision: true,
            command: Some("git-commit"),
            model_port: 1,
            instructions: &[],
            answer_timeout_ms: 1,
            memory: None,
            conversation: None,
            web: false,
            mcp: &BTreeMap::new(),
        };
        let old = argv(&request, &abilities(old).expect("an agent"));
        assert!(old.contains(&"--dangerously-skip-permissions".to_owned()));
        assert!(!old.contains(&"--title".to_owned()));
        let new = argv(&request, &abilities(new).expect("an agent"));
        assert!(new.contains(&"--auto".to_owned()) && new.contains(&"--title".to_owned()));
        assert!(new.ends_with(&["--command".into(), "git-commit".into()]));
        // No id of a model makes the agent read its variables or files.
        assert!(new.contains(&"sandbox/a/_env:HOME_".to_owned()), "{new:?}");
        let set = configuration(&request);
        assert!(!set.to_string().contains("{env:"), "{set}");
        let sees = &set["provider"]["sandbox"]["models"]["a/_env:HOME_"]["modalities"]["input"];
        assert_eq!(*sees, json!(["text", "image"]));
        assert_eq!(abilities("bash: opencode: not found"), None);
        let able = abilities("1.18.33\n --format\n --title\n -s, --session  id").expect("an agent");
        assert!(able.session_flag);
        let again = resumed(&request, &able, "ses_1");
        assert!(again.ends_with(&["--session".into(), "ses_1".into()]));
        assert!(!again.iter().any(|word| word == "--title" || word == "--command"));
    }
}
