//! One run on record, to be read.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{
    APPLIED, ASK, BEFORE, BLOBS, CHANGES, COMMITS, EGRESS, EVENTS, Error, LIVE, LOG, LOOK, OWNER,
    PATCH, REPORT, TASK, folder_of,
};
use crate::ids::{Owner, RunId};

/// How long a run counts as going on when its record does not say whose it is, as those of
/// version 0.1.0: longer than any run may take (`limits.max_timeout`).
const NOBODYS: Duration = Duration::from_secs(8 * 86_400);

/// Whether a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    /// There is a closing report.
    Ended,
    /// There is none, and the process that could write it is gone.
    Died,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Ended => "ended",
            Self::Died => "died",
        }
    }
}

/// A file of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Events,
    Log,
    Egress,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Events => EVENTS,
            Self::Log => LOG,
            Self::Egress => EGRESS,
        }
    }
}

/// One run on record.
#[derive(Clone, Debug)]
pub struct Entry {
    id: RunId,
    folder: PathBuf,
}

impl Entry {
    /// The record of `run`, if there is one.
    pub fn of(state: &Path, run: &RunId) -> Option<Self> {
        let folder = folder_of(state, run);
        folder.is_dir().then(|| Self { id: run.clone(), folder })
    }

    pub fn id(&self) -> &RunId {
        &self.id
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the list of changes is, whether it has been written or not.
    pub fn changes(&self) -> PathBuf {
        self.folder.join(CHANGES)
    }

    /// Where the patch is, likewise.
    pub fn patch(&self) -> PathBuf {
        self.folder.join(PATCH)
    }

    /// Where the new contents are, likewise.
    pub fn blobs(&self) -> PathBuf {
        self.folder.join(BLOBS)
    }

    /// Where it is written what became of the changes, likewise.
    pub fn applied(&self) -> PathBuf {
        self.folder.join(APPLIED)
    }

    /// The folder of what applying the changes replaced, likewise.
    pub fn before(&self) -> PathBuf {
        self.folder.join(BEFORE)
    }

    /// The list of what was applied while the run went on, likewise.
    pub fn live(&self) -> PathBuf {
        self.folder.join(LIVE)
    }

    /// The file with the path of the socket on which the run is asked while it goes on, likewise.
    pub fn ask(&self) -> PathBuf {
        self.folder.join(ASK)
    }

    /// The folder of the last look at the run while it went on, likewise.
    pub fn look(&self) -> PathBuf {
        self.folder.join(LOOK)
    }

    /// The list of what came back to the user's repositories, likewise.
    pub fn commits(&self) -> PathBuf {
        self.folder.join(COMMITS)
    }

    /// Commits for a repository of the user's that no git took; the first one is 1.
    pub fn bundle(&self, number: usize) -> PathBuf {
        self.folder.join(format!("commits-{number}.bundle"))
    }

    /// When it began and when it was last written to, as far as the file system tells.
    pub fn times(&self) -> (SystemTime, SystemTime) {
        let of = |name: &str| self.folder.join(name).metadata().and_then(|found| found.modified());
        let began = of(OWNER).unwrap_or(SystemTime::UNIX_EPOCH);
        let changed = of(REPORT).or_else(|_| of(EVENTS)).unwrap_or(began);
        (began, changed)
    }

    /// The process that writes here; none where the record does not say.
    pub fn owner(&self) -> Option<Owner> {
        let owner = fs::read_to_string(self.folder.join(OWNER)).ok()?;
        owner.trim().parse().ok()
    }

    pub fn state(&self) -> State {
        let ended = || self.folder.join(REPORT).exists();
        if ended() {
            return State::Ended;
        }
        let alive = match self.owner() {
            Some(owner) => owner.is_alive(),
            None => self.id.age().is_some_and(|age| age < NOBODYS),
        };
        if alive {
            State::Running
        } else if ended() {
            // It wrote its report and ended while we looked.
            State::Ended
        } else {
            State::Died
        }
    }

    /// The closing report, whichever version wrote it; none while there is none.
    pub fn report(&self) -> Result<Option<Value>, Error> {
        self.json(REPORT)
    }

    /// What was asked; none in the records of version 0.1.0.
    pub fn task(&self) -> Result<Option<Value>, Error> {
        self.json(TASK)
    }

    /// A file to read from its beginning; none where nothing was written.
    pub fn open(&self, part: Part) -> Result<Option<BufReader<File>>, Error> {
        let path = self.folder.join(part.name());
        match File::open(&path) {
            Ok(file) => Ok(Some(BufReader::new(file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::of(path)(error)),
        }
    }

    /// What to say when reading on in a file of this record fails.
    pub fn trouble(&self, error: std::io::Error) -> Error {
        Error::of(&self.folder)(error)
    }

    fn json(&self, name: &str) -> Result<Option<Value>, Error> {
        let path = self.folder.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::of(path)(error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| Error::of(path)(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Record;
    use super::*;

    #[test]
    fn a_run_that_goes_on_is_told_from_one_that_died() {
        let state = tempfile::tempdir().expect("temp dir");
        let id = RunId::new();
        assert!(Entry::of(state.path(), &id).is_none());
        let record = Record::create(state.path(), &id).expect("record");
        let entry = Entry::of(state.path(), &id).expect("an entry");
        assert_eq!(entry.state(), State::Running);
        assert!(entry.report().expect("readable").is_none());

        let owner = entry.folder().join(OWNER);
        let me = fs::read_to_string(&owner).expect("an owner");
        let (pid, rest) = me.split_once('.').expect("parts");
        let (started, boot) = rest.split_once('.').expect("parts");
        let started: u64 = started.parse().expect("a number");
        fs::write(&owner, format!("{pid}.{}.{boot}", started + 1)).expect("written");
        assert_eq!(entry.state(), State::Died, "another process has the number now");

        record.finish(&serde_json::json!({"new": 1})).expect("finished");
        assert_eq!(entry.state(), State::Ended);
        assert_eq!(entry.report().expect("readable"), Some(serde_json::json!({"new": 1})));
    }

    #[test]
    fn a_record_without_an_owner_is_given_the_time_that_a_run_may_take() {
        let state = tempfile::tempdir().expect("temp dir");
        for (id, expected) in [
            (RunId::new(), State::Running),
            ("20260101-000000-aaaa".parse().expect("an id"), State::Died),
            ("99999999-999999-aaaa".parse().expect("an id"), State::Died),
        ] {
            fs::create_dir_all(folder_of(state.path(), &id)).expect("made");
            let entry = Entry::of(state.path(), &id).expect("an entry");
            assert_eq!(entry.state(), expected, "{id}");
            // Cut by a full disk.
            fs::write(entry.folder().join(OWNER), "12").expect("written");
            assert_eq!(entry.state(), expected, "{id}");
        }
    }
}
