//! What was made in a workspace, told to whoever cleans up after a killed run.
//!
//! One JSON object a line. What is planned is written, and on the disk, before anything is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{GuardError, Kind, WorkspacePath};

/// More than any list of placeholders needs.
const LARGEST: u64 = 4 << 20;

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
enum Line {
    Of {
        version: u32,
        workspace: PathBuf,
        device: u64,
        inode: u64,
    },
    Planned {
        path: PathBuf,
        file: bool,
    },
    Made {
        path: PathBuf,
        device: u64,
        inode: u64,
    },
    /// It turned out to be there already: not ours.
    Passed {
        path: PathBuf,
    },
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

/// One placeholder, the way a journal knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Made {
    pub path: PathBuf,
    pub kind: Kind,
    /// Nothing when the run was killed between making it and saying so.
    pub identity: Option<(u64, u64)>,
}

/// What a journal says.
#[derive(Debug)]
pub(super) struct Told {
    pub workspace: PathBuf,
    pub identity: (u64, u64),
    pub made: Vec<Made>,
}

impl Journal {
    /// Begins a journal with everything that is going to be made.
    pub fn begin(
        path: &Path,
        workspace: &WorkspacePath,
        plan: &[(PathBuf, Kind)],
    ) -> Result<Self, GuardError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| GuardError::io("make the journal", path, source))?;
        let mut journal = Self { path: path.to_owned(), file };
        let (device, inode) = workspace.identity();
        let head =
            Line::Of { version: VERSION, workspace: workspace.path().to_owned(), device, inode };
        let planned = plan
            .iter()
            .map(|(path, kind)| Line::Planned { path: path.clone(), file: *kind == Kind::File });
        let lines: Vec<_> = std::iter::once(head).chain(planned).collect();
        journal.write(&lines)?;
        // Against the loss of power; against the loss of this process, writing is enough.
        let synced = journal.file.sync_data();
        synced.map_err(|source| GuardError::io("write the journal", path, source))?;
        Ok(journal)
    }

    pub fn made(&mut self, path: &Path, (device, inode): (u64, u64)) -> Result<(), GuardError> {
        self.write(&[Line::Made { path: path.to_owned(), device, inode }])
    }

    pub fn passed(&mut self, path: &Path) -> Result<(), GuardError> {
        self.write(&[Line::Passed { path: path.to_owned() }])
    }

    /// Nothing of what it tells is there any more.
    pub fn end(self) -> io::Result<()> {
        std::fs::remove_file(self.path)
    }

    fn write(&mut self, lines: &[Line]) -> Result<(), GuardError> {
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)
                .map_err(|source| GuardError::io("write the journal", &self.path, source))?;
            text.push(b'\n');
        }
        // One call, so that a kill tears at most the last line.
        self.file
            .write_all(&text)
            .map_err(|source| GuardError::io("write the journal", &self.path, source))
    }
}

/// Reads what a killed run left. Nothing when there is no journal.
pub(super) fn read(path: &Path) -> Result<Option<Told>, GuardError> {
    let failed = |source| GuardError::io("read the journal", path, source);
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let mut text = String::new();
    match opened {
        Ok(file) => file.take(LARGEST).read_to_string(&mut text).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let nonsense =
        |line| GuardError::Journal { path: path.to_string_lossy().into_owned(), line: line + 1 };
    let mut told: Option<Told> = None;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        // The run died within this line, and so before what it would have told.
        let Some(line) = line.strip_suffix('\n') else { break };
        let line = serde_json::from_str(line).map_err(|_| nonsense(number))?;
        match (line, &mut told) {
            (Line::Of { version: VERSION, workspace, device, inode }, None) => {
                told = Some(Told { workspace, identity: (device, inode), made: Vec::new() });
            }
            (Line::Planned { path, file }, Some(told)) => {
                let kind = if file { Kind::File } else { Kind::Dir };
                told.made.push(Made { path, kind, identity: None });
            }
            (Line::Made { path, device, inode }, Some(told)) => {
                for made in told.made.iter_mut().filter(|made| made.path == path) {
                    made.identity = Some((device, inode));
                }
            }
            (Line::Passed { path }, Some(told)) => told.made.retain(|made| made.path != path),
            _ => return Err(nonsense(number)),
        }
    }
    Ok(told)
}
