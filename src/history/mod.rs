//! Runs on disk, written as they happen: `runs/<id>/{events.jsonl, agent.log, egress.jsonl, run.json}` below the
//! state folder.
//!
//! This room knows files and records. It must never know what a record means.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::ids::RunId;

/// The audit log of what a sandbox tried to reach.
const EGRESS: &str = "egress.jsonl";

/// Why something of a run is not on disk.
#[derive(Debug, thiserror::Error)]
#[error("failed to keep or read {}: {source}", path.display())]
pub struct Error {
    path: PathBuf,
    source: std::io::Error,
}

/// The record of one run. A failed write is told once and does not stop the run: the record is
/// evidence, not the work.
#[derive(Debug)]
pub struct Record {
    folder: PathBuf,
    events: BufWriter<File>,
    log: BufWriter<File>,
    /// Made when there is something to write.
    egress: Option<BufWriter<File>>,
    failed: bool,
}

impl Record {
    /// Begins the record of `run` below `state`.
    pub fn create(state: &Path, run: &RunId) -> Result<Self, Error> {
        let folder = state.join("runs").join(run.as_str());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| Error { path: folder.clone(), source })?;
        let open = |name: &str| {
            let path = folder.join(name);
            private_file(&path).map(BufWriter::new).map_err(|source| Error { path, source })
        };
        Ok(Self {
            events: open("events.jsonl")?,
            log: open("agent.log")?,
            egress: None,
            folder,
            failed: false,
        })
    }

    /// Path of the file with every event.
    pub fn transcript(&self) -> PathBuf {
        self.folder.join("events.jsonl")
    }

    /// Adds an event and hands it to the operating system at once.
    pub fn event(&mut self, event: &impl Serialize) {
        let written = serde_json::to_writer(&mut self.events, event)
            .map_err(std::io::Error::from)
            .and_then(|()| self.events.write_all(b"\n"))
            .and_then(|()| self.events.flush());
        self.note(written, "events.jsonl");
    }

    /// Adds a line that the agent printed beside its events.
    pub fn log(&mut self, line: &str) {
        let written = self.log.write_all(line.as_bytes()).and_then(|()| self.log.write_all(b"\n"));
        self.note(written, "agent.log");
    }

    /// Adds an attempt to reach something, at once as well.
    pub fn egress(&mut self, attempt: &impl Serialize) {
        let mut file = match self.egress.take() {
            Some(file) => file,
            None => match private_file(&self.folder.join(EGRESS)) {
                Ok(file) => BufWriter::new(file),
                Err(error) => return self.note(Err(error), EGRESS),
            },
        };
        let written = serde_json::to_writer(&mut file, attempt)
            .map_err(std::io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            .and_then(|()| file.flush());
        self.egress = Some(file);
        self.note(written, EGRESS);
    }

    /// Writes the closing report, whole or not at all.
    pub fn finish(mut self, report: &impl Serialize) -> Result<(), Error> {
        let path = self.folder.join("run.json");
        let partial = self.folder.join("run.json.partial");
        let written = self
            .log
            .flush()
            .and_then(|()| private_file(&partial))
            .and_then(|mut file| {
                serde_json::to_writer_pretty(&mut file, report)?;
                file.write_all(b"\n")
            })
            .and_then(|()| fs::rename(&partial, &path));
        written.map_err(|source| Error { path, source })
    }

    fn note(&mut self, written: std::io::Result<()>, name: &str) {
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!("{} is no longer written: {error}", self.folder.join(name).display());
        }
    }
}

/// A folder in a run's record for what was taken out of the workspace. Made by who writes there.
pub fn swept(state: &Path, run: &RunId) -> PathBuf {
    state.join("runs").join(run.as_str()).join("swept")
}

/// The lines of one run's audit log, the oldest first; none where nothing was tried.
pub fn egress(state: &Path, run: &RunId) -> Result<Vec<String>, Error> {
    let path = state.join("runs").join(run.as_str()).join(EGRESS);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(Error { path, source }),
    }
}

/// The runs on record, the newest first.
pub fn runs(state: &Path) -> Vec<RunId> {
    let entries = fs::read_dir(state.join("runs")).into_iter().flatten();
    let mut runs: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
        .collect();
    runs.sort_by(|a: &RunId, b| b.as_str().cmp(a.as_str()));
    runs
}

/// Removes the oldest records beyond `keep`. Ids sort by time.
pub fn prune(state: &Path, keep: usize) -> Result<usize, Error> {
    let folder = state.join("runs");
    let failed = |source| Error { path: folder.clone(), source };
    let mut names: Vec<_> = fs::read_dir(&folder)
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.parse::<RunId>().is_ok())
        .collect();
    names.sort_unstable();
    let surplus = names.len().saturating_sub(keep);
    for name in &names[..surplus] {
        let path = folder.join(name);
        // A run that is going on has no report yet and is not old, however full the folder is.
        if path.join("run.json").exists() {
            fs::remove_dir_all(&path).map_err(|source| Error { path, source })?;
        }
    }
    Ok(surplus)
}

fn private_file(path: &Path) -> std::io::Result<File> {
    File::options().create(true).write(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_readable_while_the_run_goes_on() {
        let state = tempfile::tempdir().expect("temp dir");
        let mut record = Record::create(state.path(), &RunId::new()).expect("record");
        record.event(&serde_json::json!({"seq": 1}));
        let seen = fs::read_to_string(record.transcript()).expect("readable");
        assert_eq!(seen, "{\"seq\":1}\n");
        let folder = record.folder.clone();
        record.log("a line");
        record.finish(&serde_json::json!({"status": "completed"})).expect("finished");
        assert!(fs::read_to_string(folder.join("run.json")).expect("report").contains("completed"));
        assert_eq!(fs::read_to_string(folder.join("agent.log")).expect("log"), "a line\n");
    }

    #[test]
    fn the_oldest_go_first_and_unfinished_ones_stay() {
        let state = tempfile::tempdir().expect("temp dir");
        let ids = ["20260101-000000-aaaa", "20260102-000000-aaaa", "20260103-000000-aaaa"];
        for (at, id) in ids.iter().enumerate() {
            let record = Record::create(state.path(), &id.parse().expect("id")).expect("record");
            if at != 0 {
                record.finish(&()).expect("finished");
            }
        }
        prune(state.path(), 1).expect("pruned");
        let left = ids.map(|id| state.path().join("runs").join(id).exists());
        assert_eq!(left, [true, false, true]);
    }
}
