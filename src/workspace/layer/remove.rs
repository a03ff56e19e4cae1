//! Removing a layer, as far as that is ours to do.
//!
//! The kernel makes a folder inside of an overlay's work folder that belongs to root, and may leave
//! a mark of a deletion in it. Who is not root cannot remove that. It is put aside for the next
//! run: the kernel cleans it when it is mounted again.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::{SPARE, WORK};
use crate::workspace::Owner;
use crate::workspace::remove::remove as remove_from;
use crate::workspace::walk::open_root;

/// More than this are not of use to anybody at the same time.
const MOST_SPARE: usize = 64;

pub(super) fn remove(folder: &Path) -> io::Result<()> {
    let (Some(layers), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let work = folder.join(WORK);
    let opened = match open_root(folder) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    // Root's, and shut; as long as it is empty, the owner of what it lies in may remove it.
    let inner = fs::remove_dir(work.join(WORK));
    if let Err(error) = inner
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!("the inner work folder stays: {error}");
    }
    if work.symlink_metadata().is_ok() && remove_from(opened.as_fd(), OsStr::new(WORK)).is_err() {
        park(&work, &layers.join(SPARE), name)?;
    }
    let layers = open_root(layers)?;
    Ok(remove_from(layers.as_fd(), name)?)
}

fn park(work: &Path, spare: &Path, name: &OsStr) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(spare)?;
    fs::rename(work, spare.join(name))
}

/// Moves a work folder that was put aside to `work`; false where there is none.
pub(super) fn take_spare(spare: &Path, work: &Path, owner: Owner) -> bool {
    let entries = fs::read_dir(spare).into_iter().flatten().flatten().take(MOST_SPARE);
    // Renaming is taking: of two at once one finds it gone.
    let usable = |path: &Path| path.symlink_metadata().is_ok_and(|it| it.uid() == owner.uid);
    entries.map(|entry| entry.path()).any(|path| usable(&path) && fs::rename(&path, work).is_ok())
}
