//! The live view of a run on standard error: a spinner and one line per step on a terminal, plain
//! lines elsewhere, nothing when quiet.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::complain;
use crate::runner::{Event, EventKind, Phase, Report, Status};
use crate::text::one_line;

/// Longest line that is shown of one event.
const WIDTH: usize = 160;

#[derive(Debug)]
pub struct View {
    quiet: bool,
    spinner: Option<ProgressBar>,
    doing: String,
    since: Instant,
}

impl View {
    pub fn new(quiet: bool) -> Self {
        let spinner = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Self { quiet, spinner, doing: "starting".into(), since: Instant::now() }
    }

    /// Shows an event.
    pub fn event(&mut self, event: &Event) {
        match &event.event {
            EventKind::Queued { ahead: 0 } => self.now("waiting for a place, next in line"),
            EventKind::Queued { ahead } => {
                self.now(&format!("waiting for a place behind {ahead} runs"));
            }
            EventKind::Phase { phase } => {
                self.now(phase.label());
                if self.spinner.is_none() && *phase == Phase::Working {
                    self.line("working");
                }
            }
            EventKind::Notice { message } => self.line(message),
            EventKind::Step { .. } | EventKind::ModelAnswer { .. } => self.now("thinking"),
            EventKind::ToolStarted { name, title } => self.now(&join(name, title)),
            EventKind::ToolFinished { name, title, ok, exit } => {
                let mark = if *ok && exit.is_none_or(|exit| exit == 0) { "✓" } else { "✗" };
                let exit = exit.filter(|exit| *exit != 0);
                let exit = exit.map(|exit| format!(" (exit {exit})")).unwrap_or_default();
                self.line(&format!("{mark} {}{exit}", join(name, title)));
                self.now("thinking");
            }
            EventKind::Text { text } => self.line(&format!("» {text}")),
            EventKind::Egress { refused: None, host, port } => self.now(&format!("{host}:{port}")),
            EventKind::Egress { refused: Some(why), host, port } => {
                self.line(&format!("! {host}:{port} is not reached ({why})"));
            }
            EventKind::Trouble { message } => self.line(&format!("! {message}")),
        }
    }

    /// Keeps the spinner alive; never returns where there is none.
    pub async fn tick(&self) {
        let Some(spinner) = &self.spinner else { return std::future::pending().await };
        tokio::time::sleep(Duration::from_millis(120)).await;
        let seconds = self.since.elapsed().as_secs();
        let clock = if seconds >= 3 { format!(" ({seconds} s)") } else { String::new() };
        spinner.set_message(format!("{}{clock}", self.doing));
        spinner.tick();
    }

    /// What is being done at the moment.
    pub fn doing(&self) -> &str {
        &self.doing
    }

    /// Says something of our own.
    pub fn say(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.println(text),
            None => complain(text),
        }
    }

    /// The closing line.
    pub fn finish(&self, report: &Report) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        if self.quiet {
            return;
        }
        let changes = match (report.changes.files.len(), report.changes.truncated) {
            (0, false) => "no changes".to_owned(),
            (1, false) => "1 file changed".to_owned(),
            (count, more) => format!("{count}{} files changed", if more { "+" } else { "" }),
        };
        let waits = match (report.changes.applied, &report.changes.pending) {
            (Some(false), Some(pending)) => format!(", {} of them wait", pending.count),
            (Some(false), None) => ", not applied".to_owned(),
            _ => String::new(),
        };
        let usage = report.usage;
        let verify = match &report.verify {
            None => "",
            Some(verify) if verify.passed => " · verified",
            Some(_) => " · NOT verified",
        };
        let good = report.status == Status::Completed
            && report.verify.as_ref().is_none_or(|verify| verify.passed);
        let mark = if good { "✓" } else { "✗" };
        #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let seconds = report.timing.total_ms as f64 / 1000.0;
        complain(&format!(
            "{mark} {} in {seconds:.1} s · {} requests, {} + {} tokens · {changes}{waits}{verify} · {}",
            report.status.label(),
            usage.requests,
            usage.input_tokens,
            usage.output_tokens,
            report.run_id
        ));
    }

    fn now(&mut self, doing: &str) {
        self.doing = one_line(doing, WIDTH);
        self.since = Instant::now();
    }

    fn line(&self, text: &str) {
        if !self.quiet {
            self.say(&format!("  {}", one_line(text, WIDTH)));
        }
    }
}

fn join(name: &str, title: &str) -> String {
    if title.is_empty() { name.to_owned() } else { format!("{name}: {title}") }
}
