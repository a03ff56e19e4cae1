//! `sandbox-mcp runs gc`: removes old records now, as the end of each run does.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::config::History;
use crate::history::{Retention, prune};
use crate::runner::forget_commits;

pub fn run(
    state: &Path,
    settings: &History,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let removed = prune(state, &Retention::from(settings), None, forget_commits)?;
    if json {
        super::print_json(out, &json!({ "removed": removed.runs, "bytes": removed.bytes }))?;
        return Ok(0);
    }
    for id in &removed.runs {
        writeln!(out, "removed {id}")?;
    }
    writeln!(out, "{} runs removed, {} KiB freed", removed.runs.len(), removed.bytes >> 10)?;
    Ok(0)
}
