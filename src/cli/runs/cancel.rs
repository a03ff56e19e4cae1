//! `sandbox-mcp runs cancel RUN`: ends a run, whichever process carries it out.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;

use crate::cli::complain;
use crate::history::{Entry, State};
use crate::runner::{Glance, Stopped, stop};

/// How long the removal of its container is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

pub fn run(entry: &Entry, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let id = entry.id();
    let stopped = crate::cli::block_on(stop(entry, PATIENCE))
        .with_context(|| format!("failed to end run {id}"))?;
    let died = matches!(stopped, Stopped::Died | Stopped::Before(State::Died));
    if stopped == Stopped::NotYet {
        bail!("run {id} was asked to end, and is still removing its container");
    }
    if died {
        complain("its process died before it wrote a report; the next run removes what it left");
    } else if let Stopped::Before(_) = stopped {
        complain("it was over before; nothing was done");
    }
    let glance = Glance::at(entry);
    if json {
        super::print_json(out, &json!({ "run_id": id, "status": glance.label() }))?;
    } else {
        writeln!(out, "{id} · {}", glance.label())?;
    }
    Ok(u8::from(died))
}
