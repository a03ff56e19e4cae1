//! The layer that a run writes to: `layers/<run>/` below the state folder.
//!
//! | name | what |
//! |---|---|
//! | `note.json` | whose it is, what it is a view of, and since when |
//! | `upper/`, `work/` | the two halves of an overlay that are not the workspace |
//! | `copy/` | the copy, where there is no overlay |
//! | `copied` | the names and inodes of what was copied |
//! | `git/` | copies of git directories ([`git`](super::git)) |
//!
//! Nothing in here is ever executed on the host, so nothing in it needs protection from the agent.
//! A layer outlives a process that is killed: whoever comes next finds it by [`abandoned`], keeps
//! the result, and removes it.

mod copy;
mod note;
mod remove;
mod seed;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FlockOperation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(in crate::workspace) use copy::{Copied, Twin};
pub(in crate::workspace) use note::Note;

pub use note::{Setup, mounts_below};

pub use copy::copy_folder;

use super::changeset::RelPath;
use super::{Bounds, WorkspacePath};
use crate::ids::{Owner, RunId};
use crate::sandbox::Copies;
use crate::text::one_line;

const LAYERS: &str = "layers";
const UPPER: &str = "upper";
const WORK: &str = "work";
const COPY: &str = "copy";
const GIT: &str = "git";
/// Where work folders wait that only root could remove; see [`remove`].
const SPARE: &str = "spare";

/// How long a layer without a note may still be one that is being made.
const MAKING: Duration = Duration::from_secs(3600);

/// How a run sees its workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The workspace itself, with a layer over it that takes the changes.
    Overlay,
    /// A copy that shares its blocks with the workspace.
    Reflink,
    /// A copy.
    Copy,
}

/// Why there is no view of a workspace. Each message completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("{what} `{}`: {source}", one_line(.path, 300))]
    Io { what: &'static str, path: String, source: io::Error },
    #[error(
        "copy the workspace: it has more than {allowed} {what} (`{key}`), and there is no overlay here that would do without"
    )]
    TooLarge { what: &'static str, allowed: u64, key: &'static str },
    #[error(
        "make a view of a workspace that belongs to another user; use the mode read-only, or your own folder"
    )]
    NotOurs,
    #[error("copy the workspace: it was given up")]
    Stopped,
    #[error(transparent)]
    Workspace(#[from] super::Error),
}

impl LayerError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_string_lossy().into_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// The layer of one run. Dropping it leaves it where it is.
#[derive(Clone, Debug)]
pub struct Layer {
    folder: PathBuf,
    note: Note,
    /// Held by whoever collects a dead run's.
    _claim: Option<Arc<File>>,
}

impl Layer {
    /// Makes an empty layer for a view of `workspace`. `covered` is what is hidden there by mounts
    /// of ours: whatever the layer has in these places is not the run's doing.
    pub fn make(
        state: &Path,
        run: &RunId,
        owner: &Owner,
        workspace: &WorkspacePath,
        bounds: Bounds,
        covered: Vec<RelPath>,
    ) -> Result<Self, LayerError> {
        let layers = state.join(LAYERS);
        let private = |path: &Path, all: bool| {
            let made = DirBuilder::new().recursive(all).mode(0o700).create(path);
            made.map_err(LayerError::io("make the folder", path))
        };
        private(&layers, true)?;
        // As the kernel is going to name it.
        let layers = layers.canonicalize().map_err(LayerError::io("find the way to", &layers))?;
        let folder = layers.join(run.as_str());
        private(&folder, false)?;
        let note = Note::new(workspace, owner, bounds, covered);
        note.write(&folder)?;
        Ok(Self { folder, note, _claim: None })
    }

    /// Whether the kernel can be told of an overlay over this workspace: its options are one text,
    /// in which these characters divide.
    pub fn can_be_overlay(&self) -> bool {
        let plain =
            |path: &Path| path.to_str().is_some_and(|path| !path.contains([',', ':', '\\', '\n']));
        plain(&self.note.workspace) && plain(&self.folder)
    }

