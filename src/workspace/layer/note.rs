//! What is known of a layer, written down for whoever comes after us.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy::Copied;
use super::{LayerError, View};
use crate::files::{Durability, write_json};
use crate::ids::{Owner, RunId};
use crate::sandbox::Copies;
use crate::workspace::changeset::RelPath;
use crate::workspace::mounts::mounts;
use crate::workspace::{Bounds, WorkspacePath, changes};

pub(super) const NOTE: &str = "note.json";
const LARGEST: u64 = 1 << 20;

/// What is known of a layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Note {
    pub workspace: PathBuf,
    /// Device and inode of the workspace.
    pub identity: (u64, u64),
    pub owner: String,
    /// When the run began, in nanoseconds of the kernel's clock.
    pub began: i128,
    /// None as long as the agent cannot have begun.
    pub view: Option<View>,
    pub copied: Option<Copied>,
    pub bounds: Bounds,
    pub covered: Vec<RelPath>,
    /// Where something else is mounted in the workspace: empty places of the view.
    pub mounts: Vec<RelPath>,
    /// Links that would lead the agent to settings of its own: they are not in the view.
    pub hidden: Vec<RelPath>,
    /// None before the sandbox is set up.
    pub setup: Option<Setup>,
    /// The run whose changes the view began with.
    pub earlier: Option<RunId>,
}

/// The sandbox of a layer, so that another one can be as it after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    pub image: String,
    /// The path of the workspace inside.
    pub inside: PathBuf,
    /// `uid:gid`.
    pub user: String,
    /// The group of a shared workspace.
    pub shared: Option<u32>,
    pub runtime: Option<String>,
    /// Limits that its run went without.
    pub accepted: Vec<String>,
    /// Copies of what was mounted, where the engine does not see our files.
    #[serde(default)]
    pub copies: Option<Copies>,
}

/// The places below a folder where something else is mounted, as far as this process sees them.
pub fn mounts_below(folder: &Path) -> Vec<RelPath> {
    let list = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let below =
        mounts(&list).filter_map(|mount| RelPath::new(mount.place.strip_prefix(folder).ok()?).ok());
    let mut below: Vec<_> = below.collect();
    below.sort();
    below.dedup();
    below
}

impl Note {
    pub(super) fn new(
        workspace: &WorkspacePath,
        owner: &Owner,
        bounds: Bounds,
        covered: Vec<RelPath>,
    ) -> Self {
        Self {
            workspace: workspace.path().to_owned(),
            identity: workspace.identity(),
            owner: owner.to_string(),
            began: changes::now(),
            view: None,
            copied: None,
            bounds,
            covered,
            mounts: mounts_below(workspace.path()),
            hidden: Vec::new(),
            setup: None,
            earlier: None,
        }
    }

    /// The places of the view that are none of the run's to change: something of ours or of another
    /// program's is mounted there, so nothing of the workspace is seen.
    pub fn empty(&self) -> Vec<&Path> {
        self.covered.iter().chain(&self.mounts).map(RelPath::as_path).collect()
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), LayerError> {
        let path = folder.join(NOTE);
        let written = write_json(&path, self, Durability::Lazy);
        written.map_err(LayerError::io("write down what is known in", &path))
    }

    pub(super) fn read(folder: &Path) -> Result<(Self, File), LayerError> {
        let path = folder.join(NOTE);
        let failed = || LayerError::io("read what is known in", &path);
        let file = File::open(&path).map_err(failed())?;
        let mut bytes = Vec::new();
        (&file).take(LARGEST).read_to_end(&mut bytes).map_err(failed())?;
        let note = serde_json::from_slice(&bytes).map_err(|error| failed()(error.into()))?;
        Ok((note, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_as_they_are() {
        assert!(
            mounts_below(Path::new("/")).iter().any(|path| path.as_path() == Path::new("proc"))
        );
    }
}
