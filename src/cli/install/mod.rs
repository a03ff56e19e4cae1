//! `sandbox-mcp install`: registers this server with the clients that people have.
//!
//! [`clients`] is a table with a row for each, [`entry`] what is said in it, [`document`] a text
//! that is changed at one place, [`file`] the careful way to disk, [`register`] all of it for one
//! client. Trust is never given for a person: whatever a client asks before a call, it goes on
//! asking.

pub(super) mod around;
pub(super) mod clients;
mod document;
pub(super) mod entry;
mod file;
mod format;
mod jsonc;
pub(super) mod register;
pub(super) mod standing;
mod tomled;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod tests;

use std::io::{BufRead, IsTerminal, Write};

use super::{USAGE, Usage, complain};
use crate::config::Config;
use around::Around;
use clients::{CLIENTS, Client};
use entry::Scope;
use register::{Done, Place};

/// The name under which the server is registered unless another is given.
pub(super) const NAME: &str = "sandbox";

pub(super) const CLIENTS_HELP: &str = "Clients: claude-code, codex, gemini, opencode, vscode, \
    cursor, zed, lm-studio. Without one, those that are installed are found, and you are asked.";

#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    /// Which client
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(CLIENTS.iter().map(|client| client.id)))]
    client: Option<String>,
    /// For this user everywhere, or in this folder's project for all who share it
    #[arg(long, value_enum, default_value = "user")]
    scope: Scope,
    /// Write nothing; show what belongs where
    #[arg(long)]
    print: bool,
    /// Remove the registration
    #[arg(long, conflicts_with = "print")]
    uninstall: bool,
    /// What the server is called there
    #[arg(long, default_value = NAME, value_parser = name)]
    name: String,
    /// All that are installed, without asking
    #[arg(long, conflicts_with = "client")]
    yes: bool,
}

/// What every client takes for a name.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("1 to 64 letters, digits, `-` and `_`".to_owned())
    }
}

pub fn run(config: &Config, args: &InstallArgs, out: &mut impl Write) -> anyhow::Result<u8> {
    let around = Around::here(config)?;
    if let Some(client) = args.client.as_deref().and_then(clients::find) {
        one(client, args, &around, out)?;
        return Ok(0);
    }
    let found = candidates(args, &around);
    if found.is_empty() {
        let known: Vec<_> = CLIENTS.iter().map(|client| client.id).collect();
        let what = if args.uninstall { "registration" } else { "client" };
        return Err(anyhow::Error::new(Usage(format!(
            "no {what} was found here; name one of {}",
            known.join(", ")
        ))));
    }
    let chosen = if args.yes {
        found
    } else if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        ask(&found, &around, args, &mut std::io::stdin().lock(), out)?
    } else {
        let flag = match (args.uninstall, args.print) {
            (true, _) => " --uninstall",
            (_, true) => " --print",
            _ => "",
        };
        for client in &found {
            let line = line(client, args.scope, &args.name);
            writeln!(out, "{line}{flag}  # {}", client.name)?;
        }
        complain("nobody is here to choose: these are installed; use one of the lines, or --yes");
        return Ok(USAGE);
    };
    let mut failed = false;
    for client in chosen {
        if let Err(error) = one(client, args, &around, out) {
            failed = true;
            complain(&format!("error: {error:#}"));
        }
    }
    Ok(u8::from(failed))
}

/// The clients that a call without a name is about.
fn candidates(args: &InstallArgs, around: &Around) -> Vec<&'static Client> {
    let all = CLIENTS.iter();
    let fits = |client: &&'static Client| {
        let has_scope = args.scope == Scope::User || !client.project.is_empty();
        let registered = || {
            Place::find(client, args.scope, &args.name, around)
                .is_ok_and(|place| place.ours().any(|(name, _)| name == args.name))
        };
        has_scope
            && if args.uninstall { registered() } else { register::is_installed(client, around) }
    };
    all.filter(fits).collect()
}

/// The line that registers with a client.
pub(super) fn line(client: &Client, scope: Scope, name: &str) -> String {
    let project = if scope == Scope::Project { " --scope project" } else { "" };
    let named = if name == NAME { String::new() } else { format!(" --name {name}") };
    format!("sandbox-mcp install {}{project}{named}", client.id)
}