    /// Returns true where a copy takes less than a tenth of a second.
    pub fn is_quick(&self, workspace: &WorkspacePath) -> bool {
        copy::is_quick(workspace, &self.note)
    }

    /// Leaves links at the top of the workspace out of the view.
    pub fn hide(&mut self, links: Vec<RelPath>) -> Result<(), LayerError> {
        self.note.covered.extend(links.iter().cloned());
        self.note.hidden = links;
        self.note.write(&self.folder)
    }

    /// Notes how the sandbox is set up. Comes before the view is made.
    pub fn set_up(&mut self, setup: Setup) {
        self.note.setup = Some(setup);
    }

    /// Notes the copies on the engine's machine. Comes before the agent begins.
    pub fn note_copies(&mut self, copies: Copies) -> Result<(), LayerError> {
        if let Some(setup) = &mut self.note.setup {
            setup.copies = Some(copies);
        }
        self.note.write(&self.folder)
    }

    /// Returns the copies on the engine's machine, if there are any.
    pub fn copies(&self) -> Option<&Copies> {
        self.note.setup.as_ref()?.copies.as_ref()
    }

    /// How the sandbox was set up.
    pub fn setup(&self) -> Option<&Setup> {
        self.note.setup.as_ref()
    }

    /// Makes the two folders of an overlay, and returns them: upper and work.
    pub fn overlay(&mut self, workspace: &WorkspacePath) -> Result<(PathBuf, PathBuf), LayerError> {
        let upper = self.folder.join(UPPER);
        let work = self.folder.join(WORK);
        Self::owned(&upper, workspace)?;
        let spare = self.folder.parent().map(|layers| layers.join(SPARE));
        if !spare.is_some_and(|spare| remove::take_spare(&spare, &work, workspace.owner())) {
            Self::owned(&work, workspace)?;
        }
        for hidden in &self.note.hidden {
            // The kernel's mark of something that is not there, which any user may make.
            let place = upper.join(hidden.as_path());
            let kind = rustix::fs::FileType::CharacterDevice;
            let made = rustix::fs::mknodat(CWD, &place, kind, rustix::fs::Mode::empty(), 0);
            made.map_err(|errno| LayerError::io("hide", &place)(errno.into()))?;
        }
        self.note.view = Some(View::Overlay);
        self.note.write(&self.folder)?;
        Ok((upper, work))
    }

    /// Copies the workspace, and returns where to. Blocking, and as long as the workspace is large;
    /// `stop` ends it.
    pub fn copy(
        &mut self,
        workspace: &WorkspacePath,
        stop: &AtomicBool,
    ) -> Result<(PathBuf, u64), LayerError> {
        let copy = self.folder.join(COPY);
        // Nothing of an overlay that could not be mounted is the run's.
        self.note.view = None;
        self.note.write(&self.folder)?;
        Self::owned(&copy, workspace)?;
        let (view, left_out) = copy::copy(workspace, &copy, &self.folder, &self.note, stop)?;
        workspace.recheck()?;
        self.note.copied = Some(Copied::written(&self.folder)?);
        self.note.view = Some(view);
        self.note.write(&self.folder)?;
        Ok((copy, left_out))
    }

    /// The folder for copies of git directories, which is made where it is not there.
    pub fn git(&self) -> Result<PathBuf, LayerError> {
        let folder = self.folder.join(GIT);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(LayerError::io("make the folder", &folder))?;
        Ok(folder)
    }

    /// Adds places that mounts of ours hide.
    pub fn cover(&mut self, places: impl Iterator<Item = RelPath>) -> Result<(), LayerError> {
        self.note.covered.extend(places);
        self.note.write(&self.folder)
    }

