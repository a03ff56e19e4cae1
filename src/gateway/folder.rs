//! The folder that a sandbox's sockets live in, from its making to its removal.
//!
//! There are two folders, one in the other. The outer one is ours alone (0700), so that no other
//! user of this machine can reach a socket, whatever the sockets' own modes are. The inner one is
//! what the sandbox sees; it belongs to the user that the sandbox runs as, where we may give it
//! away (as root), and else is open to whoever can reach it: that is only the sandbox, into which
//! it is mounted directly.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::Error;

/// Linux keeps a socket's path in 108 bytes, of which one is the closing zero.
const MAX_SOCKET_PATH: usize = 107;

#[derive(Debug)]
pub struct PrivateFolder {
    outer: PathBuf,
    inner: PathBuf,
    access: Access,
    removed: bool,
}

/// How the sandbox's user comes to its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It is our own user.
    Ours,
    /// We are root: folder and sockets are given to it.
    Given(u32, u32),
    /// We are somebody else than it: the modes are open inside the closed outer folder.
    Open,
}

impl Access {
    fn of(owner: Option<(u32, u32)>) -> Self {
        let us = rustix::process::geteuid();
        match owner {
            None => Self::Ours,
            Some((uid, _)) if uid == us.as_raw() && !us.is_root() => Self::Ours,
            Some((uid, gid)) if us.is_root() => Self::Given(uid, gid),
            Some(_) => Self::Open,
        }
    }
}

impl PrivateFolder {
    /// Makes `outer`, which must not exist yet, and what is above it where that is missing.
    pub fn create(outer: &Path, owner: Option<(u32, u32)>) -> Result<Self, Error> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Folder { path, source }
        };
        let private = |recursive| {
            let mut builder = DirBuilder::new();
            builder.mode(0o700).recursive(recursive);
            builder
        };
        if let Some(parent) = outer.parent() {
            private(true).create(parent).map_err(failed(parent))?;
        }
        // Not recursive: what is there already is not ours, even if it is a link to something.
        private(false).create(outer).map_err(failed(outer))?;
        let folder = Self {
            outer: outer.to_owned(),
            inner: outer.join("run"),
            access: Access::of(owner),
            removed: false,
        };
        private(false).create(&folder.inner).map_err(failed(&folder.inner))?;
        folder.hand_over(&folder.inner, 0o700, 0o755)?;
        Ok(folder)
    }

    /// What the sandbox sees.
    pub fn path(&self) -> &Path {
        &self.inner
    }

    pub fn bind(&self, name: &str) -> Result<UnixListener, Error> {
        let path = self.inner.join(name);
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_SOCKET_PATH {
            return Err(Error::PathTooLong { path, length, most: MAX_SOCKET_PATH });
        }
        let listener = UnixListener::bind(&path)
            .map_err(|source| Error::Bind { path: path.clone(), source })?;
        self.hand_over(&path, 0o600, 0o666)?;
        Ok(listener)
    }

    /// Puts a file there for the sandbox to read.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf, Error> {
        let path = self.inner.join(name);
        let written =
            File::create_new(&path).and_then(|mut file| file.write_all(content.as_bytes()));
        written.map_err(|source| Error::Folder { path: path.clone(), source })?;
        self.hand_over(&path, 0o400, 0o444)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path, private: u32, open: u32) -> Result<(), Error> {
        let mode = if self.access == Access::Open { open } else { private };
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|source| Error::Folder { path: path.to_owned(), source })?;
        if let Access::Given(uid, gid) = self.access {
            chown(path, Some(uid), Some(gid)).map_err(|source| Error::Owner {
                path: path.to_owned(),
                uid,
                gid,
                source,
            })?;
        }
        Ok(())
    }

    /// Removes both folders and every socket. Doing it again does nothing.
    pub fn remove(&mut self) -> Result<(), Error> {
        if self.removed {
            return Ok(());
        }
        match fs::remove_dir_all(&self.outer) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Remove { path: self.outer.clone(), source })
            }
            _ => {
                self.removed = true;
                Ok(())
            }
        }
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!("failed to {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("exists").mode() & 0o7777
    }

    #[tokio::test]
    async fn only_we_and_the_sandbox_can_reach_the_sockets() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let outer = temporary.path().join("a/b/run-1");
        let folder = PrivateFolder::create(&outer, None).expect("created");
        let _listener = folder.bind("model.sock").expect("bound");
        assert_eq!(mode(&temporary.path().join("a")), 0o700);
        assert_eq!(mode(&outer), 0o700);
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.path().join("model.sock")), 0o600);
        drop(folder);
        assert!(!outer.exists());
        assert!(temporary.path().join("a/b").exists(), "the parent is shared with other runs");
    }

    #[tokio::test]
    async fn root_gives_the_sockets_to_the_sandbox_and_others_open_them() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let outer = temporary.path().join("run-1");
        let folder = PrivateFolder::create(&outer, Some((12345, 23456))).expect("created");
        let _listener = folder.bind("model.sock").expect("bound");
        let socket = folder.path().join("model.sock");
        let seen = fs::symlink_metadata(&socket).expect("exists");
        if rustix::process::geteuid().is_root() {
            assert_eq!((seen.uid(), seen.gid(), mode(&socket)), (12345, 23456, 0o600));
            assert_eq!(fs::symlink_metadata(folder.path()).expect("exists").uid(), 12345);
            assert_eq!(fs::symlink_metadata(&outer).expect("exists").uid(), 0);
        } else {
            assert_eq!((mode(&socket), mode(folder.path())), (0o666, 0o755));
        }
        assert_eq!(mode(&outer), 0o700);
    }

    #[tokio::test]
    async fn what_was_there_before_is_neither_used_nor_removed() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let mine = temporary.path().join("mine");
        fs::create_dir(&mine).expect("created");
        fs::write(mine.join("precious"), "x").expect("written");
        let link = temporary.path().join("link");
        std::os::unix::fs::symlink(&mine, &link).expect("linked");
        for taken in [&mine, &link] {
            let error = PrivateFolder::create(taken, None).expect_err("taken");
            assert!(error.to_string().starts_with("make the private folder"), "{error}");
        }
        assert!(mine.join("precious").exists());
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_refused_with_the_reason() {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let outer = temporary.path().join("x".repeat(100));
        let folder = PrivateFolder::create(&outer, None).expect("created");
        let error = folder.bind("model.sock").expect_err("too long").to_string();
        assert!(error.contains("107") && error.contains("SANDBOX_MCP_STATE_DIR"), "{error}");
        drop(folder);
        assert!(!outer.exists());
    }
}
