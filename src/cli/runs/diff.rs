//! `sandbox-mcp diff RUN`: what a run in a view of its own would change.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde_json::json;

use crate::history::Entry;
use crate::runner::{changes_now, commits_of, patch_of};
use crate::text::{one_line, visible};

#[derive(Debug, Args)]
pub struct DiffArgs {
    run: String,
    /// Only count lines, a file each
    #[arg(long, conflicts_with = "json")]
    stat: bool,
    /// List the changes as JSON
    #[arg(long)]
    json: bool,
}

impl DiffArgs {
    pub fn word(&self) -> &str {
        &self.run
    }
}

const WIDTH: usize = 200;

pub fn run(entry: &Entry, args: &DiffArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    if args.json {
        let manifest = changes_now(entry)?;
        let changes: Vec<_> = manifest
            .changes
            .iter()
            .map(|change| json!({ "change": change.word(), "at": change }))
            .collect();
        let listed = json!({
            "run_id": entry.id(),
            "workspace": manifest.workspace.display().to_string(),
            "complete": manifest.complete,
            "changes": changes,
            "skipped": manifest.skipped,
            "commits": commits_of(entry)?,
        });
        super::print_json(out, &listed)?;
        return Ok(0);
    }
    let patch = patch_of(entry)?;
    let terminal = std::io::stdout().is_terminal();
    if args.stat {
        stat(&patch, out)?;
    } else if terminal {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        show(&patch, colour, out)?;
    } else {
        // What a program reads is the patch to the byte, as `git diff` gives it.
        out.write_all(&patch)?;
    }
    Ok(0)
}

/// What a line of a patch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Comment,
    /// The first line of a file's part.
    File,
    Head,
    Hunk,
    Added,
    Removed,
    Same,
    Binary,
}

/// Tells lines apart by where they stand: a removed line can look like a head.
#[derive(Debug, Default)]
struct Reader {
    removed: u64,
    added: u64,
    begun: bool,
    binary: bool,
}

impl Reader {
    fn see(&mut self, line: &[u8]) -> Line {
        if self.removed + self.added > 0 {
            match line.first() {
                Some(b'+') => {
                    self.added = self.added.saturating_sub(1);
                    return Line::Added;
                }
                Some(b'-') => {
                    self.removed = self.removed.saturating_sub(1);
                    return Line::Removed;
                }
                Some(b'\\') => return Line::Same,
                _ => {
                    self.added = self.added.saturating_sub(1);
                    self.removed = self.removed.saturating_sub(1);
                    return Line::Same;
                }
            }
        }
        if line.starts_with(b"diff --git ") {
            (self.begun, self.binary) = (true, false);
            return Line::File;
        }
        if !self.begun {
            return Line::Comment;
        }
        if self.binary || line.starts_with(b"GIT binary patch") {
            self.binary = true;
            return Line::Binary;
        }
        if let Some((removed, added)) = counts(line) {
            (self.removed, self.added) = (removed, added);
            return Line::Hunk;
        }
        if line.starts_with(b"\\") { Line::Same } else { Line::Head }
    }
}

/// How many lines a hunk has on both sides.
fn counts(line: &[u8]) -> Option<(u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("@@ -")?;
    let (ranges, _) = text.split_once(" @@")?;
    let (old, new) = ranges.split_once(" +")?;
    let count = |range: &str| match range.split_once(',') {
        Some((_, count)) => count.parse().ok(),
        None => Some(1),
    };
    Some((count(old)?, count(new)?))
}

