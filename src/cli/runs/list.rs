//! `sandbox-mcp runs list`: the newest runs, a line each.

use std::io::Write;
use std::path::Path;

use clap::Args;

use crate::history::{Entry, runs};
use crate::ids::RunId;
use crate::runner::Glance;
use crate::text::one_line;

#[derive(Debug, Args)]
pub struct ListArgs {
    /// How many at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    limit: usize,
    #[arg(long)]
    json: bool,
}

/// Widest that a workspace is shown; the end of a path says more than its beginning.
const WORKSPACE: usize = 32;
const TASK: usize = 60;

pub fn run(state: &Path, args: &ListArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let ids = runs(state);
    let newest = ids.iter().filter_map(|id| Some((id, Entry::of(state, id)?))).take(args.limit);
    let glances: Vec<_> = newest.map(|(id, entry)| (id, Glance::at(&entry))).collect();
    if args.json {
        let glances: Vec<_> = glances.iter().map(|(_, glance)| glance).collect();
        super::print_json(out, &glances)?;
        return Ok(0);
    }
    if ids.is_empty() {
        writeln!(out, "no run on record in {}", state.join("runs").display())?;
        return Ok(0);
    }
    let head = ["run", "status", "when", "mode", "workspace", "took", "files", "changes", "task"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(glances.iter().map(|(id, glance)| row(id, glance)));
    table(&rows, out)?;
    if ids.len() > glances.len() {
        writeln!(out, "… and {} older (--limit)", ids.len() - glances.len())?;
    }
    Ok(0)
}

fn row(id: &RunId, glance: &Glance) -> [String; 9] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        id.to_string(),
        one_line(&glance.label(), 24),
        or_dash(id.age().map(|age| ago(age.as_secs()))),
        one_line(&glance.mode.replace('_', "-"), 16),
        end_of(&glance.workspace),
        or_dash(glance.duration_ms.map(duration)),
        or_dash(glance.files_changed.map(|files| files.to_string())),
        or_dash(glance.changes_label()),
        one_line(&glance.task, TASK),
    ]
}

/// Columns as wide as what is in them; the last is not filled up.
fn table<const N: usize>(rows: &[[String; N]], out: &mut impl Write) -> std::io::Result<()> {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn end_of(path: &str) -> String {
    let length = path.chars().count();
    if length <= WORKSPACE {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length + 1 - WORKSPACE).collect();
    format!("…{end}")
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

pub fn duration(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..60 => format!("{seconds}.{} s", ms % 1000 / 100),
        seconds @ 60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!([0, 61, 7200, 90_000].map(ago), ["0 s ago", "1 min ago", "2 h ago", "1 d ago"]);
        assert_eq!(
            [950, 59_999, 61_000, 3_660_000].map(duration),
            ["0.9 s", "59.9 s", "1 min 01 s", "1 h 01 min"]
        );
    }

    #[test]
    fn a_long_path_keeps_its_end() {
        assert_eq!(end_of("/home/ann/project"), "/home/ann/project");
        let shown = end_of(&format!("/home/{}/project", "ä".repeat(40)));
        assert!(shown.starts_with('…') && shown.ends_with("/project"), "{shown}");
        assert_eq!(shown.chars().count(), WORKSPACE);
    }
}
