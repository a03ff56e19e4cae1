//! Runs that belong to the machine and not to whoever asked: each has a process of its own.
//!
//! ```text
//!  client (the MCP server)                          owner (`sandbox-mcp own`, a new session)
//!    Order, then Words ──────── standard input ───▶   starts the one run in itself
//!    Frames  ◀───────────────── standard output ──    begun, events, log lines, report
//! ```
//!
//! Standard input is also the lifeline: at its end the client is gone, however it went, and the
//! owner cancels the run and cleans up, unless it was told to `keep` it. An output that nobody
//! reads any more hurts nothing. The owner inherits none of the client's streams, so nobody who
//! waits for their end waits for a run.

mod client;
mod log;
mod process;
mod stop;

pub(super) use client::{Ends, start};
pub use log::OwnerLog;
pub use process::own;
pub use stop::{Stopped, stop};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use super::{Event, Report, Task};
use crate::config::{Config, LoadOptions, Override};
use crate::engine::Facts;
use crate::ids::RunId;

/// What the owner is to do, in one line of JSON. Both ends are the same program: the owner is
/// started from the client's own file, even where that has been replaced since.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: RunId,
    task: Task,
    /// As it was when the client was started, and what it was loaded with: a project's own
    /// settings go between them.
    config: Config,
    file: Option<PathBuf>,
    /// Key and value of each.
    overrides: Vec<(String, String)>,
    /// What the client knows of the engine, if it has met it.
    facts: Option<Facts>,
}

impl Order {
    fn new(id: RunId, task: Task, shared: &Shared) -> Self {
        let LoadOptions { file, overrides, environment: _ } = &shared.options;
        let overrides = overrides.iter().map(|given| (given.key.to_owned(), given.value.clone()));
        let mut config = (*shared.config).clone();
        config.workspace.roots = shared.roots();
        Self {
            id,
            task,
            config,
            file: file.clone(),
            overrides: overrides.collect(),
            facts: shared.host.known().map(|(_, facts)| facts.clone()),
        }
    }

    /// The environment is the owner's own, which it has from the client.
    fn options(&self) -> Result<LoadOptions, String> {
        let known = |(key, value): &(String, String)| {
            Override::of_key(key, value).ok_or_else(|| format!("no flag gives `{key}`"))
        };
        let overrides = self.overrides.iter().map(known).collect::<Result<_, _>>()?;
        Ok(LoadOptions { file: self.file.clone(), overrides, ..LoadOptions::default() })
    }
}

/// What the client may say, a line each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Somebody has taken the run back.
    Cancel,
    /// Whoever asked the client for the run has left, and does not want it.
    Left,
    /// The client ends, and takes the run along.
    Shutdown,
    /// The run is to outlive the client.
    Keep,
}

/// What the owner says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Frame {
    /// The run goes on; whether there is a record of it.
    Begun {
        recorded: bool,
    },
    Event(Event),
    /// A line for the log.
    Log(String),
    /// There is no run, and why.
    Refused(String),
    Report(Box<Report>),
}

/// A value as one line.
fn line(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_says_all_that_the_run_needs() {
        let mut config = Config::default();
        config.workspace.roots = vec!["/somewhere/else".into()];
        config.limits.cpus = 1.5;
        config.env.set = [("A".to_owned(), "b\nc".to_owned())].into();
        let options = LoadOptions {
            file: Some("relative.toml".into()),
            overrides: vec![
                Override::new("--model-url", "model.url", "http://127.0.0.1:1/v1"),
                Override::new("--model", "model.model", "m"),
            ],
            ..LoadOptions::default()
        };
        let mut task = Task::new("do\nit\u{2028}");
        task.timeout = Some(std::time::Duration::from_millis(1500));
        task.mode = crate::workspace::Mode::ReadOnly;
        let order = Order {
            id: RunId::new(),
            task,
            config: config.clone(),
            file: options.file.clone(),
            overrides: options.overrides.iter().map(|o| (o.key.into(), o.value.clone())).collect(),
            facts: None,
        };
        let sent = line(&order).expect("JSON");
        assert_eq!(sent.iter().position(|byte| *byte == b'\n'), Some(sent.len() - 1));
        let read: Order = serde_json::from_slice(&sent).expect("an order");
        assert_eq!((read.id.clone(), read.config.clone()), (order.id, config));
        assert_eq!(read.task.text, "do\nit\u{2028}");
        assert_eq!((read.task.timeout, read.task.mode), (order.task.timeout, order.task.mode));
        let got = read.options().expect("known flags");
        assert_eq!(got.file, options.file);
        for (got, given) in got.overrides.iter().zip(&options.overrides) {
            assert_eq!((got.flag, got.key, &got.value), (given.flag, given.key, &given.value));
        }
        let odd = Order { overrides: vec![("limits.pids".into(), "9".into())], ..read };
        assert!(odd.options().is_err());
    }
}
