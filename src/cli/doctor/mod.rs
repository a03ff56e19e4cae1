//! `sandbox-mcp doctor`: whether runs can work here, and what to do where they cannot.
//!
//! Each area is one file that looks and returns [`Finding`]s; this one has their order and their
//! bounds. Areas that do not need one another are looked at together, and what can be slow (the
//! model, a whole rehearsed run) is shown last, so that nobody waits for what is known already.

mod clients;
mod deep;
mod engine;
mod finding;
mod folders;
mod image;
mod model;
mod report;
mod runc;
mod settings;
mod workspace;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use finding::Finding;
use report::{Area, Report, Style};

use crate::config::{Config, Effective, Error};
use crate::engine::{Engine, Facts};

/// How long an engine may take to be found and to describe itself, or its image.
const ENGINE: Duration = Duration::from_secs(30);
/// How long folders may take; on a network's file system that is gone it would be for ever.
const FILES: Duration = Duration::from_secs(10);

/// What was asked.
#[derive(Debug)]
pub struct Options {
    /// One object for a program instead of lines for a person.
    pub json: bool,
    /// Also rehearse a whole run.
    pub deep: bool,
    pub workspace: Option<PathBuf>,
}

/// Examines everything and shows it. The exit code is 1 where anything is an error.
pub async fn run(
    loaded: Result<Effective, Error>,
    options: &Options,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let (findings, config) = settings::examine(loaded);
    let mut report = Report::new(out, Style::of_standard_output(options.json));
    report.add(Area::Configuration, findings)?;

    let (folders, engine, (model, endpoint)) =
        tokio::join!(beside("folders", folders::examine), host(&config), model::examine(&config),);
    let Host { mut findings, met, image, built } = engine;
    let rootless = met.as_ref().is_some_and(|(_, facts)| facts.rootless);
    let root = met.as_ref().and_then(|(_, facts)| facts.root_dir.clone());
    if let Some(root) = root {
        let look = move || folders::engine_space(Path::new(&root)).into_iter().collect();
        findings.extend(beside("space", look).await);
    }
    report.add(Area::Folders, folders)?;
    report.add(Area::Engine, findings)?;
    report.add(Area::Image, image)?;
    let question = workspace::Question::new(options.workspace.clone(), &config, rootless);
    report.add(Area::Workspace, beside("folder", move || question.examine()).await)?;
    let (settings, project) = (config.clone(), options.workspace.clone());
    let look = move || clients::examine(&settings, project);
    report.add(Area::Clients, beside("clients", look).await)?;
    report.add(Area::Model, model)?;
    if let Some(endpoint) = endpoint {
        report.add(Area::Model, model::try_tools(&endpoint, &config).await)?;
    }
    if options.deep {
        let findings = match met {
            Some(_) => deep::examine(&config, rootless, built).await,
            None => vec![unexamined("rehearsal")],
        };
        report.add(Area::Sandbox, findings)?;
    }
    Ok(report.finish()?)
}

/// The engine, and what hangs on it.
#[derive(Debug)]
struct Host {
    findings: Vec<Finding>,
    met: Option<(Engine, Facts)>,
    image: Vec<Finding>,
    /// Whether the image is there.
    built: bool,
}

async fn host(config: &Config) -> Host {
    let (findings, met) =
        tokio::time::timeout(ENGINE, engine::examine(config)).await.unwrap_or_else(|_| {
            let message = format!("it did not describe itself within {} s", ENGINE.as_secs());
            let remedy = "look at the engine's log (`journalctl -u docker`), and restart it";
            (vec![Finding::error("found", message, remedy)], None)
        });
    let (image, built) = match &met {
        None => (vec![unexamined("built")], false),
        Some((engine, _)) => tokio::time::timeout(ENGINE, image::examine(config, engine))
            .await
            .unwrap_or_else(|_| {
                let message = format!("the engine did not answer within {} s", ENGINE.as_secs());
                (vec![Finding::error("built", message, "look at the engine's log")], false)
            }),
    };
    Host { findings, met, image, built }
}

fn unexamined(check: &'static str) -> Finding {
    Finding::warning(check, "not examined, because no engine answers", "see `engine` above")
}

/// Looks at files on a thread of its own. One that blocks for ever ends with the process; a
/// runtime's own threads would be waited for.
async fn beside(
    check: &'static str,
    look: impl FnOnce() -> Vec<Finding> + Send + 'static,
) -> Vec<Finding> {
    let (done, found) = tokio::sync::oneshot::channel();
    let started = std::thread::Builder::new().name(check.into()).spawn(move || {
        // Nobody waits any more when it comes too late.
        let _ = done.send(look());
    });
    let remedy = "look for a file system that does not answer (`mount`, `dmesg`)";
    match started {
        Ok(_) => match tokio::time::timeout(FILES, found).await {
            Ok(Ok(findings)) => findings,
            Ok(Err(_)) => vec![Finding::error(
                check,
                "sandbox-mcp broke down while it looked; its log has the place",
                "please report this",
            )],
            Err(_) => {
                let message = format!("no answer within {} s", FILES.as_secs());
                vec![Finding::error(check, message, remedy)]
            }
        },
        Err(error) => vec![Finding::error(check, error.to_string(), "end some processes")],
    }
}
