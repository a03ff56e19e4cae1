//! `sandbox-mcp runs log RUN`: what the agent printed beside its events.

use std::io::Write;

use serde_json::json;

use crate::history::{Entry, Part};
use crate::text::clean;

pub fn run(entry: &Entry, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let Some(file) = entry.open(Part::Log)? else { return Ok(0) };
    super::each_line(file, |line| {
        let line = clean(line);
        if json {
            writeln!(out, "{}", json!({ "line": line }))?;
        } else {
            writeln!(out, "{line}")?;
        }
        Ok(())
    })?;
    Ok(0)
}
