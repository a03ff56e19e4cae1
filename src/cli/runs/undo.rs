//! `sandbox-mcp undo RUN`: puts back what applying a run's changes has replaced.

use std::io::Write;

use super::{One, Settings, apply};
use crate::history::Entry;
use crate::text::one_line;

pub fn run(
    entry: &Entry,
    args: &One,
    settings: Settings,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let undone = match settings.runner_for(entry)?.undo(entry, None) {
        Ok(undone) => undone,
        Err(error) => return apply::refuse(&error, args.json, out),
    };
    if args.json {
        super::print_json(out, &undone)?;
        return Ok(0);
    }
    for path in &undone.restored {
        writeln!(out, "restored  {}", one_line(path, 200))?;
    }
    for path in &undone.kept_folders {
        writeln!(out, "kept      {}/ (something else is in it)", one_line(path, 200))?;
    }
    writeln!(out, "{} put back in {}", undone.restored.len(), undone.workspace)?;
    Ok(0)
}
