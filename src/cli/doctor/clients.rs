//! The clients on this machine: whether they know this server, and whether they wait for it.

use std::path::PathBuf;

use super::finding::Finding;
use crate::cli::install::around::Around;
use crate::cli::install::clients::{CLIENTS, Client};
use crate::cli::install::entry::Scope;
use crate::cli::install::register::{Place, is_installed};
use crate::cli::install::standing::{self, Trouble};
use crate::cli::install::{self, NAME};
use crate::config::Config;

/// Looks at the files of the clients that are installed, the user's and the project's.
pub fn examine(config: &Config, project: Option<PathBuf>) -> Vec<Finding> {
    let around = match Around::here(config) {
        Ok(around) => Around { project: project.unwrap_or(around.project.clone()), ..around },
        Err(error) => {
            let message = format!("not examined: {error:#}");
            return vec![Finding::warning("clients", message, "set HOME")];
        }
    };
    CLIENTS
        .iter()
        .filter(|client| is_installed(client, &around))
        .flat_map(|client| of(client, &around))
        .collect()
}

fn of(client: &'static Client, around: &Around) -> Vec<Finding> {
    let mut findings = Vec::new();
    for scope in [Scope::User, Scope::Project] {
        match Place::find(client, scope, NAME, around) {
            Ok(place) => findings.extend(registrations(&place, around)),
            // A project's file may not be there for many reasons; the user's must be readable.
            Err(error) if scope == Scope::User => findings.push(Finding::told(
                super::finding::Level::Warning,
                client.id,
                &format!("failed to {error}"),
                "make it readable",
            )),
            Err(_) => {}
        }
    }
    if findings.is_empty() {
        let message = format!(
            "{} is here and does not know this server; `sandbox-mcp install {}` tells it",
            client.name, client.id
        );
        findings.push(Finding::ok(client.id, message));
    }
    findings
}

fn registrations(place: &Place, around: &Around) -> Vec<Finding> {
    let client = place.client;
    let mut findings = Vec::new();
    for (name, entry) in place.ours() {
        let at = format!("{}: `{name}` in {}", client.name, around.shown(place.path()));
        let remedy = install::line(client, place.scope, name);
        if standing::is_off(entry) {
            findings.push(Finding::ok(client.id, format!("{at} is switched off")));
            continue;
        }
        let troubles = standing::examine(client, entry, around);
        if troubles.is_empty() {
            let waits = match (client.patience.key, standing::patience(client, entry, around)) {
                // Nobody has seen how long.
                (None, _) => String::new(),
                (Some(_), u64::MAX) => " and is waited for while it shows life".to_owned(),
                (Some(_), seconds) => format!(" and is waited for {seconds} s a call"),
            };
            let message = format!("{at} starts this program{waits}");
            findings.push(Finding::ok(client.id, message));
        }
        findings.extend(troubles.into_iter().map(|trouble| {
            let (message, remedy) = match trouble {
                Trouble::Missing(program) if place.scope == Scope::Project => (
                    format!("{at} starts `{program}`, which is not on the PATH"),
                    "put this program into a folder of the PATH".to_owned(),
                ),
                Trouble::Missing(program) => {
                    (format!("{at} starts `{program}`, which is not there"), remedy.clone())
                }
                Trouble::Another(program) => (
                    format!("{at} starts {}, which is not this program", around.shown(&program)),
                    format!("if this one is meant: {remedy}"),
                ),
                Trouble::CutShort(seconds) => (
                    format!(
                        "{at}: the client gives a call up after {seconds} s, before the server \
                         answers; the run goes on, and its result has to be asked for"
                    ),
                    remedy.clone(),
                ),
            };
            Finding::warning(client.id, message, remedy)
        }));
    }
    findings
}
