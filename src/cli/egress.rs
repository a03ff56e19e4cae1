//! `sandbox-mcp egress learn`: shows what a run was refused, and allows what the user picks.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::Usage;
use super::runs::find;
use crate::config::{Domain, Effective, LoadOptions, Name, load, state_dir};
use crate::history::{Entry, Part};

#[derive(Debug, clap::Subcommand)]
pub enum EgressCommand {
    /// Show what a run was refused, and add what you pick to `egress.allow`
    Learn {
        /// Id of the run, the beginning of one, or `last`
        run: String,
        /// Add these without asking; a name, or with a leading dot all below it, too
        #[arg(long, value_name = "DOMAIN", value_delimiter = ',')]
        add: Vec<String>,
    },
}

/// A line of the audit log, as far as it is read here.
#[derive(Debug, Deserialize)]
struct Line {
    target: String,
    port: u16,
    outcome: Outcome,
}

#[derive(Debug, Deserialize)]
struct Outcome {
    reason: Option<String>,
}

pub fn run(
    options: &LoadOptions,
    command: &EgressCommand,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let EgressCommand::Learn { run, add } = command;
    let state = state_dir()?;
    let entry = find(&state, run)?;
    let run = entry.id();
    let refused = refused(&attempts(&entry)?);
    let effective = load(options).map_err(|error| Usage(error.to_string()))?;
    if refused.is_empty() {
        writeln!(out, "run {run} was refused nothing")?;
    } else {
        writeln!(out, "run {run} was refused:")?;
    }
    for ((host, port, reason), times) in &refused {
        let what = explain(reason);
        writeln!(out, "  {host}:{port}  {times} times  {what}")?;
    }
    let learnable: Vec<_> = learnable(&refused, &effective);
    let picked = if add.is_empty() { ask(&learnable, out)? } else { add.clone() };
    if picked.is_empty() {
        return Ok(0);
    }
    for domain in &picked {
        domain.parse::<Domain>().map_err(|error| Usage(error.to_string()))?;
    }
    let file = file_to_write(&effective, options)?;
    allow(&file, &picked)?;
    // What was written must be what is read.
    load(options).map_err(|error| Usage(error.to_string()))?;
    writeln!(out, "added to egress.allow in {}: {}", file.display(), picked.join(", "))?;
    Ok(0)
}

/// The audit log of a run; nothing where nothing was tried.
fn attempts(entry: &Entry) -> anyhow::Result<Vec<String>> {
    let Some(log) = entry.open(Part::Egress)? else { return Ok(Vec::new()) };
    log.lines().collect::<Result<_, _>>().context("failed to read the run's record")
}

type Refused = BTreeMap<(String, u16, String), u64>;

fn refused(lines: &[String]) -> Refused {
    let mut refused = Refused::new();
    for line in lines {
        // A line that was cut by a crash is not worth failing for.
        let Ok(Line { target, port, outcome }) = serde_json::from_str(line) else { continue };
        if let Some(reason) = outcome.reason {
            *refused.entry((target, port, reason)).or_default() += 1;
        }
    }
    refused
}

fn explain(reason: &str) -> &str {
    match reason {
        "not_allowed" => "not among the allowed domains",
        "port" => "a port that is not allowed (`egress.ports`)",
        "ip_literal" => "an address instead of a name; never allowed",
        "private_address" | "own_address" => "leads to this machine or its network; never allowed",
        "sni_mismatch" | "no_sni" | "not_tls" => "not TLS for that name; never allowed",
        other => other,
    }
}

/// Names that a person could allow.
fn learnable(refused: &Refused, effective: &Effective) -> Vec<String> {
    let mut names: Vec<_> = refused
        .keys()
        .filter(|(host, _, reason)| reason == "not_allowed" && Name::parse(host).is_ok())
        .map(|(host, ..)| host.to_ascii_lowercase())
        .filter(|host| !effective.config.egress.allow.contains(host))
        .collect();
    names.dedup();
    names
}

/// Asks for each name at the terminal. Without one, says how to add them.
fn ask(names: &[String], out: &mut impl Write) -> anyhow::Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    if !std::io::stdin().is_terminal() {
        writeln!(out, "to allow some: --add {}", names.join(","))?;
        return Ok(Vec::new());
    }
    let mut picked = Vec::new();
    for name in names {
        write!(out, "allow {name} from now on? [y/N] ")?;
        out.flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
            picked.push(name.clone());
        }
    }
    Ok(picked)
}

