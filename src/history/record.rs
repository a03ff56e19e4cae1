//! The record of a run that goes on: the only place that writes one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{EGRESS, EVENTS, Error, LOG, OWNER, OWNER_LOG, REPORT, TASK, folder_of};
use crate::files::{Durability, write_json};
use crate::ids::{Owner, RunId};

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
    /// Begins the record of `run` below `state`, in this process's name.
    pub fn create(state: &Path, run: &RunId) -> Result<Self, Error> {
        let folder = folder_of(state, run);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(Error::of(&folder))?;
        // Before anything else: without it nobody can tell a run that died from one that goes on.
        let owner = folder.join(OWNER);
        Owner::current()
            .and_then(|me| writeln!(private_file(&owner)?, "{me}"))
            .map_err(Error::of(owner))?;
        let open = |name: &str| {
            let path = folder.join(name);
            private_file(&path).map(BufWriter::new).map_err(Error::of(path))
        };
        Ok(Self { events: open(EVENTS)?, log: open(LOG)?, egress: None, folder, failed: false })
    }

    /// Path of the file with every event.
    pub fn transcript(&self) -> PathBuf {
        self.folder.join(EVENTS)
    }

    /// Says what the run is about.
    pub fn task(&mut self, task: &impl Serialize) {
        let written = write_whole(&self.folder, TASK, task);
        self.note(written, TASK);
    }

    /// Adds an event and hands it to the operating system at once.
    pub fn event(&mut self, event: &impl Serialize) {
        let written = serde_json::to_writer(&mut self.events, event)
            .map_err(std::io::Error::from)
            .and_then(|()| self.events.write_all(b"\n"))
            .and_then(|()| self.events.flush());
        self.note(written, EVENTS);
    }

    /// Adds a line that the agent printed beside its events.
    pub fn log(&mut self, line: &str) {
        let written = self.log.write_all(line.as_bytes()).and_then(|()| self.log.write_all(b"\n"));
        self.note(written, LOG);
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
        self.log.flush().map_err(Error::of(self.folder.join(LOG)))?;
        write_whole(&self.folder, REPORT, report).map_err(Error::of(self.folder.join(REPORT)))
    }

    fn note(&mut self, written: std::io::Result<()>, name: &str) {
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::warn!("{} is no longer written: {error}", self.folder.join(name).display());
        }
    }
}

/// Writes the closing report of a run whose record was lost on the way, if it had begun one.
pub fn close(state: &Path, run: &RunId, report: &impl Serialize) -> Result<(), Error> {
    let folder = folder_of(state, run);
    if !folder.exists() {
        return Ok(());
    }
    write_whole(&folder, REPORT, report).map_err(Error::of(folder.join(REPORT)))
}

/// Where the process of a run may keep its own log.
pub fn owner_log(state: &Path, run: &RunId) -> PathBuf {
    folder_of(state, run).join(OWNER_LOG)
}

fn write_whole(folder: &Path, name: &str, value: &impl Serialize) -> std::io::Result<()> {
    write_json(&folder.join(name), value, Durability::Lazy)
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
    fn nobody_else_reads_a_record() {
        use std::os::unix::fs::MetadataExt;
        let state = tempfile::tempdir().expect("temp dir");
        let mut record = Record::create(state.path(), &RunId::new()).expect("record");
        let folder = record.folder.clone();
        record.task(&1);
        record.egress(&1);
        record.finish(&1).expect("finished");
        assert_eq!(folder.metadata().expect("there").mode() & 0o777, 0o700);
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).expect("folder").flatten() {
            assert_eq!(entry.metadata().expect("there").mode() & 0o777, 0o600, "{entry:?}");
            names.push(entry.file_name().into_string().expect("a name"));
        }
        names.sort_unstable();
        assert_eq!(names, [LOG, EGRESS, EVENTS, OWNER, REPORT, TASK]);
    }
}
