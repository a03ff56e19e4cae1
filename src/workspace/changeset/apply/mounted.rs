//! Files that are mounted by themselves, as compose files do it with settings: whoever mounted one
//! keeps the old file when another takes its place.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace::mounts::mounts;

/// Longest list of mounts that is read.
const LARGEST: usize = 1 << 20;

/// Returns those of some files, by their paths in a workspace, that are mounted somewhere, in any
/// container that this process may see.
pub(super) fn mounted(workspace: &Path, files: &HashSet<&Path>) -> BTreeSet<PathBuf> {
    let own = fs::read("/proc/self/mountinfo").unwrap_or_default();
    if files.is_empty() {
        return BTreeSet::new();
    }
    let mut lists: HashSet<Vec<u8>> = HashSet::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if process.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)
            && let Ok(list) = fs::read(process.path().join("mountinfo"))
            && list.len() <= LARGEST
        {
            lists.insert(list);
        }
    }
    lists.iter().flat_map(|list| among(&own, list, workspace, files)).collect()
}

/// Returns those of the files that a list of mounts has, where `own` is our own list.
fn among(own: &[u8], list: &[u8], workspace: &Path, files: &HashSet<&Path>) -> Vec<PathBuf> {
    let around = mounts(own).filter(|mount| workspace.starts_with(&mount.place));
    // Of two in one place the later one covers the other.
    let Some(around) = around.max_by_key(|mount| mount.place.as_os_str().len()) else {
        return Vec::new();
    };
    let Ok(below) = workspace.strip_prefix(&around.place) else { return Vec::new() };
    let base = around.root.join(below);
    let same = mounts(list).filter(|mount| mount.device == around.device);
    let files = same.filter_map(|mount| {
        let path = mount.root.strip_prefix(&base).ok()?;
        files.contains(path).then(|| path.to_owned())
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
        30 22 8:2 /home /home rw shared:1 - ext4 /dev/sda2 rw\n\
        31 30 0:40 / /home/ada/other rw - tmpfs tmpfs rw\n";

    #[test]
    fn a_file_is_known_by_its_place_in_its_file_system() {
        let theirs = "90 80 8:2 /home/ada/p/nginx\\040x.conf /etc/nginx.conf rw - ext4 /dev/sda2 rw\n\
            91 80 8:1 /home/ada/p/a /a rw - ext4 /dev/sda1 rw\n\
            92 80 8:2 /home/ada/p/deep /deep rw - ext4 /dev/sda2 rw\n\
            93 80 8:2 /home/ada/q/a /q rw - ext4 /dev/sda2 rw\nodd\n";
        let files = ["nginx x.conf", "a", "deep/b"].map(Path::new).into();
        let found = among(OWN.as_bytes(), theirs.as_bytes(), Path::new("/home/ada/p"), &files);
        assert_eq!(found, [Path::new("nginx x.conf")]);
        let other = among(OWN.as_bytes(), theirs.as_bytes(), Path::new("/home/ada/other"), &files);
        assert!(other.is_empty());
    }

    #[test]
    fn nothing_of_a_folder_of_ours_is_mounted() {
        let folder = tempfile::tempdir().expect("temp");
        fs::write(folder.path().join("a"), "1").expect("written");
        let files = [Path::new("a")].into();
        assert!(mounted(&folder.path().canonicalize().expect("real"), &files).is_empty());
    }
}
