//! `sandbox-mcp discard RUN`: lets the changes of a run go.

use std::io::Write;

use super::{One, Settings, apply};
use crate::history::Entry;

pub fn run(
    entry: &Entry,
    args: &One,
    settings: Settings,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    match settings.runner_for(entry)?.discard(entry) {
        Ok(discarded) if args.json => super::print_json(out, &discarded)?,
        Ok(discarded) if discarded.discarded => {
            writeln!(out, "discarded the changes of {}", discarded.run_id)?;
            for remark in &discarded.remarks {
                writeln!(out, "  {remark}")?;
            }
        }
        Ok(discarded) => writeln!(out, "{} was discarded before", discarded.run_id)?,
        Err(error) => return apply::refuse(&error, args.json, out),
    }
    Ok(0)
}
