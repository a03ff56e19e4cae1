//! Which files other processes have open for writing.
//!
//! The kernel's own word on that, a lease, is not to be had without unsafe code. What is open shows
//! in `/proc` as well, for the processes that we may look at.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

/// Those of some files, by device and inode, that another process may write to.
pub(super) fn written_to(files: &HashSet<(u64, u64)>) -> HashSet<(u64, u64)> {
    let mut found = HashSet::new();
    if files.is_empty() {
        return found;
    }
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        name != own.as_str() && name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
    });
    for process in processes {
        // What we may not look at, or what has ended, tells nothing.
        for open in std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            // The link's own permissions say how the file was opened.
            let writes = open.metadata().is_ok_and(|link| link.mode() & 0o200 != 0);
            if writes && let Ok(file) = std::fs::metadata(open.path()) {
                found.extend(files.get(&(file.dev(), file.ino())));
            }
        }
    }
    found
}
