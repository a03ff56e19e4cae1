//! Hunks of lines.

use std::io::Write;
use std::time::Instant;

use similar::{Algorithm, DiffOp, capture_diff_slices_deadline, group_diff_ops};

/// Lines around a change.
const CONTEXT: usize = 3;

/// Writes what turns one text into another. Beyond the deadline the hunks are right, but larger
/// than they had to be.
pub(super) fn hunks(
    before: &[u8],
    after: &[u8],
    deadline: Instant,
    out: &mut Vec<u8>,
) -> std::io::Result<()> {
    let [old, new] = [before, after].map(|text| {
        // The last line keeps its want of a newline, and so differs from one that has it.
        text.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>()
    });
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old, &new, Some(deadline));
    for group in group_diff_ops(ops, CONTEXT) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        let old_range = first.old_range().start..last.old_range().end;
        let new_range = first.new_range().start..last.new_range().end;
        let [from, to] = [&old_range, &new_range].map(|range| {
            // Of no lines, git names the one before.
            let start = if range.is_empty() { range.start } else { range.start + 1 };
            format!("{start},{}", range.len())
        });
        writeln!(out, "@@ -{from} +{to} @@")?;
        for op in &group {
            if let DiffOp::Equal { .. } = op {
                lines(b' ', &old[op.old_range()], out);
            } else {
                lines(b'-', &old[op.old_range()], out);
                lines(b'+', &new[op.new_range()], out);
            }
        }
    }
    Ok(())
}

fn lines(mark: u8, lines: &[&[u8]], out: &mut Vec<u8>) {
    for line in lines {
        out.push(mark);
        out.extend(*line);
        if !line.ends_with(b"\n") {
            out.extend(b"\n\\ No newline at end of file\n");
        }
    }
}
