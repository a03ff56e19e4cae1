//! How a registration stands: whether it starts this program, and whether its client waits for it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::around::Around;
use super::clients::{Client, Passes};
use super::entry::{self, SYNC_LIMIT};

/// What an unknown host is answered after, so that it need not wait longer.
const USUAL: u64 = 50;

/// What is wrong with a registration.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The program it names is not there or cannot be started.
    Missing(String),
    /// It starts another file than this one.
    Another(PathBuf),
    /// The client gives up after so many seconds, before the server answers.
    CutShort(u64),
}

pub fn examine(client: &Client, entry: &Value, around: &Around) -> Vec<Trouble> {
    let named = entry::program(entry).unwrap_or_default();
    let mut troubles = Vec::new();
    match around.find_program(named) {
        None => troubles.push(Trouble::Missing(named.to_owned())),
        Some(program) if !is_same(&program, &around.program) => {
            troubles.push(Trouble::Another(program));
        }
        Some(_) => {}
    }
    let waits = patience(client, entry, around);
    if waits < answers_within(client, entry, around) {
        troubles.push(Trouble::CutShort(waits));
    }
    troubles
}

/// Whether the client leaves it alone for now, by a switch in it.
pub fn is_off(entry: &Value) -> bool {
    entry["enabled"] == false || entry["disabled"] == true
}

fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    one == other || file(one).is_some_and(|one| Some(one) == file(other))
}

/// Seconds that the client waits for a call.
pub fn patience(client: &Client, entry: &Value, around: &Around) -> u64 {
    let known = &client.patience;
    if known.renewed {
        // Heartbeats come every few seconds.
        return u64::MAX;
    }
    let set = known.key.and_then(|(key, units)| {
        // Claude Code passes over what is below a second.
        entry[key].as_f64().filter(|set| *set >= 1.0).map(|set| whole(set) / units)
    });
    let variable = || {
        let text = (client.id == "claude-code").then(|| around.variable("MCP_TOOL_TIMEOUT"))?;
        text?.parse::<u64>().ok().map(|milliseconds| milliseconds / 1000)
    };
    set.filter(|seconds| *seconds > 0).or_else(variable).unwrap_or(known.default).min(known.most)
}

/// Seconds after which the server answers, with a result or with word that the run goes on.
fn answers_within(client: &Client, entry: &Value, around: &Around) -> u64 {
    let set = ["env", "environment"].iter().find_map(|key| entry[key][SYNC_LIMIT].as_str());
    let set = set.and_then(|text| text.parse().ok());
    // Its own environment reaches the server only where it is handed on.
    let inherited = matches!(client.passes, Passes::Everything | Passes::AllButSecrets)
        .then(|| around.variable(SYNC_LIMIT)?.parse().ok())
        .flatten();
    let limit = match set.or(inherited).or(around.sync_limit) {
        Some(0) => u64::MAX,
        Some(seconds) => seconds,
        None if client.id == "claude-code" => u64::MAX,
        None => USUAL,
    };
    limit.min(around.longest_run)
}

fn whole(number: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let whole = number as u64;
    whole
}
