//! The command line: one file per command.
//!
//! This room knows people and shells. It must never know containers.

mod build;
mod config;
mod doctor;
mod egress;
mod init;
mod install;
mod own;
mod pending;
mod policy;
mod run;
mod runs;
mod serve;
mod sessions;
mod token;
mod trust;
mod versions;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{
    Config, Effective, LoadOptions, Override, Project, Trust, load, load_at, state_dir,
};
use crate::runner::OwnerLog;
use crate::stderr;

/// Hand a coding task to a local agent in a fresh hardened container.
///
/// Without a command it is an MCP server on standard input and output:
/// `claude mcp add sandbox -- sandbox-mcp`.
#[derive(Debug, Parser)]
#[command(name = "sandbox-mcp", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file [default: ~/.config/sandbox-mcp/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Log more, on standard error (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Show nothing but the result and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 completed, 2 usage, 124 timed out, 130 cancelled, 1 \
                          anything else. `sandbox-mcp doctor` checks everything a run needs.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve MCP on standard input and output (what happens without a command), or over HTTP
    Serve(serve::ServeArgs),
    /// Run one task in a fresh sandbox and print its answer
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Check engine, image, model server, configuration and workspace
    Doctor {
        #[arg(long)]
        json: bool,
        /// Also run a task on the rehearsal model through a real sandbox
        #[arg(long)]
        deep: bool,
        /// Folder to check as a workspace [default: the current folder]
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Build the sandbox image, unless it is there, and print its name
    Build(build::BuildArgs),
    /// Print every pinned version with its digest, and the image in use
    Versions {
        #[arg(long)]
        json: bool,
    },
    /// Print exactly what a sandbox may do
    Policy {
        #[arg(long)]
        json: bool,
        /// With the settings of this folder's project
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
    },
    /// Print the settings in force and where each came from
    Config {
        #[arg(long)]
        json: bool,
        /// With the settings of this folder's project
        #[arg(long, value_name = "DIR")]
        workspace: Option<PathBuf>,
    },
    /// List, show, follow, cancel and remove runs on record
    Runs(runs::RunsArgs),
    /// List, remove and tidy up conversations that can be gone on with
    Sessions(sessions::SessionsArgs),
    /// Show what a run has changed in its view, also while it goes on; in a pipe, a patch for `git apply`
    #[command(after_help = runs::RUN)]
    Diff(runs::DiffArgs),
    /// Carry the changes of a run over into its workspace, all or none
    #[command(after_help = runs::RUN)]
    Apply(runs::ApplyArgs),
    /// Put back what applying a run's changes has replaced, all or nothing
    #[command(after_help = runs::RUN)]
    Undo(runs::One),
    /// Let the changes of a run go
    #[command(after_help = runs::RUN)]
    Discard(runs::One),
    /// What sandboxes may reach besides the model
    #[command(subcommand)]
    Egress(egress::EgressCommand),
    /// Register this server with a client: Claude Code, Codex, an editor …
    #[command(after_help = install::CLIENTS_HELP)]
    Install(install::InstallArgs),
    /// Write a `.sandbox-mcp.toml`, the settings of one project, to edit
    Init {
        /// Folder of the project [default: the current folder]
        workspace: Option<PathBuf>,
    },
    /// Carry out one run for another process of ours
    #[command(hide = true)]
    Own,
    /// Print the bearer token of the HTTP server; made where there is none
    Token {
        /// Make a new one; the old one is void at once, for running servers too
        #[arg(long)]
        rotate: bool,
    },
    /// Show what a project's `.sandbox-mcp.toml` asks for, and put it in force
    Trust(trust::TrustArgs),
}

