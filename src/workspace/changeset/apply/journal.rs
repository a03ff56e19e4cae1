//! What an application is about to do, on disk before it does it.
//!
//! Journals lie in the state folder and not in the workspace: they are obeyed after a crash, and
//! nobody who writes to a workspace may say what is obeyed.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::store::{read_small, write_json};
use super::super::{RelPath, StoreError};
use super::folders::{FolderMark, Identity};
use crate::files::sync_folder_of;
use crate::ids::RunId;

const VERSION: u32 = 2;
const LARGEST: u64 = 512 << 20;

/// Until then everything is undone after a crash.
const BEGUN: &str = "applying";
/// From then on only the old things are removed.
const DONE: &str = "applied";

/// One step, which can be undone by looking at what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub(super) enum Step {
    /// Moves what is at the path aside, as `old-<slot>`.
    Displace {
        path: RelPath,
        slot: u64,
        is: Mark,
    },
    /// Moves `new-<slot>` to the path.
    Place {
        path: RelPath,
        slot: u64,
        folder: bool,
        is: Mark,
    },
    RemoveFolder {
        path: RelPath,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    Chmod {
        path: RelPath,
        from: u32,
        to: u32,
    },
}

/// What tells one file from another, and from itself with another content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub inode: u64,
    size: i64,
    mtime: (i64, i64),
}

impl Mark {
    pub fn of(stat: &rustix::fs::Stat) -> Self {
        // The types differ from target to target.
        let plain = |number: i128| i64::try_from(number).unwrap_or_default();
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (plain(stat.st_mtime.into()), plain(stat.st_mtime_nsec.into())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    version: u32,
    pub workspace: PathBuf,
    pub inode: u64,
    /// The private folder in the workspace, once it is made.
    pub staging: Option<Identity>,
    /// All folders that the steps change names in, but for the workspace itself.
    pub folders: Vec<FolderMark>,
    pub steps: Vec<Step>,
    /// Where the list is of what is kept to be put back one day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<PathBuf>,
    /// The list of branches that follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<PathBuf>,
}

/// The place of one application's journal.
#[derive(Clone, Debug)]
pub(super) struct Place {
    folder: PathBuf,
    run: RunId,
}

impl Journal {
    pub fn new(workspace: PathBuf, inode: u64) -> Self {
        let (folders, steps) = (Vec::new(), Vec::new());
        Self {
            version: VERSION,
            workspace,
            inode,
            staging: None,
            folders,
            steps,
            undo: None,
            commits: None,
        }
    }
}

impl Place {
    pub fn new(folder: &Path, run: &RunId) -> Self {
        Self { folder: folder.to_owned(), run: run.clone() }
    }

    /// All journals that there are.
    pub fn all(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let runs = entries.filter_map(|entry| {
            let name = entry.file_name();
            let (id, ending) = name.to_str()?.split_once('.')?;
            [BEGUN, DONE].contains(&ending).then(|| id.parse::<RunId>().ok()).flatten()
        });
        let mut all: Vec<_> = runs.map(|run| Self::new(folder, &run)).collect();
        all.sort_by(|one, other| one.run.cmp(&other.run));
        all.dedup_by(|one, other| one.run == other.run);
        all
    }

    pub fn run(&self) -> &RunId {
        &self.run
    }

    fn path(&self, ending: &str) -> PathBuf {
        self.folder.join(format!("{}.{ending}", self.run))
    }

    /// Says what is about to be done; may be said again, with more.
    pub fn write(&self, journal: &Journal) -> Result<(), StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| StoreError::Io { what: "make", path: self.folder.clone(), source })?;
        write_json(&self.path(BEGUN), journal)
    }

    /// Says that all is done.
    pub fn commit(&self) -> Result<(), StoreError> {
        let path = self.path(DONE);
        let committed = fs::rename(self.path(BEGUN), &path).and_then(|()| {
            // What may come back after a loss of power must not be acted upon.
            sync_folder_of(&path).inspect_err(|_| drop(fs::rename(&path, self.path(BEGUN))))
        });
        committed.map_err(|source| StoreError::Io { what: "write", path, source })
    }

    /// The journal, and whether all was done.
    pub fn read(&self) -> Result<Option<(Journal, bool)>, StoreError> {
        for (ending, done) in [(DONE, true), (BEGUN, false)] {
            let path = self.path(ending);
            let Some(text) = read_small(&path, LARGEST)? else { continue };
            let journal: Journal = serde_json::from_slice(&text).map_err(|error| {
                StoreError::Nonsense { path: path.clone(), why: error.to_string() }
            })?;
            if journal.version > VERSION {
                return Err(StoreError::Newer { path, version: journal.version });
            }
            return Ok(Some((journal, done)));
        }
        Ok(None)
    }

    /// Nothing of it is left to do.
    pub fn end(&self) -> Result<(), StoreError> {
        for ending in [BEGUN, DONE, "partial"] {
            let path = self.path(ending);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::Io { what: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
