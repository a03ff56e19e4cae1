//! Protected files that can be reached by another name.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType};

use super::place::{Kind, Protected};
use super::walk::{Entry, Limits, Visitor, open_folder, walk};

/// How much to look at in each protected folder, and how long in all of them.
const ENTRIES: usize = 5_000;
const TIME: Duration = Duration::from_millis(200);

/// Most names that are told.
const MOST: usize = 16;

/// Files in `places` that have more than one name, as far as a short look finds them. Links made *during* a run are not possible:
/// the kernel makes none across the border of a mount.
pub(super) fn linked(root: BorrowedFd<'_>, places: &[Protected]) -> Vec<PathBuf> {
    let started = Instant::now();
    let mut found = Vec::new();
    for place in places {
        let relative = place.relative();
        match place.kind() {
            Kind::File if has_more_names(root, relative) => found.push(relative.to_owned()),
            Kind::File => {}
            Kind::Dir => {
                if let Ok(folder) = open_folder(root, relative) {
                    let time = TIME.saturating_sub(started.elapsed());
                    let limits = Limits { entries: ENTRIES, time };
                    walk(folder.as_fd(), limits, &mut Links { base: relative, found: &mut found });
                }
            }
        }
        if found.len() >= MOST {
            break;
        }
    }
    found.truncate(MOST);
    found
}

fn has_more_names(root: BorrowedFd<'_>, file: &Path) -> bool {
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else { return false };
    open_folder(root, folder)
        .and_then(|folder| rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW))
        .is_ok_and(|found| found.st_nlink > 1)
}

struct Links<'a> {
    base: &'a Path,
    found: &'a mut Vec<PathBuf>,
}

impl Visitor for Links<'_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if entry.is_dir() {
            // Objects are named by their content, and `git clone` links them by design.
            return entry.name != "objects";
        }
        let several = entry.kind() == FileType::RegularFile
            && entry.stat().is_some_and(|stat| stat.st_nlink > 1);
        if several && self.found.len() < MOST {
            self.found.push(self.base.join(folder).join(entry.name));
        }
        false
    }
}