/// Which model a command is about.
#[derive(Debug, Args)]
struct ModelArgs {
    /// Model server, with or without /v1; `rehearsal` is the scripted model inside this program
    #[arg(long, value_name = "URL")]
    model_url: Option<String>,
    /// Model id [default: the loaded one]
    #[arg(long, value_name = "ID")]
    model: Option<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct RunArgs {
    /// What the agent is to do; `-` or nothing reads it from standard input. One that begins with
    /// a dash goes behind `--`
    task: Option<String>,
    /// Folder to work in [default: the current folder]
    #[arg(long, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// direct: changes are applied at a good end; isolated: they wait; read-only: none are made
    #[arg(long, default_value = "direct", value_parser = mode)]
    mode: crate::workspace::Mode,
    /// Seconds the agent may work [default: 300, or `limits.timeout`]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    model: ModelArgs,
    /// One of the agent's commands, to which the task is the argument
    #[arg(long, value_name = "NAME")]
    command: Option<String>,
    /// Shell command that checks the result, run in the sandbox before the agent and after it
    /// [default: `agent.verify`; empty for none]
    #[arg(long, value_name = "COMMAND")]
    verify: Option<String>,
    /// Go on with a conversation by its id; `new` begins one that can be gone on with
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Leave that conversation as it is, and go on in a copy of it
    #[arg(long, requires = "session")]
    fork: bool,
    /// Print the run's id and leave it to itself; `runs follow` and `runs cancel` find it
    #[arg(long, conflicts_with = "events")]
    background: bool,
    /// Print the closing report as one JSON object
    #[arg(long, conflicts_with = "events")]
    json: bool,
    /// Print each event as a JSON line as it happens, the report last
    #[arg(long)]
    events: bool,
}

fn mode(text: &str) -> Result<crate::workspace::Mode, String> {
    text.parse().map_err(|error: crate::workspace::NotAMode| error.to_string())
}

/// Bad usage, also where only the configuration or the task's check can tell.
const USAGE: u8 = 2;

/// A failure that the command line itself is answerable for.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if matches!(cli.command, Some(Command::Own)) {
        own::leave_session().and_then(|()| {
            let log = OwnerLog::default();
            logging(cli.verbose, cli.quiet, log.clone());
            own::run(&log)
        })
    } else {
        logging(cli.verbose, cli.quiet, || stderr::Writer);
        dispatch(&cli)
    };
    let code = match done {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            if error.is::<Usage>() { USAGE } else { 1 }
        }
    };
    stderr::flush();
    // Not by returning: the runtime may hold a thread that blocks on standard input for ever.
    std::process::exit(code.into())
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    let effective = || settings(cli);
    let runs_settings =
        || Ok(runs::Settings { config: effective()?.config, options: load_options(cli) });
    let mut stdout = std::io::stdout().lock();
    match &cli.command {
        None => {
            drop(stdout);
            serve::run(
                effective()?.config,
                load_options(cli),
                &serve::ServeArgs::default(),
                cli.quiet,
            )
        }
        Some(Command::Serve(args)) => {
            drop(stdout);
            serve::run(effective()?.config, load_options(cli), args, cli.quiet)
        }
        Some(Command::Run(args)) => {
            drop(stdout);
            run::run(effective()?.config, load_options(cli), args, cli.quiet)
        }
        Some(Command::Doctor { json, deep, workspace, .. }) => {
            let options =
                doctor::Options { json: *json, deep: *deep, workspace: workspace.clone() };
            // A configuration that cannot be read is a finding, not the end of the examination.
            block_on(doctor::run(load(&load_options(cli)), &options, &mut stdout))
        }
        Some(Command::Build(args)) => {
            let effective = match args.workspace.as_deref() {
                None => effective()?,
                workspace => project_settings(cli, workspace)?,
            };
            block_on(build::run(&effective.config, args, cli.quiet, &mut stdout))?;
            Ok(0)
        }
        Some(Command::Versions { json }) => {
            let config = effective()?.config;
            block_on(versions::run(&config, *json, &mut stdout))?;
            Ok(0)
        }
        Some(Command::Policy { json, workspace }) => {
            let effective = project_settings(cli, workspace.as_deref())?;
            let around = || project_around(&effective.config);
            let named = workspace.clone().or_else(around);
            let folder = folder(named.as_deref())?;
            policy::run(&effective.config, &folder, *json, &mut stdout)?;
            Ok(0)
        }
        Some(Command::Config { json, workspace }) => {
            let effective = project_settings(cli, workspace.as_deref())?;
            config::run(&effective, *json, &mut stdout)?;
            Ok(0)
        }
        Some(Command::Sessions(args)) => {
            sessions::run(args, || Ok(effective()?.config.history), &mut stdout)
        }
        Some(Command::Runs(args)) => runs::run(args, runs_settings, &mut stdout),
        Some(Command::Diff(args)) => {
            runs::outcome(&runs::Outcome::Diff(args), runs_settings, &mut stdout)
        }
        Some(Command::Apply(args)) => {
            runs::outcome(&runs::Outcome::Apply(args), runs_settings, &mut stdout)
        }
        Some(Command::Undo(args)) => {
            runs::outcome(&runs::Outcome::Undo(args), runs_settings, &mut stdout)
        }
        Some(Command::Discard(args)) => {
            runs::outcome(&runs::Outcome::Discard(args), runs_settings, &mut stdout)
        }
        Some(Command::Egress(command)) => egress::run(&load_options(cli), command, &mut stdout),
        Some(Command::Init { workspace }) => {
            init::run(workspace.as_deref(), &mut stdout)?;
            Ok(0)
        }
        Some(Command::Token { rotate }) => token::run(*rotate, &mut stdout),
        Some(Command::Install(args)) => install::run(&effective()?.config, args, &mut stdout),
        Some(Command::Own) => unreachable!("dispatched before"),
        Some(Command::Trust(args)) => trust::run(&load_options(cli), args, &mut stdout),
    }
}