/// The user's file, or where one would be.
fn file_to_write(effective: &Effective, options: &LoadOptions) -> anyhow::Result<PathBuf> {
    effective.file.clone().or_else(|| options.environment.user_file()).ok_or_else(|| {
        Usage("there is no home folder for a configuration; name one with --config".into()).into()
    })
}

/// Adds domains to `egress.allow` of a file, leaving everything else in it as it is.
fn allow(file: &Path, domains: &[String]) -> anyhow::Result<()> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("failed to read {}", file.display()));
        }
    };
    let mut document: toml_edit::DocumentMut =
        text.parse().with_context(|| format!("failed to read {}", file.display()))?;
    let section = document.entry("egress").or_insert_with(toml_edit::table);
    let section = section
        .as_table_like_mut()
        .with_context(|| format!("`egress` in {} is no section", file.display()))?;
    let list = section.entry("allow").or_insert(toml_edit::value(toml_edit::Array::new()));
    let list = list
        .as_array_mut()
        .with_context(|| format!("`egress.allow` in {} is no list", file.display()))?;
    for domain in domains {
        if !list.iter().any(|there| there.as_str() == Some(domain)) {
            list.push(domain.as_str());
        }
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("failed to make {}", folder.display()))?;
    }
    // Whole or not at all; a link to the file stays one.
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let partial = real.with_extension("toml.partial");
    std::fs::write(&partial, document.to_string())
        .and_then(|()| match real.metadata() {
            Ok(found) => std::fs::set_permissions(&partial, found.permissions()),
            Err(_) => Ok(()),
        })
        .and_then(|()| std::fs::rename(&partial, &real))
        .with_context(|| format!("failed to write {}", real.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_added_once_and_nothing_else_is_touched() {
        let folder = tempfile::tempdir().expect("temp");
        let file = folder.path().join("new/config.toml");
        allow(&file, &["a.example.com".into()]).expect("made");
        assert_eq!(
            std::fs::read_to_string(&file).expect("there"),
            "[egress]\nallow = [\"a.example.com\"]\n"
        );
        let text = "# mine\n[egress] # why\nallow = [\n  \"a.example.com\", # first\n]\nopen = false\n\n[limits]\npids = 64\n";
        std::fs::write(&file, text).expect("written");
        allow(&file, &["a.example.com".into(), ".b.example.com".into()]).expect("added");
        let now = std::fs::read_to_string(&file).expect("there");
        for kept in ["# mine\n[egress] # why\n", "# first", "open = false\n\n[limits]\npids = 64\n"]
        {
            assert!(now.contains(kept), "{now}");
        }
        assert_eq!(now.matches("a.example.com").count(), 1);
        assert!(now.contains("\".b.example.com\""), "{now}");
        for wrong in ["egress = 3\n", "[egress]\nallow = 3\n", "not toml"] {
            std::fs::write(&file, wrong).expect("written");
            assert!(allow(&file, &["a.example.com".into()]).is_err());
            assert_eq!(std::fs::read_to_string(&file).expect("there"), wrong, "left as it was");
        }
    }

    #[test]
    fn only_names_that_a_person_could_allow_are_offered() {
        let line = |target: &str, reason: &str| {
            format!(
                r#"{{"at":"2026-01-01T00:00:00Z","target":"{target}","port":443,"kind":"connect","outcome":{{"result":"refused","reason":"{reason}"}}}}"#
            )
        };
        let mut lines = vec![
            line("a.example.com", "not_allowed"),
            line("a.example.com", "not_allowed"),
            line("10.0.0.1", "ip_literal"),
            line("inner.example.com", "private_address"),
            line("evil name", "not_allowed"),
        ];
        lines
            .push(r#"{"target":"b.example.com","port":443,"outcome":{"result":"allowed"}}"#.into());
        lines.push("{\"cut".into());
        let refused = refused(&lines);
        assert_eq!(refused.len(), 4);
        assert_eq!(refused[&("a.example.com".into(), 443, "not_allowed".into())], 2);
        let folder = tempfile::tempdir().expect("temp");
        let file = folder.path().join("c.toml");
        std::fs::write(&file, "").expect("written");
        let options = LoadOptions { file: Some(file), ..LoadOptions::default() };
        let effective = load(&options).expect("a configuration");
        assert_eq!(learnable(&refused, &effective), ["a.example.com"]);
    }
}