fn lines(patch: &[u8]) -> impl Iterator<Item = &[u8]> {
    patch
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

fn show(patch: &[u8], colour: bool, out: &mut impl Write) -> std::io::Result<()> {
    let mut reader = Reader::default();
    for line in lines(patch) {
        let style = match reader.see(line) {
            Line::Comment => "33",
            Line::File | Line::Head => "1",
            Line::Hunk => "36",
            Line::Added => "32",
            Line::Removed => "31",
            Line::Same => "",
            Line::Binary => "2",
        };
        let text = String::from_utf8_lossy(line);
        // The mark of old Windows files is shown by nobody.
        let (text, _) = visible(text.strip_suffix('\r').unwrap_or(&text));
        if colour && !style.is_empty() {
            writeln!(out, "\u{1b}[{style}m{text}\u{1b}[0m")?;
        } else {
            writeln!(out, "{text}")?;
        }
    }
    Ok(())
}

fn stat(patch: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    #[derive(Default)]
    struct File {
        name: String,
        added: u64,
        removed: u64,
        binary: bool,
        how: &'static str,
    }
    let mut reader = Reader::default();
    let mut files: Vec<File> = Vec::new();
    for line in lines(patch) {
        let kind = reader.see(line);
        let text = String::from_utf8_lossy(line);
        if kind == Line::File {
            files.push(File { name: name(&text), ..File::default() });
        }
        let Some(file) = files.last_mut() else {
            writeln!(out, "{}", one_line(&text, WIDTH))?;
            continue;
        };
        match kind {
            Line::Added => file.added += 1,
            Line::Removed => file.removed += 1,
            Line::Binary => file.binary = true,
            Line::Head if text.starts_with("new file") => file.how = " (new)",
            Line::Head if text.starts_with("deleted file") => file.how = " (gone)",
            Line::Head if text.starts_with("rename from") => file.how = " (renamed)",
            Line::Head if text.starts_with("new mode") => file.how = " (mode)",
            _ => {}
        }
    }
    let (mut added, mut removed) = (0, 0);
    for file in &files {
        (added, removed) = (added + file.added, removed + file.removed);
        let lines = if file.binary {
            "binary".to_owned()
        } else {
            format!("+{} -{}", file.added, file.removed)
        };
        writeln!(out, "{lines:>14}  {}{}", one_line(&file.name, WIDTH), file.how)?;
    }
    writeln!(out, "{} files, +{added} -{removed}", files.len())
}

/// The name behind `b/`, as git quotes it.
fn name(line: &str) -> String {
    let both = line.strip_prefix("diff --git ").unwrap_or(line);
    let new = both.rfind(" \"b/").map(|at| &both[at + 4..both.len() - 1]);
    let new = new.or_else(|| both.rfind(" b/").map(|at| &both[at + 3..]));
    new.unwrap_or(both).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATCH: &str = "# not in this patch: x\u{1b}[31m (why)\n\
        diff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n@@ -1,3 +1,2 @@\n same\n--- a/no\n-\u{1b}[31mred\n+++ b/no\n\
        diff --git \"a/n w\" \"b/n w\"\nnew file mode 100644\nindex 0..1\nGIT binary patch\nliteral 3\nKcmZ\n\n\
        diff --git a/o b/t\nsimilarity index 100%\nrename from o\nrename to t\n";

    #[test]
    fn lines_are_what_they_are_by_their_place() {
        let mut out = Vec::new();
        stat(PATCH.as_bytes(), &mut out).expect("told");
        let told = String::from_utf8(out).expect("text");
        let expected = "# not in this patch: x (why)\n         +1 -2  a\n        binary  n w (new)\n         \
                        +0 -0  t (renamed)\n3 files, +1 -2\n";
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_from_inside_steers_the_terminal() {
        let mut out = Vec::new();
        show(PATCH.as_bytes(), false, &mut out).expect("shown");
        let shown = String::from_utf8(out).expect("text");
        assert!(!shown.contains('\u{1b}') && shown.contains("-␛[31mred"), "{shown}");
        assert_eq!(shown.lines().count(), PATCH.lines().count());
        let mut out = Vec::new();
        show(PATCH.as_bytes(), true, &mut out).expect("shown");
        let shown = String::from_utf8(out).expect("text");
        assert!(shown.contains("\u{1b}[31m-␛[31mred\u{1b}[0m\n"), "{shown}");
        assert!(shown.contains("\u{1b}[1mdiff --git a/a b/a\u{1b}[0m\n"), "{shown}");
    }
}