fn settings(cli: &Cli) -> anyhow::Result<Effective> {
    load(&load_options(cli)).map_err(|error| anyhow::Error::new(Usage(error.to_string())))
}

/// The folder of the project around the current folder; none without a project's file. What is wrong
/// with a file there, the run says.
fn project_around(config: &Config) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let project = Project::find(&here, &config.workspace.roots).ok()??;
    Some(project.folder().to_owned())
}

/// The folder that a person names, else the current one.
fn folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = named.unwrap_or(Path::new("."));
    folder.canonicalize().with_context(|| format!("failed to find the folder {}", folder.display()))
}

/// The settings that a run in this folder would have.
fn project_settings(cli: &Cli, workspace: Option<&Path>) -> anyhow::Result<Effective> {
    let workspace = folder(workspace)?;
    let trust = Trust::new(&state_dir()?);
    let found = load_at(&load_options(cli), &workspace, &trust)
        .map_err(|error| anyhow::Error::new(Usage(error.to_string())))?;
    let Some(effective) = found else { return settings(cli) };
    if let Some(remark) = &effective.remark {
        complain(remark);
    }
    Ok(effective)
}

fn load_options(cli: &Cli) -> LoadOptions {
    let mut overrides = Vec::new();
    if let Some(Command::Run(RunArgs { model, .. }) | Command::Doctor { model, .. }) = &cli.command
    {
        let given = [("model.url", &model.model_url), ("model.model", &model.model)];
        overrides.extend(
            given.into_iter().filter_map(|(key, value)| Override::of_key(key, value.as_ref()?)),
        );
    }
    LoadOptions { file: cli.config.clone(), overrides, ..LoadOptions::default() }
}

/// Two threads serve any number of sandboxes: all that happens here is waiting.
fn block_on<F: Future>(future: F) -> F::Output {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => {
            let output = runtime.block_on(future);
            // Dropped, it would wait for a thread that blocks on standard input or on a name
            // that no resolver answers for.
            runtime.shutdown_background();
            output
        }
        Err(error) => {
            complain(&format!("error: no threads to work with: {error}"));
            std::process::exit(1)
        }
    }
}

/// Logs go to standard error; `RUST_LOG` decides where it is set.
fn logging<W>(verbose: u8, quiet: bool, writer: W)
where
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn,rmcp=off",
        (_, 1) => "sandbox_mcp=info,warn,rmcp=off",
        _ => "sandbox_mcp=trace,debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Says something to the person at the terminal. A closed standard error is nobody's loss.
fn complain(text: &str) {
    stderr::write(format!("{text}\n").as_bytes());
}
