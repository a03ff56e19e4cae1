//! Which folders may be workspaces.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::refuse::{Ours, refusal};
use super::written::meant;
use crate::text::one_line;

/// A folder that was checked: it exists, is named without symbolic links, lies where workspaces
/// may lie, and is nothing that an agent must never have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkspacePath {
    path: PathBuf,
    owner: Owner,
    /// Device and inode, to notice when another folder has taken the name.
    identity: (u64, u64),
}

/// Whose a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// Why a folder cannot be the workspace. Each message names the argument, what was given and what
/// would do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`workspace` is `{given}`, which does not exist; give an existing folder")]
    Missing { given: String },
    #[error("`workspace` is `{given}`, which is not a folder; give the folder that it is in")]
    NotAFolder { given: String },
    #[error(
        "`workspace` is `{given}`, a symbolic link that leads back to itself; give a real folder"
    )]
    Loop { given: String },
    #[error("`workspace` is `{given}`, whose name is not valid UTF-8; rename the folder")]
    NotUnicode { given: String },
    #[error(
        "`workspace` is `{given}`, which cannot be read: {source}; make it accessible to this user or give another folder"
    )]
    Unreadable { given: String, source: io::Error },
    #[error("`workspace` is `{given}`, {why}; give a project folder")]
    Refused { given: String, why: &'static str },
    #[error("`workspace` is `{given}`, which is outside of the allowed folders; {}", allowed(.roots))]
    Outside { given: String, roots: Vec<PathBuf> },
    #[error(
        "`workspace` is `{given}`, where you may not write, so nobody may on your behalf; use the mode read-only, or another folder"
    )]
    NotWritable { given: String },
    #[error("the workspace `{given}` was replaced by another folder meanwhile; run again")]
    Replaced { given: String },
}

fn allowed(roots: &[PathBuf]) -> String {
    if roots.is_empty() {
        return "none is allowed: start in a project folder or set `workspace.roots`".to_owned();
    }
    let names: Vec<_> = roots.iter().map(|root| format!("`{}`", shown(root))).collect();
    format!("allowed are {} and folders below, or set `workspace.roots`", names.join(", "))
}

impl WorkspacePath {
    /// Checks the folder that a caller asks for (`cwd` when it does not say) against the folders
    /// that are allowed: `cwd`, the configured roots and the client's, and all below them.
    pub fn check(requested: Option<&Path>, cwd: &Path, roots: &[PathBuf]) -> Result<Self, Error> {
        Self::check_for(requested, cwd, roots, &Ours::here())
    }

    pub(super) fn check_for(
        requested: Option<&Path>,
        cwd: &Path,
        roots: &[PathBuf],
        ours: &Ours,
    ) -> Result<Self, Error> {
        // Models like to fill in every argument, and an empty text is how they say "none".
        let requested = requested.filter(|path| !path.as_os_str().is_empty()).unwrap_or(cwd);
        let given = shown(requested);
        let meant = meant(requested, ours.home.as_deref());
        let path = cwd.join(meant).canonicalize().map_err(|source| unusable(&given, source))?;
        if path.to_str().is_none() {
            return Err(Error::NotUnicode { given });
        }
        let found = fs::metadata(&path).map_err(|source| unusable(&given, source))?;
        if !found.is_dir() {
            return Err(Error::NotAFolder { given });
        }

        let roots = usable_roots(cwd, roots);
        let Some(root) = roots.iter().find(|root| path.starts_with(root)) else {
            // An unusable folder is refused as such first: no root would make it usable.
            return Err(match refusal(&path, &path, ours) {
                Some(why) => Error::Refused { given, why },
                None => Error::Outside { given, roots },
            });
        };
        if let Some(why) = refusal(&path, root, ours) {
            return Err(Error::Refused { given, why });
        }
        // The engine could read on our behalf what this user may not.
        rustix::fs::access(&path, Access::READ_OK | Access::EXEC_OK)
            .map_err(|errno| Error::Unreadable { given, source: errno.into() })?;
        Ok(Self {
            path,
            owner: Owner { uid: found.uid(), gid: found.gid() },
            identity: (found.dev(), found.ino()),
        })
    }

    /// Absolute, without symbolic links, valid UTF-8.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// Device and inode of the folder that was checked.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Whether this user may write here. If not, a container must not do so on their behalf.
    pub fn is_writable(&self) -> bool {
        rustix::fs::access(&self.path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
    }

    /// Refuses a folder that this user may not write to. Who may use the engine could otherwise
    /// write, through a sandbox, wherever the folder's owner may.
    pub fn require_writable(&self) -> Result<(), Error> {
        if self.is_writable() {
            Ok(())
        } else {
            Err(Error::NotWritable { given: shown(&self.path) })
        }
    }

    /// Whether the name still leads to the folder that was checked. To be asked last before a
    /// mount, because the mount goes by name.
    pub fn recheck(&self) -> Result<(), Error> {
        let same = self.path.canonicalize().is_ok_and(|now| now == self.path)
            && fs::symlink_metadata(&self.path)
                .is_ok_and(|now| now.is_dir() && (now.dev(), now.ino()) == self.identity);
        if same { Ok(()) } else { Err(Error::Replaced { given: shown(&self.path) }) }
    }
}

/// Returns true for a folder that can be a workspace itself. Desktops start their programs in others.
pub fn is_project(folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|folder| refusal(&folder, &folder, &Ours::here()).is_none())
}

/// The roots that exist, canonicalised. Everything lies below `/`, so it allows nothing: it is
/// what a host that was started from a desktop has as its current folder.
fn usable_roots(cwd: &Path, roots: &[PathBuf]) -> Vec<PathBuf> {
    let mut usable: Vec<PathBuf> = Vec::new();
    for root in std::iter::once(cwd).chain(roots.iter().map(PathBuf::as_path)) {
        match root.canonicalize() {
            Ok(root) if root.parent().is_some() && !usable.contains(&root) => usable.push(root),
            _ => {}
        }
    }
    usable
}

fn unusable(given: &str, source: io::Error) -> Error {
    let given = given.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { given },
        io::ErrorKind::NotADirectory => Error::NotAFolder { given },
        // `ErrorKind::FilesystemLoop` is not stable yet.
        _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Error::Loop { given }
        }
        _ => Error::Unreadable { given, source },
    }
}

/// A path fit for a message; it came from a caller.
fn shown(path: &Path) -> String {
    one_line(&path.to_string_lossy(), 300)
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
