//! Removing a folder in which an agent has made whatever it wanted.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes a folder and all below it, which nobody may change meanwhile. Folders that are shut are
/// opened. What lies in a folder of it is moved up first, so that a chain of ten thousand folders,
/// whose name no kernel takes, needs neither as many descriptors nor as much of the stack.
pub fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    loop {
        let mut folders = 0;
        for entry in open(top)? {
            let path = entry?.path();
            if !is_folder(&path)? {
                fs::remove_file(&path)?;
                continue;
            }
            folders += 1;
            for inner in open(&path)? {
                let inner = inner?.path();
                if is_folder(&inner)? {
                    // Nobody moves what may not be written to: its entry `..` changes.
                    unlock(&inner)?;
                    move_up(&inner, top, &mut moved)?;
                } else {
                    fs::remove_file(&inner)?;
                }
            }
            fs::remove_dir(&path)?;
        }
        if folders == 0 {
            return fs::remove_dir(top);
        }
    }
}

fn open(folder: &Path) -> io::Result<fs::ReadDir> {
    unlock(folder)?;
    fs::read_dir(folder)
}

fn unlock(folder: &Path) -> io::Result<()> {
    let mode = folder.symlink_metadata()?.permissions().mode();
    if mode & 0o700 == 0o700 {
        return Ok(());
    }
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

fn is_folder(path: &Path) -> io::Result<bool> {
    Ok(path.symlink_metadata()?.is_dir())
}

fn move_up(folder: &Path, top: &Path, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match fs::rename(folder, top.join(format!(".up-{moved}"))) {
            // Something else has this name already.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty
                        | ErrorKind::AlreadyExists
                        | ErrorKind::NotADirectory
                ) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags};

    use super::*;

    #[test]
    fn whatever_an_agent_made_goes_and_nothing_else() {
        let keep = tempfile::tempdir().expect("temp");
        let (top, other) = (keep.path().join("top"), keep.path().join("other"));
        for folder in [&top, &other] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("file"), "1").expect("written");
        }
        for folder in ["shut/in/deep", "shut/two", ".up-2/x", "wide/a", "wide/b"] {
            fs::create_dir_all(top.join(folder)).expect("made");
            fs::write(top.join(folder).join("file"), "1").expect("written");
        }
        fs::write(top.join(".up-1"), "in the way").expect("written");
        std::os::unix::fs::symlink(&other, top.join("link")).expect("link");
        std::os::unix::fs::symlink(&other, top.join("wide/link")).expect("link");
        for shut in ["shut/in", "shut"] {
            fs::set_permissions(top.join(shut), Permissions::from_mode(0o000)).expect("shut");
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut at = rustix::fs::openat(CWD, &top, flags, Mode::empty()).expect("opened");
        for _ in 0..10_000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("made");
            at = rustix::fs::openat(&at, "d", flags, Mode::empty()).expect("opened");
        }
        drop(at);
        remove_tree(&top).expect("removed");
        assert!(!top.exists());
        assert_eq!(fs::read_to_string(other.join("file")).expect("stays"), "1");
    }
}
