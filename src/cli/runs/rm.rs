//! `sandbox-mcp runs rm RUN…`: removes records.

use std::io::Write;
use std::path::Path;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::history::{Entry, State, remove};
use crate::runner::forget_commits;

#[derive(Debug, Args)]
pub struct RmArgs {
    #[arg(required = true)]
    run: Vec<String>,
    #[arg(long)]
    json: bool,
}

pub fn run(state: &Path, args: &RmArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    // All are looked up before one is removed: `last` means the same throughout.
    let mut entries: Vec<Entry> = Vec::new();
    for word in &args.run {
        let entry = super::find(state, word)?;
        if entries.iter().all(|other| other.id() != entry.id()) {
            entries.push(entry);
        }
    }
    if let Some(live) = entries.iter().find(|entry| entry.state() == State::Running) {
        bail!("run {} goes on; nothing was removed", live.id());
    }
    for entry in &entries {
        remove(entry, forget_commits)?;
        if !args.json {
            writeln!(out, "removed {}", entry.id())?;
        }
    }
    if args.json {
        let ids: Vec<_> = entries.iter().map(Entry::id).collect();
        super::print_json(out, &json!({ "removed": ids }))?;
    }
    Ok(0)
}
