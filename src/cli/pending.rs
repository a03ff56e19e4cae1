//! The question at a terminal about changes that wait.

use std::io::{BufRead, IsTerminal, Write};

use super::runs::apply::{refuse, show};
use crate::history::Entry;
use crate::runner::{ApplyOptions, Report, Runner};
use crate::text::one_line;
use crate::workspace::changeset::{Agreed, NeedsYes};
use crate::workspace::{Mode, PendingFile};

/// Asks the person at the terminal whether waiting changes of a direct run are to be applied, and
/// applies them. Protected paths are listed and asked about by themselves. Does nothing where no
/// person can answer.
pub fn ask(runner: &Runner, report: &Report) -> anyhow::Result<()> {
    let waits = report.workspace.mode == Mode::Direct && report.changes.applied == Some(false);
    if !waits || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    let Some(entry) = Entry::of(runner.state(), &report.run_id) else { return Ok(()) };
    let protected: Vec<_> = if let Some(pending) = &report.changes.pending {
        let protected = pending.files.iter().filter(|file| file.why.starts_with("protected"));
        protected.map(|PendingFile { path, why }| format!("{path} ({why})")).collect()
    } else {
        let count = report.changes.files.len();
        let more = if report.changes.truncated { "+" } else { "" };
        let files = if count == 1 { "file" } else { "files" };
        if !is_yes(&format!("{count}{more} {files} pending: apply now? [y/N] "))? {
            return Ok(());
        }
        let named = |need: &NeedsYes| format!("{} (protected: {})", need.path, need.why);
        apply(runner, &entry, Agreed::Nothing)?.iter().map(named).collect()
    };
    if protected.is_empty() {
        return Ok(());
    }
    let mut out = std::io::stderr().lock();
    for path in &protected {
        writeln!(out, "  {}", one_line(path, 200))?;
    }
    drop(out);
    let question = "tools on this machine run or obey these by themselves: apply them too? [y/N] ";
    if is_yes(question)? {
        apply(runner, &entry, Agreed::Everything)?;
    }
    Ok(())
}

/// Applies what can be, and returns what needs a yes.
fn apply(runner: &Runner, entry: &Entry, agreed: Agreed) -> anyhow::Result<Vec<NeedsYes>> {
    let options = ApplyOptions { agreed, partial: true, ..ApplyOptions::default() };
    let mut out = std::io::stderr();
    match runner.apply(entry, &options, super::complain) {
        Ok(applied) => {
            show(&applied, false, &mut out)?;
            Ok(applied.protected)
        }
        Err(error) => {
            refuse(&error, false, &mut out)?;
            Ok(Vec::new())
        }
    }
}

/// Asks on standard error; anything but a yes is a no.
fn is_yes(question: &str) -> anyhow::Result<bool> {
    let mut out = std::io::stderr().lock();
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
