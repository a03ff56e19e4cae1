//! `sandbox-mcp runs`: what is on record, one file per command.

pub mod apply;
mod cancel;
mod diff;
mod discard;
mod events;
mod follow;
mod gc;
mod list;
mod log;
mod rm;
mod show;
mod undo;

use std::io::{BufRead, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::Usage;
use crate::config::{Config, LoadOptions, state_dir};
use crate::history::{self, Entry, State};
use crate::runner::{Glance, Runner, changes_of};
use crate::text::clean;
use crate::workspace::changeset::reversed;

pub use apply::ApplyArgs;
pub use diff::DiffArgs;

pub const RUN: &str = "`RUN` is an id, the beginning of one that no other run has, or `last`.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = RUN)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    #[command(flatten)]
    list: list::ListArgs,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// List the newest runs (what happens without a command)
    List(list::ListArgs),
    /// Show the closing report of a run
    #[command(after_help = RUN)]
    Show(One),
    /// Show the events of a run as they happen, until it is over; the exit code is then the run's
    #[command(after_help = RUN)]
    Follow(One),
    /// End a run and wait until its container is gone
    #[command(after_help = RUN)]
    Cancel(One),
    /// Show the events of a run so far
    #[command(after_help = RUN)]
    Events(One),
    /// Show what the agent printed beside its events
    #[command(after_help = RUN)]
    Log(One),
    /// Show what a run in a view of its own would change; in a pipe, a patch for `git apply`
    #[command(after_help = RUN)]
    Diff(DiffArgs),
    /// Carry the changes of a run over into its workspace, all or none
    #[command(after_help = RUN)]
    Apply(ApplyArgs),
    /// Put back what applying a run's changes has replaced, all or nothing
    #[command(after_help = RUN)]
    Undo(One),
    /// Let the changes of a run go
    #[command(after_help = RUN)]
    Discard(One),
    /// Remove the records of runs
    #[command(after_help = RUN)]
    Rm(rm::RmArgs),
    /// Remove old records by `history.keep`, `history.max_age_days` and `history.max_bytes`
    Gc {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct One {
    run: String,
    /// Print JSON; of events and logs a line each
    #[arg(long)]
    json: bool,
}

/// What the configuration says, and how it was loaded.
#[derive(Debug)]
pub struct Settings {
    pub config: Config,
    pub options: LoadOptions,
}

impl Settings {
    /// A runner that may work in a run's workspace: a person who names a run means its folder.
    fn runner_for(mut self, entry: &Entry) -> anyhow::Result<Runner> {
        let applied = || reversed(&entry.before()).ok().flatten().map(|(manifest, _)| manifest);
        let ended = || changes_of(entry).ok().or_else(applied).map(|manifest| manifest.workspace);
        let asked = || Some(PathBuf::from(Glance::at(entry).workspace));
        let workspace = if entry.state() == State::Running { asked() } else { ended() };
        self.config.workspace.roots.extend(workspace);
        Ok(Runner::new(self.config, self.options)?)
    }
}

/// The commands that are there without `runs`, too.
#[derive(Debug)]
pub enum Outcome<'a> {
    Diff(&'a DiffArgs),
    Apply(&'a ApplyArgs),
    Discard(&'a One),
    Undo(&'a One),
}

pub fn outcome(
    command: &Outcome<'_>,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let state = state_dir().map_err(|error| Usage(error.to_string()))?;
    let entry = |word: &str| find(&state, word);
    let done = match command {
        Outcome::Diff(args) => diff::run(&entry(args.word())?, args, out),
        Outcome::Apply(args) => apply::run(&entry(args.word())?, args, settings()?, out),
        Outcome::Undo(args) => undo::run(&entry(&args.run)?, args, settings()?, out),
        Outcome::Discard(args) => discard::run(&entry(&args.run)?, args, settings()?, out),
    };
    ended(done, out)
}

/// `settings` are asked for only where they matter: a record can be read whatever is configured.
pub fn run(
    args: &RunsArgs,
    settings: impl FnOnce() -> anyhow::Result<Settings>,
    out: &mut impl Write,
) -> anyhow::Result<u8> {
    let state = state_dir().map_err(|error| Usage(error.to_string()))?;
    let done = match &args.command {
        None => list::run(&state, &args.list, out),
        Some(RunsCommand::List(list)) => list::run(&state, list, out),
        Some(RunsCommand::Show(one)) => show::run(&find(&state, &one.run)?, one.json, out),
        Some(RunsCommand::Follow(one)) => follow::run(&find(&state, &one.run)?, one.json, out),
        Some(RunsCommand::Cancel(one)) => cancel::run(&find(&state, &one.run)?, one.json, out),
        Some(RunsCommand::Events(one)) => events::run(&find(&state, &one.run)?, one.json, out),
        Some(RunsCommand::Log(one)) => log::run(&find(&state, &one.run)?, one.json, out),
        Some(RunsCommand::Diff(args)) => return outcome(&Outcome::Diff(args), settings, out),
        Some(RunsCommand::Apply(args)) => return outcome(&Outcome::Apply(args), settings, out),
        Some(RunsCommand::Undo(args)) => return outcome(&Outcome::Undo(args), settings, out),
        Some(RunsCommand::Discard(args)) => return outcome(&Outcome::Discard(args), settings, out),
        Some(RunsCommand::Rm(args)) => rm::run(&state, args, out),
        Some(RunsCommand::Gc { json }) => gc::run(&state, &settings()?.config.history, *json, out),
    };
    ended(done, out)
}

fn ended(done: anyhow::Result<u8>, out: &mut impl Write) -> anyhow::Result<u8> {
    let done = done.and_then(|code| out.flush().map(|()| code).map_err(Into::into));
    match done {
        // Who stopped reading, as `head` does, has what they wanted.
        Err(error) if is_broken_pipe(&error) => Ok(0),
        done => done,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The run that a person means. That there is none such is bad usage, and says what there is.
pub fn find(state: &Path, word: &str) -> anyhow::Result<Entry> {
    let id = history::find(state, word).map_err(|error| Usage(error.to_string()))?;
    Entry::of(state, &id).with_context(|| format!("run {id} was removed just now"))
}

/// JSON for a program, pretty for who looks; clean, as a terminal may show it.
fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    writeln!(out, "{}", clean(&serde_json::to_string_pretty(value)?))?;
    Ok(())
}

/// Longest piece of a file that is shown at once.
const PIECE: u64 = 1 << 20;

/// Gives each line of a file to `see`, very long ones in pieces.
fn each_line(
    mut file: impl BufRead,
    mut see: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.by_ref().take(PIECE).read_until(b'\n', &mut line);
        if read.context("failed to read the run's record")? == 0 {
            return Ok(());
        }
        line.pop_if(|byte| *byte == b'\n');
        see(&String::from_utf8_lossy(&line))?;
    }
}
