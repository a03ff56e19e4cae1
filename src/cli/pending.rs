//! The question at a terminal about changes that wait.

use std::io::{BufRead, IsTerminal, Write};

use super::runs::apply::{refuse, show};
use crate::history::Entry;
use crate::runner::{ApplyOptions, Report, Runner};
use crate::workspace::Mode;
use crate::workspace::changeset::{Agreed, NeedsYes};

/// Asks the person at the terminal whether waiting changes of a direct run are to be applied, and
/// applies them. Protected paths are all listed and asked about by themselves, and a yes is for
/// these alone. Does nothing where no person can answer.
pub fn ask(runner: &Runner, report: &Report) -> anyhow::Result<()> {
    let changes = &report.changes;
    let waits = report.workspace.mode == Mode::Direct && changes.applied == Some(false);
    if !waits || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(());
    }
    let Some(entry) = Entry::of(runner.state(), &report.run_id) else { return Ok(()) };
    let count = changes.files.len();
    let (more, files) =
        (if changes.truncated { "+" } else { "" }, if count == 1 { "file" } else { "files" });
    // Conflicts alone are no question that a yes would settle.
    if changes.pending.as_ref().is_some_and(|pending| pending.protected == 0) {
        return Ok(());
    }
    let is_asked = changes.pending.as_ref().is_none_or(|pending| pending.applied == 0);
    if is_asked && !is_yes(&format!("{count}{more} {files} pending: apply now? [y/N] "))? {
        return Ok(());
    }
    let protected = apply(runner, &entry, Agreed::Nothing)?;
    if protected.is_empty() {
        return Ok(());
    }
    let question = "tools on this machine run or obey these by themselves: apply them too? [y/N] ";
    if is_yes(question)? {
        apply(runner, &entry, Agreed::These(protected))?;
    }
    Ok(())
}

/// Applies what can be, shows it, and returns what needs a yes.
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
