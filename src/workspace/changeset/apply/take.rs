//! Deciding a conflict for the run: its version replaces what is in the workspace now.

use std::os::fd::AsFd;

use rustix::io::Errno;

use super::super::node::{Seen, look, name_of, parent_of};
use super::super::{Alteration, Manifest};
use super::error::ApplyError;
use super::plan::named;
use crate::workspace::WorkspacePath;
use crate::workspace::walk::open_root;

/// Returns the list of changes as if the run had found what is in the workspace now, at and below
/// `paths`. What changes after this look is a conflict as ever, and undoing puts back what was there
/// now. A new repository is never put over another one. Blocking.
pub fn taken(
    workspace: &WorkspacePath,
    mut manifest: Manifest,
    paths: &[String],
) -> Result<Manifest, ApplyError> {
    let paths = paths.iter().map(|path| named(&manifest, path)).collect::<Result<Vec<_>, _>>()?;
    let root = open_root(workspace.path()).map_err(|errno| ApplyError::Io {
        what: "open",
        path: workspace.path().display().to_string(),
        source: errno.into(),
    })?;
    let repositories = manifest.repositories.clone();
    let is_taken = |change: &&mut Alteration| {
        paths.iter().any(|path| change.path.as_path().starts_with(path))
            && !repositories.iter().any(|made| made.has(&change.path))
    };
    for change in manifest.changes.iter_mut().filter(is_taken) {
        let failed = |source| ApplyError::io("look at", &change.path)(source);
        let found = match parent_of(root.as_fd(), &change.path) {
            Ok(parent) => {
                let name = name_of(&change.path);
                let size = rustix::fs::statat(&parent, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .ok()
                    .and_then(|found| u64::try_from(found.st_size).ok());
                look(parent.as_fd(), name, &Vec::from_iter(size)).map_err(failed)?
            }
            Err(Errno::NOENT) => Seen::Nothing,
            // What is in the way is a conflict of its own.
            Err(_) => continue,
        };
        match found {
            Seen::Nothing => change.before = None,
            Seen::Node(node, _) => change.before = Some(node),
            Seen::OtherFile(stat) => {
                let more = format!("it grew to {} bytes at this moment", stat.st_size);
                return Err(failed(std::io::Error::other(more)));
            }
            Seen::Special => continue,
        }
        change.base_moved = false;
    }
    Ok(manifest)
}