    /// Makes a folder as the workspace's root is, for whom it belongs to.
    fn owned(path: &Path, workspace: &WorkspacePath) -> Result<(), LayerError> {
        let failed = || LayerError::io("make the folder", path);
        let found = fs::metadata(workspace.path()).map_err(failed())?;
        DirBuilder::new().mode(0o700).create(path).map_err(failed())?;
        let owner = workspace.owner();
        if rustix::process::geteuid().is_root() {
            chown(path, Some(owner.uid), Some(owner.gid)).map_err(failed())?;
        } else if rustix::process::geteuid().as_raw() != owner.uid {
            return Err(LayerError::NotOurs);
        }
        let mode = fs::Permissions::from_mode(found.mode() & 0o1777);
        fs::set_permissions(path, mode).map_err(failed())
    }

    /// The two folders of an overlay, once they are made.
    pub fn mounted(&self) -> Option<(PathBuf, PathBuf)> {
        let is_overlay = self.view() == Some(View::Overlay);
        is_overlay.then(|| (self.folder.join(UPPER), self.folder.join(WORK)))
    }

    /// The folder that grows with what the run writes.
    pub fn written(&self) -> PathBuf {
        self.folder.join(match self.note.view {
            Some(View::Reflink | View::Copy) => COPY,
            Some(View::Overlay) | None => UPPER,
        })
    }

    /// The most things of the run and of what was copied that are looked at.
    pub fn most_entries(&self) -> usize {
        let files = usize::try_from(self.note.bounds.files).unwrap_or(usize::MAX);
        files.saturating_mul(4)
    }

    /// A file to be touched as a sign of life.
    pub fn sign(&self) -> PathBuf {
        self.folder.join(note::NOTE)
    }

    /// None where the agent cannot have begun.
    pub fn view(&self) -> Option<View> {
        self.note.view
    }

    /// The folder that it is a view of.
    pub fn workspace(&self) -> &Path {
        &self.note.workspace
    }

    /// The run whose layer it is.
    pub fn run(&self) -> Option<RunId> {
        self.folder.file_name()?.to_str()?.parse().ok()
    }

    pub(super) fn note(&self) -> &Note {
        &self.note
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes it, when the container is gone and the result is kept.
    pub fn remove(mut self) -> Result<(), LayerError> {
        // Should this fail half way, nobody takes the rest for a result.
        self.note.view = None;
        self.note.write(&self.folder)?;
        remove::remove(&self.folder).map_err(LayerError::io("remove the folder", &self.folder))
    }
}

/// Returns true where a run has a layer, whoever's it is.
pub fn is_there(state: &Path, run: &str) -> bool {
    run.parse::<RunId>().is_ok() && state.join(LAYERS).join(run).exists()
}

/// The layers of dead owners, claimed so that no other process takes them as well. Those of the
/// runs in `running` are left alone, whatever their owners seem to be.
pub fn abandoned(state: &Path, running: &[String]) -> Vec<Layer> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state.join(LAYERS)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<RunId>().is_err() || running.contains(&name) {
            continue;
        }
        let folder = entry.path();
        match Note::read(&folder) {
            Ok((note, file)) => {
                let dead = note.owner.parse::<Owner>().is_ok_and(|owner| !owner.is_alive());
                let claim = FlockOperation::NonBlockingLockExclusive;
                if dead && rustix::fs::flock(file.as_fd(), claim).is_ok() {
                    found.push(Layer { folder, note, _claim: Some(Arc::new(file)) });
                }
            }
            // Of another version: it may hold a run's work.
            Err(error) if folder.join(note::NOTE).exists() => {
                tracing::warn!(
                    "the note of the layer {} cannot be read: {error}",
                    folder.display()
                );
            }
            Err(error) => {
                let age = entry.metadata().and_then(|meta| meta.modified());
                let age = age.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
                if age.is_some_and(|age| age > MAKING) {
                    tracing::warn!("a layer without a note is removed: {error}");
                    if let Err(error) = remove::remove(&folder) {
                        tracing::warn!("{} remains: {error}", folder.display());
                    }
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
