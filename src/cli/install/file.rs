//! Somebody else's settings file, read and replaced as a whole.
//!
//! It may be a link into a folder of dotfiles, belong to another user, or be written by its client
//! at the same moment. Whoever opens it sees the old content or the new one, and content that
//! nobody has seen is never lost.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::NamedTempFile;

/// Larger than any settings file; Claude Code's own grows to some megabytes.
const LARGEST: u64 = 64 << 20;
/// What a backup's name ends in.
const BACKUP: &str = ".sandbox-mcp.bak";

/// Completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("use {}: it is {what}", path.display())]
    Unfit { path: PathBuf, what: &'static str },
    #[error("write {}: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    #[error("write {}: somebody else has just changed it, and nothing was done; close the client and try again", path.display())]
    Changed { path: PathBuf },
}

/// How a file that is not there yet is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// In a home folder, where settings hold keys.
    Private,
    /// In a project, where it is one file among others.
    Shared,
}

/// A file as it was when it was read.
#[derive(Debug)]
pub struct Settings {
    /// Behind all links.
    path: PathBuf,
    before: Option<(Vec<u8>, Metadata)>,
}

impl Settings {
    pub fn read(path: &Path) -> Result<Self, Error> {
        let path = target(path)?;
        let before = content(&path)?;
        if let Some((_, found)) = &before {
            let unfit = |what| Err(Error::Unfit { path: path.clone(), what });
            if found.nlink() > 1 {
                return unfit("one of several names of a file, which replacing it would part");
            }
        }
        Ok(Self { path, before })
    }

    /// A project's file, which may come from anybody: its links must not lead out of the project.
    pub fn read_within(path: &Path, folder: &Path) -> Result<Self, Error> {
        let settings = Self::read(path)?;
        if settings.path.starts_with(target(folder)?) {
            Ok(settings)
        } else {
            Err(Error::Unfit {
                path: path.to_owned(),
                what: "a link that leads out of the project",
            })
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// None where there is no such file.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.before.as_ref().map(|(bytes, _)| bytes.as_slice())
    }

    pub fn backup_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(BACKUP);
        name.into()
    }

    /// Keeps the content as it was. `over` says that it is worth more than an earlier backup.
    /// Answers where, unless an earlier one was left.
    pub fn back_up(&self, over: bool) -> Result<Option<PathBuf>, Error> {
        let Some((bytes, found)) = &self.before else { return Ok(None) };
        let backup = self.backup_path();
        // Not followed where it is a link: whoever made that did not mean us.
        if fs::symlink_metadata(&backup).is_ok() && !over {
            return Ok(None);
        }
        let partial = self.beside(bytes, Some(found), Visibility::Private)?;
        partial.persist(&backup).map_err(|error| unwritable(&backup, error.error))?;
        Ok(Some(backup))
    }

    /// Puts `new` in the place of what was read.
    pub fn replace(&self, new: &[u8], visibility: Visibility) -> Result<(), Error> {
        let path = &self.path;
        let changed = || Error::Changed { path: path.clone() };
        if let Some((_, found)) = &self.before {
            // As root every file can be written; that its owner forbade it still counts.
            if found.mode() & 0o222 == 0 {
                return Err(Error::Unfit { path: path.clone(), what: "read-only" });
            }
        } else if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|source| unwritable(path, source))?;
        }
        let found = self.before.as_ref().map(|(_, found)| found);
        let partial = self.beside(new, found, visibility)?;
        let Some((before, _)) = &self.before else {
            return match partial.persist_noclobber(path) {
                Ok(_) => Ok(()),
                Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Err(changed()),
                Err(error) => Err(unwritable(path, error.error)),
            };
        };
        let is_same =
            |at: &Path| content(at).is_ok_and(|now| now.is_some_and(|(bytes, _)| bytes == *before));
        if !is_same(path) {
            return Err(changed());
        }
        // The two change places in one step, so that what somebody wrote since is still in hand.
        match renameat_with(CWD, partial.path(), CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) if is_same(partial.path()) => {}
            Ok(()) => {
                let back = renameat_with(CWD, partial.path(), CWD, path, RenameFlags::EXCHANGE);
                back.map_err(|errno| unwritable(path, errno.into()))?;
                return Err(changed());
            }
            // File systems that cannot (NFS, FUSE) leave a moment in which nothing is noticed.
            Err(
                rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP,
            ) => {
                partial.persist(path).map_err(|error| unwritable(path, error.error))?;
            }
            Err(errno) => return Err(unwritable(path, errno.into())),
        }
        crate::files::sync_folder_of(path).map_err(|source| unwritable(path, source))
    }

    /// A whole file in the same folder, with the owner and mode of the one it is for.
    fn beside(
        &self,
        bytes: &[u8],
        like: Option<&Metadata>,
        visibility: Visibility,
    ) -> Result<NamedTempFile, Error> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let make = || -> io::Result<NamedTempFile> {
            let mut new = tempfile::Builder::new();
            new.prefix(".sandbox-mcp-");
            if like.is_none() && visibility == Visibility::Shared {
                // What the umask leaves of it.
                new.permissions(fs::Permissions::from_mode(0o666));
            }
            let mut file = new.tempfile_in(folder)?;
            file.write_all(bytes)?;
            if let Some(like) = like {
                let made = file.as_file().metadata()?;
                if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
                    std::os::unix::fs::fchown(file.as_file(), Some(like.uid()), Some(like.gid()))?;
                }
                let permissions = fs::Permissions::from_mode(like.mode() & 0o7777);
                file.as_file().set_permissions(permissions)?;
            }
            file.as_file().sync_all()?;
            Ok(file)
        };
        make().map_err(|source| unwritable(&self.path, source))
    }
}

fn unwritable(path: &Path, source: io::Error) -> Error {
    Error::Unwritable { path: path.to_owned(), source }
}

/// Where a path leads, also where the last name is not there yet.
pub fn target(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Unreadable { path: path.to_owned(), source };
    match path.canonicalize() {
        Ok(path) => return Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return Err(Error::Unfit { path: path.to_owned(), what: "a link that leads nowhere" });
    }
    // The nearest folder that is there, so that a link further up is followed.
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_owned());
    };
    Ok(target(folder)?.join(name))
}

fn content(path: &Path) -> Result<Option<(Vec<u8>, Metadata)>, Error> {
    let unfit = |what| Err(Error::Unfit { path: path.to_owned(), what });
    let failed = |source| Error::Unreadable { path: path.to_owned(), source };
    // A pipe must not hold us up.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return unfit("not a file");
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return unfit("too large for a settings file");
    }
    Ok(Some((bytes, found)))
}
