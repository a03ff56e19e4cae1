//! What is written for a client: its entry, made, recognised and brought up to date.

use std::path::Path;

use serde_json::Value;

use super::around::Around;
use super::clients::{Client, Passes, Wish};

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scope {
    /// Everywhere, for this user
    User,
    /// In this folder, for all who share it
    Project,
}

/// An entry, and what a person should know of it.
#[derive(Debug)]
pub struct Made {
    pub entry: Value,
    pub notes: Vec<String>,
}

/// What tells our engine and folders from the usual ones.
const OF_INTEREST: [&str; 9] = [
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_CERT_PATH",
    "CONTAINER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
];
/// Worth handing on also when they are set only later.
const ALWAYS: [&str; 8] = [
    "DOCKER_HOST",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "SANDBOX_MCP_CONFIG",
    "SANDBOX_MCP_STATE_DIR",
    "SANDBOX_MCP_MODEL_URL",
    "SANDBOX_MCP_MODEL",
];
const OURS: &str = "SANDBOX_MCP_";
pub const SYNC_LIMIT: &str = "SANDBOX_MCP_SYNC_LIMIT";
/// A run waits its turn, is prepared and is tidied up, too.
const AROUND_A_RUN: u64 = 600;
/// The server answers this much before the client gives up.
const MARGIN: u64 = 60;
/// The longest that `mcp.sync_limit` may be.
const DAY: u64 = 86_400;

/// The entry for `client`.
pub fn make(client: &Client, scope: Scope, around: &Around) -> anyhow::Result<Made> {
    let shared = scope == Scope::Project;
    let command = match (shared, around.program.to_str()) {
        // Others have it elsewhere.
        (true, _) => "sandbox-mcp".to_owned(),
        (false, Some(program)) if !program.ends_with(" (deleted)") => program.to_owned(),
        _ => anyhow::bail!(
            "failed to name this program: {} cannot be written into a settings file",
            around.program.display()
        ),
    };
    let mut wish =
        Wish { command, patience: (around.longest_run + AROUND_A_RUN).min(DAY), ..Wish::default() };
    let mut notes = Vec::new();
    let set: Vec<(&String, &String)> =
        around.variables.iter().filter(|(name, _)| is_of_interest(name, around)).collect();
    match client.passes {
        Passes::Everything => {}
        Passes::AllButSecrets => {
            for (name, _) in set.iter().filter(|(name, value)| is_secret(name, value, around)) {
                notes.push(format!(
                    "{} hands {name} to no server, for its name or its content, and it is not \
                     written into a file; let `model.api_key_env` name a variable without KEY, \
                     TOKEN, SECRET or AUTH in it",
                    client.name
                ));
            }
        }
        Passes::Named => {
            let always = ALWAYS.iter().copied().chain([around.key_variable.as_str()]);
            wish.names = always.map(str::to_owned).collect();
            let more = set.iter().map(|(name, _)| (*name).clone());
            let more: Vec<_> = more.filter(|name| !wish.names.contains(name)).collect();
            // Of a shared file, what one user has set is none of the others' business.
            if !shared {
                wish.names.extend(more);
            }
        }
        Passes::Desktop(reference) => {
            // Of a variable that is not known, neither is whether its content is a secret.
            let is_known = |name: &str| ALWAYS.contains(&name) || OF_INTEREST.contains(&name);
            let (secret, plain): (Vec<_>, Vec<_>) = set
                .into_iter()
                .partition(|(name, value)| !is_known(name) || is_secret(name, value, around));
            let named = |all: &[(&String, &String)]| {
                all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            };
            if shared {
                if !plain.is_empty() {
                    notes.push(format!(
                        "not written, because the file is shared and this is one machine's: {}",
                        named(&plain)
                    ));
                }
            } else {
                for (name, value) in &plain {
                    wish.variables.insert((*name).clone(), (*value).clone().into());
                }
            }
            if let Some(refer) = reference.filter(|_| !shared) {
                for (name, _) in &secret {
                    wish.variables.insert((*name).clone(), refer(name).into());
                }
            }
            if !secret.is_empty() {
                notes.push(format!(
                    "not written, because it is or may be a secret: {}; {} must have it in its own \
                     environment",
                    named(&secret),
                    client.name
                ));
            }
        }
    }
    if client.patience.told {
        // Without it, calls of hosts that are not known to wait answer after 50 seconds.
        let limit = wish.patience.saturating_sub(MARGIN).to_string();
        wish.variables.insert(SYNC_LIMIT.to_owned(), limit.into());
    }
    Ok(Made { entry: (client.entry)(&wish), notes })
}

fn is_of_interest(name: &str, around: &Around) -> bool {
    name != SYNC_LIMIT
        && (name.starts_with(OURS) || name == around.key_variable || OF_INTEREST.contains(&name))
}

fn is_secret(name: &str, value: &str, around: &Around) -> bool {
    let name_says = ["KEY", "TOKEN", "SECRET", "PASS", "AUTH", "CREDENTIAL"]
        .iter()
        .any(|word| name.to_ascii_uppercase().contains(word));
    // `http://user:password@host`, `https://token@host`; a user of `ssh://` is only a name.
    let value_says = value.split_once("://").is_some_and(|(scheme, rest)| {
        let authority = rest.split('/').next().unwrap_or(rest);
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        user.is_some_and(|user| user.contains(':') || !scheme.eq_ignore_ascii_case("ssh"))
    });
    name == around.key_variable || name_says || value_says
}

/// The program that an entry starts; none where it starts none.
pub fn program(entry: &Value) -> Option<&str> {
    match &entry["command"] {
        Value::String(command) => Some(command),
        // OpenCode has one list, Zed once had a table.
        Value::Array(words) => words.first()?.as_str(),
        Value::Object(command) => command.get("path")?.as_str(),
        _ => None,
    }
}

/// Whether an entry is a registration of this product, wherever its program is.
pub fn is_ours(entry: &Value) -> bool {
    let name = program(entry).and_then(|program| Path::new(program).file_name()?.to_str());
    name == Some("sandbox-mcp")
}

/// `old`, ours but perhaps of an older release, with what `new` needs. What a person has set in it
/// stays: switches, arguments, longer times.
pub fn refreshed(old: &Value, new: &Value) -> Value {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let mut merged = old.clone();
    for (key, value) in new {
        let now = match merged.get(key) {
            None => value.clone(),
            Some(Value::Number(old)) => match (old.as_f64(), value.as_f64()) {
                (Some(old), Some(new)) if old < new => value.clone(),
                _ => continue,
            },
            Some(Value::Object(old)) if value.is_object() => {
                let mut both = old.clone();
                both.extend(value.as_object().cloned().unwrap_or_default());
                both.into()
            }
            Some(Value::Array(old)) if key != "args" && key != "command" => {
                let more = value.as_array().into_iter().flatten();
                let mut both = old.clone();
                both.extend(more.filter(|one| !old.contains(one)).cloned());
                both.into()
            }
            // Further words are arguments.
            Some(Value::Array(old)) if key == "command" => {
                let mut words = value.as_array().cloned().unwrap_or_default();
                words.extend(old.iter().skip(1).cloned());
                words.into()
            }
            Some(_) if key == "command" => value.clone(),
            Some(_) => continue,
        };
        merged.insert(key.clone(), now);
    }
    merged.into()
}
