//! A folder to work in, owned by a person who is not root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary workspace; its folder goes when it is dropped.
pub struct Workspace {
    root: TempDir,
}

impl Workspace {
    pub fn new() -> Self {
        Self::named("/tmp", "sw-")
    }

    /// One in another folder, with the beginning of its name.
    pub fn named(folder: &str, prefix: &str) -> Self {
        let root = tempfile::Builder::new().prefix(prefix).tempdir_in(folder).expect("a folder");
        let workspace = Self { root };
        own(workspace.path());
        workspace
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file as the workspace's owner would, making its folders.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        let mut folder = path.parent().expect("a file has a folder");
        std::fs::create_dir_all(folder).expect("folders");
        while folder != self.path() {
            own(folder);
            folder = folder.parent().expect("below the workspace");
        }
        std::fs::write(&path, text).expect("a file");
        own(&path);
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let path = self.at(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn has(&self, name: &str) -> bool {
        self.at(name).symlink_metadata().is_ok()
    }

    /// Makes everything inside the owner's, such as what the tester's own git has made.
    pub fn hand_over(&self) {
        let (uid, gid) = self.owner();
        walk(self.path(), &mut |path| lchown(path, Some(uid), Some(gid)).expect("chown"));
    }

    /// Names of everything inside, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        walk(self.path(), &mut |path| {
            let name = path.strip_prefix(self.path()).expect("below the workspace");
            names.push(name.display().to_string());
        });
        names.sort();
        names
    }

    /// uid and gid of whom the workspace belongs to.
    pub fn owner(&self) -> (u32, u32) {
        let meta = std::fs::metadata(self.path()).expect("the workspace");
        (meta.uid(), meta.gid())
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

/// The uid and gid of the person: the tester, or 1000 where the tester is root.
pub fn person() -> (u32, u32) {
    match std::fs::metadata("/proc/self").map(|meta| (meta.uid(), meta.gid())).expect("/proc") {
        (0, _) => (1000, 1000),
        person => person,
    }
}

fn own(path: &Path) {
    let (uid, gid) = person();
    chown(path, Some(uid), Some(gid)).expect("chown");
    if path.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
}

/// Calls `see` for everything below `folder`, following no symlink.
pub fn walk(folder: &Path, see: &mut impl FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        see(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, see);
        }
    }
}

/// The umask of this process, which the product inherits.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).expect("a umask");
    u32::from_str_radix(line.trim(), 8).expect("octal")
}
