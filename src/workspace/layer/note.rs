//! What is known of a layer, written down for whoever comes after us.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::copy::Copied;
use super::{LayerError, View};
use crate::files::{Durability, write_json};
use crate::ids::Owner;
use crate::workspace::changeset::RelPath;
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
    /// Of an overlay.
    pub mounted: Option<Mounted>,
}

/// Who mounted an overlay, so that another sandbox can after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mounted {
    pub image: String,
    /// `uid:gid`.
    pub user: String,
    pub runtime: Option<String>,
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
            mounted: None,
        }
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
