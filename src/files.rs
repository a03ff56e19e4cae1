//! Small private files, written as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use serde::Serialize;

/// Whether what was written has to outlive a loss of power at the next moment. It costs a wait for
/// the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Lazy,
    Durable,
}

/// Writes JSON that only we read. Whoever opens the file sees the old content or the new one.
pub fn write_json(path: &Path, value: &impl Serialize, durability: Durability) -> io::Result<()> {
    let mut content = serde_json::to_vec_pretty(value)?;
    content.push(b'\n');
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let mut file = new_private(&partial)?;
    file.write_all(&content)?;
    if durability == Durability::Durable {
        file.sync_all()?;
    }
    fs::rename(&partial, path)?;
    match durability {
        Durability::Lazy => Ok(()),
        Durability::Durable => sync_folder_of(path),
    }
}

/// A new file in the place of whatever a crash left there.
pub fn new_private(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().create_new(true).write(true).mode(0o600).open(path)
}

/// A private file, made where it is not there yet and never through a link, that only who has its
/// lock may go by; none where somebody else has it.
pub fn open_locked(path: &Path, how: FlockOperation) -> io::Result<Option<File>> {
    let file = lockable().create(true).truncate(false).open(path)?;
    Ok(try_lock(&file, how)?.then_some(file))
}

/// How a file is opened that has a lock.
pub fn lockable() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = (OFlags::NOFOLLOW | OFlags::CLOEXEC).bits().cast_signed();
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    options
}

/// Takes the lock of an open file or folder, unless somebody else has it.
pub fn try_lock(file: impl AsFd, how: FlockOperation) -> io::Result<bool> {
    match rustix::fs::flock(file, how) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes the names in a file's folder outlive a loss of power.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_file_is_private_and_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("a.json");
        for (durability, number) in [(Durability::Lazy, 1), (Durability::Durable, 2)] {
            // As a crash may leave it, readable by all.
            fs::write(folder.path().join("a.json.partial"), "hal").expect("written");
            write_json(&path, &number, durability).expect("written");
            assert_eq!(fs::read_to_string(&path).expect("there"), format!("{number}\n"));
            assert_eq!(path.metadata().expect("there").mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path()).expect("folder").count(), 1);
        let nowhere = folder.path().join("none/a.json");
        assert!(write_json(&nowhere, &1, Durability::Lazy).is_err());
    }
}
