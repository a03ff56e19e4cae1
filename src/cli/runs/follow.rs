//! `sandbox-mcp runs follow RUN`: what happens, until the run is over.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use super::events;
use crate::cli::complain;
use crate::history::{Entry, Follow, Next, State};
use crate::runner::Glance;

/// How often the record is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub fn run(entry: &Entry, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    let mut follow = Follow::new(entry.clone());
    let state = loop {
        match follow.look()? {
            Next::Line(line) => events::print(&line, json, out)?,
            Next::Wait => std::thread::sleep(LOOK),
            Next::Over(state) => break state,
        }
    };
    let glance = Glance::at(entry);
    if json {
        // As `run --events` ends.
        let report = entry.report()?;
        writeln!(out, "{}", crate::text::clean(&json!({ "report": report }).to_string()))?;
    }
    if state == State::Died {
        complain(&format!("run {} died: its process ended before it wrote a report", entry.id()));
    } else if !json {
        writeln!(out, "{} · {}", glance.run_id, glance.label())?;
    }
    Ok(exit_code(glance.status.as_deref()))
}

/// As `sandbox-mcp run` would have ended.
fn exit_code(status: Option<&str>) -> u8 {
    match status {
        Some("completed") => 0,
        Some("timed_out") => 124,
        Some("cancelled") => 130,
        _ => 1,
    }
}
