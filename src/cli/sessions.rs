//! `sandbox-mcp sessions`: conversations that can be gone on with.

use std::io::Write;

use clap::{Args, Subcommand};

use super::Usage;
use crate::config::{History, state_dir};
use crate::history::Retention;
use crate::session::{self, NotASessionId, SessionId};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SessionsArgs {
    #[command(subcommand)]
    command: Option<SessionsCommand>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List the sessions, the last used first (what happens without a command)
    List {
        #[arg(long)]
        json: bool,
    },
    /// Remove sessions with all that the agent knew
    Rm {
        #[arg(required = true)]
        sessions: Vec<String>,
    },
    /// Remove old sessions by `history.keep`, `history.max_age_days` and `history.max_bytes`
    Gc {
        #[arg(long)]
        json: bool,
    },
}

pub fn run(
    args: &SessionsArgs,
    settings: impl FnOnce() -> anyhow::Result<History>,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let state = state_dir().map_err(|error| Usage(error.to_string()))?;
    match &args.command {
        None => list(&state, args.json, out)?,
        Some(SessionsCommand::List { json }) => list(&state, *json, out)?,
        Some(SessionsCommand::Rm { sessions }) => {
            let ids: Result<Vec<SessionId>, NotASessionId> =
                sessions.iter().map(|word| word.parse()).collect();
            // All are read before one is removed.
            for id in ids.map_err(|error| Usage(error.to_string()))? {
                session::check_known(&state, &id)?;
                session::remove(&state, &id)?;
                writeln!(out, "{id}")?;
            }
        }
        Some(SessionsCommand::Gc { json }) => {
            let removed = session::prune(&state, &Retention::from(&settings()?))?;
            if *json {
                writeln!(out, "{}", serde_json::json!({ "removed": removed }))?;
            } else {
                writeln!(out, "{} sessions removed", removed.len())?;
            }
        }
    }
    Ok(0)
}

fn list(state: &std::path::Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let sessions = session::list(state);
    if json {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&sessions)?)?);
    }
    if sessions.is_empty() {
        writeln!(out, "no sessions; `sandbox-mcp run --session new \"task\"` begins one")?;
    }
    for one in sessions {
        let from = one.forked_from.map(|id| format!(" · forked from {id}")).unwrap_or_default();
        let last = one.last_run.map(|run| format!(", the last {run}")).unwrap_or_default();
        let count = if one.runs == 1 { "1 run".to_owned() } else { format!("{} runs", one.runs) };
        writeln!(out, "{} · {count}{last} · {}{from}", one.session, one.workspace.display())?;
    }
    Ok(())
}
