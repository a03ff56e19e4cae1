//! `sandbox-mcp apply RUN`: carries the changes of a run over into its workspace.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Settings;
use crate::cli::complain;
use crate::history::Entry;
use crate::runner::{Applied, ApplyOptions, OutcomeError};
use crate::text::one_line;
use crate::workspace::changeset::{Agreed, ApplyError, Conflict, Escaped, NeedsYes};

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct ApplyArgs {
    run: String,
    /// Only this file or folder of the changes; may be repeated
    #[arg(long, value_name = "PATH")]
    only: Vec<OsString>,
    /// Take the run's version of this file or folder, whatever is there by now; may be repeated
    #[arg(long, value_name = "PATH")]
    take: Vec<OsString>,
    /// Also change what tools on the host execute or trust
    #[arg(long)]
    allow_protected: bool,
    /// Leave out what conflicts or needs a yes, and apply the rest
    #[arg(long)]
    partial: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    json: bool,
}

impl ApplyArgs {
    pub fn word(&self) -> &str {
        &self.run
    }
}

const WIDTH: usize = 200;

/// A path as a text, with `%XX` for what is not UTF-8.
fn as_text(path: &OsString) -> String {
    let escaped = || Escaped(path.as_encoded_bytes().to_vec()).into();
    path.to_str().map_or_else(escaped, str::to_owned)
}

pub fn run(
    entry: &Entry,
    args: &ApplyArgs,
    settings: Settings,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let runner = settings.runner_for(entry)?;
    let options = ApplyOptions {
        only: args.only.iter().map(as_text).collect(),
        take: args.take.iter().map(as_text).collect(),
        agreed: if args.allow_protected { Agreed::Everything } else { Agreed::Nothing },
        partial: args.partial,
        hold_checked: false,
        dry_run: args.dry_run,
        wait: None,
    };
    match runner.apply(entry, &options, complain) {
        Ok(applied) if args.json => super::print_json(out, &applied)?,
        Ok(applied) => show(&applied, args.dry_run, out)?,
        Err(error) => return refuse(&error, args.json, out),
    }
    Ok(0)
}

/// Prints what an apply has done, or would do.
pub fn show(applied: &Applied, dry_run: bool, out: &mut impl Write) -> std::io::Result<()> {
    for (what, path) in &applied.changed {
        writeln!(out, "{what:<9} {}", one_line(path, WIDTH))?;
    }
    for path in &applied.kept_folders {
        writeln!(out, "kept      {}/ (something else is in it)", one_line(path, WIDTH))?;
    }
    if let Some(commits) = &applied.commits {
        let place = match &commits.branch {
            Some(branch) if commits.moved => branch.trim_start_matches("refs/heads/"),
            _ => &commits.refs,
        };
        writeln!(out, "commits   {} in {}", commits.count, one_line(place, WIDTH))?;
    }
    for remark in &applied.remarks {
        writeln!(out, "note      {}", one_line(remark, 400))?;
    }
    for path in &applied.linked {
        let path = one_line(path, WIDTH);
        writeln!(out, "linked    {path} (its further names keep the old content)")?;
    }
    for path in &applied.mounted {
        let path = one_line(path, WIDTH);
        writeln!(
            out,
            "mounted   {path} (whoever mounted it sees the old content until a restart)"
        )?;
    }
    for order in &applied.obeyed {
        writeln!(out, "obeyed    {} ({})", one_line(&order.path, WIDTH), order.why)?;
    }
    for path in &applied.not_undoable {
        let path = one_line(path, WIDTH);
        writeln!(out, "no undo   {path} (its old content is too much to be kept)")?;
    }
    show_conflicts(&applied.conflicts, out)?;
    show_protected(&applied.protected, out)?;
    let would = if dry_run { "would be " } else { "" };
    let already = match applied.already {
        0 => String::new(),
        count => format!(", {count} were as the run left them"),
    };
    let changed = applied.changed.len();
    let pending = match applied.pending.len() {
        0 => String::new(),
        count => format!(", {count} left pending"),
    };
    writeln!(out, "{changed} {would}applied to {}{already}{pending}", applied.workspace)
}

fn show_conflicts(conflicts: &[Conflict], out: &mut impl Write) -> std::io::Result<()> {
    for conflict in conflicts {
        writeln!(out, "conflict  {}", one_line(&conflict.path, WIDTH))?;
        writeln!(out, "          expected {}", conflict.expected)?;
        writeln!(out, "          found    {}", one_line(&conflict.found, WIDTH))?;
        writeln!(out, "          {}", conflict.advice)?;
    }
    Ok(())
}

fn show_protected(needs: &[NeedsYes], out: &mut impl Write) -> std::io::Result<()> {
    for need in needs {
        writeln!(out, "protected {} ({})", one_line(&need.path, WIDTH), need.why)?;
    }
    Ok(())
}

/// Says why not, file by file.
pub fn refuse(error: &OutcomeError, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    if json {
        let mut told = json!({
            "error": { "kind": error.kind(), "message": error.to_string(), "hint": error.hint() },
        });
        match error {
            OutcomeError::Apply(ApplyError::Conflicts(conflicts)) => {
                told["conflicts"] = serde_json::to_value(conflicts)?;
            }
            OutcomeError::Apply(ApplyError::Protected(needs)) => {
                told["protected"] = serde_json::to_value(needs)?;
            }
            _ => {}
        }
        super::print_json(out, &told)?;
        return Ok(1);
    }
    match error {
        OutcomeError::Apply(ApplyError::Conflicts(conflicts)) => {
            show_conflicts(conflicts, out)?;
        }
        OutcomeError::Apply(ApplyError::Protected(needs)) => show_protected(needs, out)?,
        _ => {}
    }
    complain(&format!("error: {error}\n  hint: {}", error.hint()));
    Ok(1)
}
