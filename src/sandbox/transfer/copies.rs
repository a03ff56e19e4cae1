//! The copies of one run, as they are noted for whoever comes after a crash.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use serde::{Deserialize, Serialize};

use super::{Take, Transfer};
use crate::engine::Engine;
use crate::ids::RunId;
use crate::sandbox::container::Spec;
use crate::sandbox::labels::keeper;
use crate::sandbox::{Error, Mount, Policy, User};
use crate::text::fingerprint;

/// Copies on the engine's machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// The run's own volume, and the one that keeps copies from run to run.
    pub(super) volume: String,
    pub(super) kept_volume: String,
    /// The paths of what is in them there.
    pub(super) own: PathBuf,
    pub(super) kept: PathBuf,
    pub(super) parts: Vec<Part>,
    /// Most bytes that may come back.
    pub(super) most: u64,
    /// The engine's clock when both sides were the same.
    pub(super) since: i128,
}

/// The copy of one mount.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// The place on this machine.
    pub source: PathBuf,
    pub is_writable: bool,
    /// The name of what is kept from run to run, if it is.
    pub kept: Option<String>,
}

/// What goes on while files are copied to the engine's machine.
#[derive(Debug)]
pub struct Sending {
    /// The volume that keeps copies from run to run. Nobody else may change it meanwhile.
    pub kept: String,
    /// Whose volumes these are.
    pub keeper: String,
    /// Bytes so far.
    pub bytes: AtomicU64,
    /// Bytes of all files, whether or not they have to be sent.
    pub size: Arc<AtomicU64>,
    /// Set where the run is cancelled.
    pub is_over: AtomicBool,
}

impl Sending {
    /// Copies of `workspace` are kept for who has the folder `state`.
    pub fn of(workspace: &Path, user: User, state: &Path) -> Result<Self, Error> {
        let what = "write down whose the copies on the engine's machine are".to_owned();
        let keeper = keeper(state).map_err(|source| Error::Io { what, source })?;
        let name = name_for(workspace, user, &keeper);
        Ok(Self {
            kept: format!("sandbox-mcp-{name}-kept"),
            keeper,
            bytes: AtomicU64::new(0),
            size: Arc::default(),
            is_over: AtomicBool::new(false),
        })
    }
}

/// A name for what is kept of a folder.
fn name_for(path: &Path, user: User, keeper: &str) -> String {
    let user = user.to_string();
    fingerprint([keeper.as_bytes(), user.as_bytes(), path.as_os_str().as_bytes()], 8)
}

impl Copies {
    /// The parts of a policy's mounts. What is the run's alone is not kept.
    pub(super) fn parts(policy: &Policy, run: &RunId) -> Vec<Part> {
        let kept = |mount: &Mount| {
            if mount.target == policy.workspace {
                // A view is another folder in each run, and has mostly the same in it.
                // Where a run reads it in its place, no other is to change it.
                let name = if mount.read_only { "workspace-read-only" } else { "workspace" };
                return Some(name.to_owned());
            }
            let is_own = mount.source.iter().any(|part| part == run.as_str());
            let is_kept = mount.read_only && !is_own && mount.source.is_dir();
            is_kept.then(|| name_for(&mount.source, policy.user, ""))
        };
        let part = |mount: &Mount| Part {
            source: mount.source.clone(),
            is_writable: !mount.read_only,
            kept: kept(mount),
        };
        policy.mounts.iter().map(part).collect()
    }

    /// Returns a policy whose mounts are the copies of those that it has.
    pub(super) fn policy(&self, policy: &Policy) -> Policy {
        let copied = |mount: &Mount| {
            let number = self.parts.iter().position(|part| part.source == mount.source)?;
            let source = match &self.parts[number] {
                Part { kept: Some(kept), is_writable: false, .. } => self.kept.join(kept),
                _ => self.own.join(number.to_string()),
            };
            Some(Mount { source, ..mount.clone() })
        };
        let mounts = policy.mounts.iter().filter_map(copied).collect();
        Policy { mounts, is_copied: true, ..policy.clone() }
    }

    /// Numbers of those that the run may write to.
    pub(super) fn writable(&self) -> impl Iterator<Item = usize> {
        (0..self.parts.len()).filter(|at| self.parts[*at].is_writable)
    }

    /// Brings what a run changed in them into the local copies, when its sandbox is gone.
    pub async fn bring_back(
        &self,
        engine: &Engine,
        policy: &Policy,
        spec: &Spec<'_>,
        take: Take,
    ) -> Result<(), Error> {
        let mut transfer = Transfer::reopen(engine, policy, spec, self.clone()).await?;
        transfer.leave();
        let brought = transfer.bring_back(take).await;
        transfer.remove().await?;
        brought
    }

    /// Removes the run's own. Nothing may be left in them that is wanted.
    pub async fn remove(&self, engine: &Engine) -> Result<(), Error> {
        Ok(engine.remove_volume(&self.volume).await?)
    }
}
