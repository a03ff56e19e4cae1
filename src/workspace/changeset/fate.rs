//! What became of a result, as its record keeps it.

use std::collections::HashSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::{read_small, write_json};
use super::{Live, Manifest, RelPath, StoreError};
use crate::ids::RunId;
use crate::text::one_line;

const LARGEST: u64 = 256 << 20;

/// What became of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fate {
    version: u32,
    /// Every path of the list was carried over, at once or in parts.
    pub whole: bool,
    pub discarded_at: Option<String>,
    /// What was applied was put back, and waits again.
    pub undone_at: Option<String>,
    pub applied: Vec<Application>,
    /// A run of the same session that began with these changes, and has them in its own result.
    pub continued_by: Option<RunId>,
}

/// One time that changes were carried over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    pub at: String,
    pub paths: Vec<RelPath>,
}

impl Fate {
    /// Nothing has become of it where nothing is written.
    pub fn read(path: &Path) -> Result<Self, StoreError> {
        let Some(text) = read_small(path, LARGEST)? else { return Ok(Self::default()) };
        serde_json::from_slice(&text).map_err(|error| StoreError::Nonsense {
            path: path.to_owned(),
            why: one_line(&error.to_string(), 200),
        })
    }

    pub fn write(&mut self, path: &Path) -> Result<(), StoreError> {
        self.version = 1;
        write_json(path, self)
    }

    /// Notes what was carried over; what was known before is not noted again.
    pub fn apply(&mut self, manifest: &Manifest, paths: Vec<RelPath>) {
        let known: HashSet<_> = self.applied.iter().flat_map(|one| &one.paths).collect();
        let new: Vec<_> = paths.into_iter().filter(|path| !known.contains(path)).collect();
        if !new.is_empty() {
            self.applied.push(Application { at: now(), paths: new });
        }
        self.judge(manifest);
    }

    /// Forgets what was carried over while the run went on and is changed again since, by the final
    /// list.
    pub fn settle(&mut self, manifest: &Manifest, live: &Live) {
        let changes = manifest.changes.iter();
        let kept: HashSet<_> =
            changes.filter(|change| live.has(change)).map(|change| &change.path).collect();
        for application in &mut self.applied {
            application.paths.retain(|path| kept.contains(path));
        }
        self.applied.retain(|application| !application.paths.is_empty());
        self.judge(manifest);
        self.whole &= !self.applied.is_empty();
    }

    fn judge(&mut self, manifest: &Manifest) {
        let known: HashSet<_> = self.applied.iter().flat_map(|one| &one.paths).collect();
        self.whole = manifest.changes.iter().all(|change| known.contains(&change.path));
    }

    pub fn undo(&mut self) {
        self.whole = false;
        self.applied.clear();
        self.undone_at = Some(now());
    }

    pub fn discard(&mut self) {
        self.discarded_at.get_or_insert_with(now);
    }

    /// `applied`, `partly_applied`, `discarded` or `undone`; nothing while nothing has become of it.
    pub fn word(&self) -> Option<&'static str> {
        if self.whole {
            Some("applied")
        } else if self.discarded_at.is_some() {
            Some("discarded")
        } else {
            let undone = self.undone_at.as_ref().map(|_| "undone");
            (!self.applied.is_empty()).then_some("partly_applied").or(undone)
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
