//! `sandbox-mcp runs show RUN`: the closing report, for people or as it is.

use std::io::Write;

use anyhow::Context;

use super::list::duration;
use crate::history::{Entry, State};
use crate::runner::{Glance, PastReport, told};

pub fn run(entry: &Entry, json: bool, out: &mut impl Write) -> anyhow::Result<u8> {
    if json {
        super::print_json(out, &told(entry)?)?;
        return Ok(0);
    }
    let report = entry.report()?;
    let glance = Glance::at(entry);
    writeln!(out, "{} · {}", glance.run_id, headline(&glance))?;
    field(out, "task", &glance.task)?;
    field(out, "workspace", &format!("{} ({})", glance.workspace, glance.mode.replace('_', "-")))?;
    let standing = match glance.changes {
        Some("pending") => format!("not applied yet (sandbox-mcp apply {})", glance.run_id),
        Some("undone") => format!("undone (sandbox-mcp apply {})", glance.run_id),
        _ => glance.changes_label().unwrap_or_default(),
    };
    field(out, "result", &standing)?;
    match &report {
        Some(report) => {
            let report = PastReport::of(report).context("failed to read the closing report")?;
            show(&report, out)?;
        }
        None if entry.state() == State::Running => {
            writeln!(out, "\nIt goes on: sandbox-mcp runs follow {}", glance.run_id)?;
        }
        None => writeln!(out, "\nIts process ended before it could write a report.")?,
    }
    field(out, "record", &entry.folder().display().to_string())?;
    Ok(0)
}

fn headline(glance: &Glance) -> String {
    match glance.duration_ms {
        Some(ms) => format!("{} in {}", glance.label(), duration(ms)),
        None => glance.label(),
    }
}

fn field(out: &mut impl Write, name: &str, text: &str) -> std::io::Result<()> {
    if text.is_empty() { Ok(()) } else { writeln!(out, "{name:<10} {text}") }
}

fn show(report: &PastReport, out: &mut impl Write) -> std::io::Result<()> {
    let usage = report.usage;
    field(
        out,
        "model",
        &format!(
            "{} requests, {} + {} tokens",
            usage.requests, usage.input_tokens, usage.output_tokens
        ),
    )?;
    // A run that ended early had none.
    if !report.sandbox.image.0.is_empty() {
        let sandbox = &report.sandbox;
        field(out, "sandbox", &format!("{} on {}", sandbox.image.0, sandbox.engine.0))?;
    }
    if let Some(error) = &report.error {
        field(out, "error", &format!("{} ({})", error.message.0, error.kind.0))?;
        field(out, "hint", error.hint.as_ref().map_or("", |hint| &hint.0))?;
    }
    if let Some(verify) = &report.verify {
        let verdict = if verify.passed { "passed" } else { "FAILED" };
        field(out, "verify", &format!("{verdict}: {}", verify.command.0))?;
    }
    if let Some(session) = &report.session {
        let knew = if session.resumed { "gone on with" } else { "begun" };
        field(out, "session", &format!("{}, {knew}", session.id.0))?;
    }
    if !report.continued.is_empty() {
        let reasons: Vec<_> = report.continued.iter().map(|one| one.reason.0.as_str()).collect();
        field(out, "continued", &format!("after: {}", reasons.join(", ")))?;
    }
    for remark in &report.remarks {
        field(out, "remark", &remark.0)?;
    }
    changes(report, out)?;
    egress(report, out)?;
    if !report.answer.0.is_empty() {
        writeln!(out, "\nanswer\n{}\n", report.answer.0.trim_end())?;
    }
    Ok(())
}

fn changes(report: &PastReport, out: &mut impl Write) -> std::io::Result<()> {
    let changes = &report.changes;
    if changes.files.is_empty() {
        let none = if changes.truncated { "not known" } else { "none" };
        return field(out, "changes", none);
    }
    field(out, "changes", &changes.files.len().to_string())?;
    for file in &changes.files {
        writeln!(out, "  {:<9} {}", file.change.0, file.path.0)?;
    }
    if changes.truncated {
        writeln!(out, "  … and maybe more")?;
    }
    Ok(())
}

fn egress(report: &PastReport, out: &mut impl Write) -> std::io::Result<()> {
    let egress = &report.egress;
    if egress.allowed + egress.refused == 0 {
        return field(out, "egress", "nothing was tried");
    }
    field(out, "egress", &format!("{} allowed, {} refused", egress.allowed, egress.refused))?;
    for target in &egress.targets {
        let why = target.reason.as_ref().map(|why| format!(" ({})", why.0)).unwrap_or_default();
        writeln!(
            out,
            "  {}:{}  {} allowed, {} refused{why}",
            target.host.0, target.port, target.allowed, target.refused
        )?;
    }
    Ok(())
}
