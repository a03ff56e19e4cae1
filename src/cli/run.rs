//! `sandbox-mcp run`: one task, watched by a person or a script.

use std::io::{IsTerminal, Read, Write};
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use super::view::View;
use super::{RunArgs, Usage, complain};
use crate::config::{Config, LoadOptions};
use crate::runner::{CancelReason, Report, Run, Runner, Status, Task, TaskError};

/// How long clean-up may take after the last run has ended.
const CLEAN_UP: Duration = Duration::from_secs(10);

pub fn run(
    mut config: Config,
    options: LoadOptions,
    args: &RunArgs,
    quiet: bool,
) -> anyhow::Result<u8> {
    // A person who names a folder means it, and one who stands in a project means all of it; what no
    // agent gets is refused all the same.
    let workspace = args.workspace.clone().or_else(|| super::project_around(&config));
    config.workspace.roots.extend(workspace.as_ref().and_then(|dir| dir.canonicalize().ok()));
    let task = Task {
        text: task_text(args.task.as_deref(), config.limits.task.bytes())?,
        workspace,
        mode: args.mode,
        timeout: args.timeout.map(Duration::from_secs),
        model: None, // already in the configuration, with its origin
        command: args.command.clone(),
        verify: args.verify.clone(),
        session: args.session.clone(),
        session_fork: args.fork,
    };
    super::block_on(async {
        let runner = Runner::new(config, options)?;
        if args.background {
            return leave(runner.detached(), task, args.json).await;
        }
        let run = runner.start(task).map_err(|error| Usage(error.to_string()))?;
        let report = watch(run, args, quiet).await?;
        runner.shutdown(CLEAN_UP).await;
        show(&report, args)?;
        if !(quiet || args.json || args.events) {
            super::pending::ask(&runner, &report)?;
        }
        Ok(exit_code(&report))
    })
}

/// Starts the run in a process of its own, and leaves when it goes on for certain.
async fn leave(runner: Runner, task: Task, json: bool) -> anyhow::Result<u8> {
    let refused = |error: TaskError| Usage(error.to_string());
    let mut run = runner.start(task).map_err(refused)?;
    if !run.begun().await.map_err(refused)? {
        drop(run);
        runner.shutdown(CLEAN_UP).await;
        anyhow::bail!("the run could leave no record, so its result would be lost");
    }
    run.keep().await;
    let mut stdout = std::io::stdout().lock();
    if json {
        writeln!(stdout, "{}", serde_json::json!({ "run_id": run.id() }))?;
    } else {
        writeln!(stdout, "{}", run.id())?;
    }
    Ok(0)
}

/// The task from the argument, or from standard input where the argument says or lacks.
fn task_text(argument: Option<&str>, allowed: u64) -> anyhow::Result<String> {
    match argument {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if std::io::stdin().is_terminal() => {
            Err(Usage("say what the agent is to do: sandbox-mcp run \"task\"".into()).into())
        }
        _ => {
            let mut text = Vec::new();
            // One byte more than allowed, so that the task's own check can say by how much.
            std::io::stdin()
                .lock()
                .take(allowed.saturating_add(1))
                .read_to_end(&mut text)
                .context("failed to read the task from standard input")?;
            String::from_utf8(text).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                Usage(format!("the task on standard input is not UTF-8 (byte {at})")).into()
            })
        }
    }
}

/// Shows the run until it is over. Interrupting it once cancels it; again says what is awaited.
async fn watch(mut run: Run, args: &RunArgs, quiet: bool) -> anyhow::Result<Report> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("failed to listen for SIGHUP")?;
    let mut view = View::new(quiet);
    let canceller = run.canceller();
    let mut asked = false;
    loop {
        let by_person = tokio::select! {
            event = run.next_event() => {
                let Some(event) = event else { break };
                if args.events {
                    print_line(&event)?;
                }
                view.event(&event);
                continue;
            }
            () = view.tick() => continue,
            _ = interrupt.recv() => true,
            _ = terminate.recv() => false,
            _ = hang_up.recv() => false,
        };
        if std::mem::replace(&mut asked, true) && by_person {
            view.say(&format!(
                "still {}; the sandbox ends by itself even if this program is killed",
                view.doing()
            ));
        } else {
            view.say("cancelling; waiting for the sandbox to be removed");
            canceller.cancel(CancelReason::Asked);
        }
    }
    let report = run.report().await;
    view.finish(&report);
    Ok(report)
}

fn show(report: &Report, args: &RunArgs) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if args.events {
        drop(stdout);
        return print_line(&serde_json::json!({ "report": report }));
    }
    if args.json {
        serde_json::to_writer_pretty(&mut stdout, report)?;
        writeln!(stdout)?;
    } else if !report.answer.is_empty() {
        // The answer was cleaned of escapes when it was read; nothing raw reaches a terminal.
        writeln!(stdout, "{}", report.answer)?;
    }
    if let (false, Some(error)) = (args.json, &report.error) {
        let hint =
            error.hint.as_deref().map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        complain(&format!("{}: {}{hint}", report.status.label(), error.message));
    }
    Ok(())
}

/// One JSON line, out at once: a reader on a pipe is to see it when it happens.
fn print_line(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let line = serde_json::to_string(value)?;
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// What does not stand its own check is no success for a script.
fn exit_code(report: &Report) -> u8 {
    match report.status {
        Status::Completed => u8::from(report.verify.as_ref().is_some_and(|verify| !verify.passed)),
        Status::TimedOut => 124,
        Status::Cancelled => 130,
        _ => 1,
    }
}