fn ask(
    found: &[&'static Client],
    around: &Around,
    args: &InstallArgs,
    answers: &mut impl BufRead,
    out: &mut impl Write,
) -> anyhow::Result<Vec<&'static Client>> {
    for (at, client) in found.iter().enumerate() {
        let place = Place::find(client, args.scope, &args.name, around);
        let state = match &place {
            Ok(place) if place.ours().next().is_some() => "registered",
            Ok(_) => "not registered",
            Err(_) => "its settings cannot be read",
        };
        writeln!(out, "{:>3}  {} ({state})", at + 1, client.name)?;
    }
    let verb = if args.uninstall { "Remove from" } else { "Register with" };
    loop {
        write!(out, "{verb} which? Numbers, `all`, or nothing for none: ")?;
        out.flush()?;
        let mut answer = String::new();
        if answers.read_line(&mut answer)? == 0 {
            return Ok(Vec::new());
        }
        match picked(&answer, found) {
            Some(picked) => return Ok(picked),
            None => writeln!(out, "one of 1 to {}, several, or `all`", found.len())?,
        }
    }
}

/// None where the answer is not understood.
fn picked(answer: &str, found: &[&'static Client]) -> Option<Vec<&'static Client>> {
    let answer = answer.trim();
    if answer.eq_ignore_ascii_case("all") {
        return Some(found.to_vec());
    }
    let words =
        answer.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let mut picked: Vec<&'static Client> = Vec::new();
    for word in words {
        let number: usize = word.parse().ok()?;
        let client = *found.get(number.checked_sub(1)?)?;
        if !picked.iter().any(|one| one.id == client.id) {
            picked.push(client);
        }
    }
    Some(picked)
}

fn one(
    client: &'static Client,
    args: &InstallArgs,
    around: &Around,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    // By custom these messages complete "failed to …".
    let told = |error: register::Error| anyhow::anyhow!("{}: failed to {error}", client.name);
    let made = entry::make(client, args.scope, around)?;
    if args.print {
        let (path, text) =
            register::snippet(client, args.scope, &args.name, &made.entry, around).map_err(told)?;
        complain(&format!("{}: in {}", client.name, around.shown(&path)));
        write!(out, "{text}")?;
        for note in made.notes {
            complain(&format!("note: {note}"));
        }
        return Ok(());
    }
    let place = Place::find(client, args.scope, &args.name, around).map_err(told)?;
    let done = if args.uninstall {
        place.unregister(&args.name)
    } else {
        place.register(&args.name, &made.entry)
    };
    let done = done.map_err(told)?;
    tell(&done, &place, args, around, out)?;
    if !args.uninstall {
        for note in made.notes {
            complain(&format!("note: {note}"));
        }
        let other: Vec<_> =
            place.ours().map(|(name, _)| name).filter(|name| *name != args.name).collect();
        if !other.is_empty() {
            complain(&format!(
                "note: this server is there as `{}` too, so its tools are shown twice; `--uninstall \
                 --name {}` removes that",
                other.join("`, `"),
                other[0]
            ));
        }
    }
    Ok(())
}

fn tell(
    done: &Done,
    place: &Place,
    args: &InstallArgs,
    around: &Around,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (client, name) = (place.client, &args.name);
    let file = around.shown(place.path());
    match done {
        Done::Already => {
            writeln!(out, "{}: already registered as `{name}` in {file}", client.name)?;
        }
        Done::NotThere => writeln!(out, "{}: no `{name}` in {file}", client.name)?,
        Done::Written { .. } => {
            writeln!(out, "{}: registered as `{name}` in {file}; {}", client.name, client.hint)?;
        }
        Done::Refreshed { .. } => {
            writeln!(out, "{}: brought `{name}` in {file} up to date", client.name)?;
        }
        Done::Removed { .. } => writeln!(out, "{}: removed `{name}` from {file}", client.name)?,
    }
    if let Done::Written { backup, kept }
    | Done::Refreshed { backup, kept }
    | Done::Removed { backup, kept } = done
    {
        if let Some(backup) = backup {
            writeln!(out, "  as it was: {}", around.shown(backup))?;
        }
        if let Some(kept) = kept {
            writeln!(out, "  as it was before us: {}", around.shown(kept))?;
        }
    }
    Ok(())
}
