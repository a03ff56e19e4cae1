//! What is really mounted in a workspace: held against the policy before the agent starts, and
//! held on to while it works.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mount, Overlay, Policy, Receipt};
use crate::text::one_line;

/// A mount point and the file or folder that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MountSeen {
    pub path: String,
    pub device: Option<u64>,
    pub inode: Option<u64>,
    /// The file system's type; an old image does not say.
    #[serde(default)]
    pub kind: String,
    /// Its options, without those that are the kernel's defaults.
    #[serde(default)]
    pub options: String,
    /// Some of the names in an overlay and their inodes, which are those of the folder below it.
    #[serde(default)]
    pub entries: Vec<(String, u64)>,
}

impl Receipt {
    /// Each mount in the workspace that is not the file or folder which has its name on the host.
    /// The engine follows links in a name, and whoever else may write there can put one at any
    /// moment before it looks.
    pub fn misplaced(&self, policy: &Policy) -> Vec<String> {
        let wrong = self.elsewhere(policy);
        wrong
            .into_iter()
            .map(|mount| {
                let target = one_line(&mount.target.to_string_lossy(), 200);
                format!("what is mounted at {target} is not what was meant: it was replaced")
            })
            .collect()
    }

    fn elsewhere<'a>(&self, policy: &'a Policy) -> Vec<&'a Mount> {
        let below = |mount: &&Mount| mount.target.starts_with(&policy.workspace);
        let same = |mount: &&Mount| {
            let target = mount.target.to_string_lossy();
            let seen = self.workspace_mounts.iter().rev().find(|seen| seen.path == target);
            if let Some(overlay) = &mount.overlay {
                let covered = |name: &str| {
                    policy.mounts.iter().any(|other| other.target == mount.target.join(name))
                };
                return seen.is_some_and(|seen| self.is_view(seen, mount, overlay, &covered));
            }
            let seen = seen.and_then(|seen| seen.device.zip(seen.inode));
            // Names of this machine mean nothing there, and nobody else writes to the copies.
            if policy.is_copied {
                return seen.is_some();
            }
            // gVisor has numbers of its own: only that there is no link on the way can be told.
            let meant = identity(&mount.source);
            seen.is_some() && meant.is_some() && (seen == meant || self.gvisor)
        };
        policy.mounts.iter().filter(below).filter(|mount| !same(mount)).collect()
    }

    /// Whether an overlay is the one that was meant. Its root has the inode of its upper folder, and
    /// what lies in it, before anything was changed, those of the folder below; its device is its
    /// own. The engine followed a name to the folder below, so that is what must be compared.
    fn is_view(
        &self,
        seen: &MountSeen,
        mount: &Mount,
        overlay: &Overlay,
        covered: &dyn Fn(&str) -> bool,
    ) -> bool {
        if !self.gvisor {
            let upper = identity(&overlay.upper).map(|(_, inode)| inode);
            let same = |inode: u64| upper.is_some_and(|upper| inode & LOW == upper & LOW);
            if seen.kind != "overlay" || !seen.inode.is_some_and(same) || !is_complete(seen) {
                return false;
            }
        }
        // Opened once, so that what is compared is one folder.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(below) = rustix::fs::open(&mount.source, flags, Mode::empty()) else { return false };
        let meant = rustix::fs::fstat(&below).ok().map(|stat| (stat.st_dev, stat.st_ino));
        if meant.is_none() || meant != identity(&mount.source) {
            return false;
        }
        let inode_of = |name: &str| {
            let stat = rustix::fs::statat(&below, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
            Some(stat.st_ino & LOW)
        };
        // What the layer has under a name is the run's own: a sandbox that looks at it after a crash
        // must not take it for another folder's. Before a run it has nothing.
        let covered =
            |name: &str| covered(name) || overlay.upper.join(name).symlink_metadata().is_ok();
        let shown: Vec<_> = seen.entries.iter().filter(|(name, _)| !covered(name)).collect();
        if shown.is_empty() {
            return is_empty_but_for(&below, &covered);
        }
        // A name that is gone was removed just now, or was never there.
        let there = shown.iter().filter_map(|(name, inode)| {
            let ours = inode_of(name)?;
            Some(self.gvisor || ours == inode & LOW)
        });
        let (same, other): (Vec<_>, Vec<_>) = there.partition(|same| *same);
        !same.is_empty() && other.is_empty()
    }
}

/// An overlay over two file systems has the layer's number in the upper bits of its inodes.
const LOW: u64 = 0xffff_ffff;

/// Whether an overlay has the options that it was mounted with: a kernel that cannot have one takes
/// another without a word.
fn is_complete(seen: &MountSeen) -> bool {
    let wanted =
        [("redirect_dir", "on"), ("metacopy", "off"), ("index", "off"), ("nfs_export", "off")];
    wanted.iter().all(|(name, wanted)| {
        let shown = seen
            .options
            .split(',')
            .find_map(|option| option.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')));
        let value = shown.map(str::to_owned).or_else(|| {
            let default = std::fs::read(format!("/sys/module/overlay/parameters/{name}")).ok()?;
            Some(if default.starts_with(b"Y") { "on" } else { "off" }.to_owned())
        });
        value.is_none_or(|value| value == *wanted)
    })
}

/// Whether a folder has nothing that the guest would tell of: it leaves out names that could be read
/// differently.
fn is_empty_but_for(folder: &OwnedFd, covered: &dyn Fn(&str) -> bool) -> bool {
    let Ok(entries) = rustix::fs::Dir::read_from(folder) else { return false };
    entries.flatten().all(|entry| {
        let name = entry.file_name().to_bytes();
        let is_plain = name.iter().all(u8::is_ascii_graphic);
        !is_plain || [&b"."[..], b".."].contains(&name) || covered(&String::from_utf8_lossy(name))
    })
}

/// Device and inode of what has this name; none where a link is part of it.
fn identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, ResolveFlags, openat2};
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Ok(file) => {
                let stat = rustix::fs::fstat(file).ok()?;
                return Some((stat.st_dev, stat.st_ino));
            }
            Err(rustix::io::Errno::NOSYS) => {}
            Err(_) => return None,
        }
    }
    let real = path.canonicalize().is_ok_and(|real| real == path);
    let meta = path.symlink_metadata().ok().filter(|meta| real && !meta.is_symlink())?;
    Some((meta.dev(), meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::WORKSPACE;
    use crate::sandbox::receipt::tests::{good, policy};

    #[test]
    fn a_mount_of_something_else_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let (meant, other) = (root.join("meant"), root.join("other"));
        for folder in [&meant, &other] {
            std::fs::create_dir(folder).expect("a folder");
        }
        std::os::unix::fs::symlink(&other, root.join("link")).expect("a link");
        let seen = |path: &Path| {
            let meta = path.metadata().expect("it exists");
            let path = format!("{WORKSPACE}/.git");
            let (device, inode) = (Some(meta.dev()), Some(meta.ino()));
            let (kind, options) = (String::new(), String::new());
            MountSeen { path, device, inode, kind, options, entries: Vec::new() }
        };
        let misplaced = |source: &Path, seen: Vec<MountSeen>| {
            let mount = Mount {
                what: "protected".into(),
                source: source.to_owned(),
                target: Path::new(WORKSPACE).join(".git"),
                read_only: true,
                overlay: None,
            };
            let policy = Policy { mounts: vec![mount], ..policy() };
            let receipt = Receipt { workspace_mounts: seen, ..good(&policy) };
            receipt.misplaced(&policy).len()
        };
        assert_eq!(misplaced(&meant, vec![seen(&meant)]), 0);
        assert_eq!(misplaced(&meant, vec![seen(&other)]), 1, "replaced before the mount");
        assert_eq!(misplaced(&root.join("link"), vec![seen(&other)]), 1, "still a link");
        assert_eq!(misplaced(&root.join("gone"), vec![seen(&other)]), 1);
        assert_eq!(misplaced(&meant, vec![]), 1, "an image that does not say");
        let unknown = MountSeen { device: None, ..seen(&meant) };
        assert_eq!(misplaced(&meant, vec![unknown]), 1);
    }

    #[test]
    fn a_view_of_something_else_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        let (below, other, upper) = (root.join("below"), root.join("other"), root.join("upper"));
        for folder in [&below, &other, &upper] {
            std::fs::create_dir(folder).expect("a folder");
        }
        let inode = |path: &Path| path.symlink_metadata().expect("it exists").ino();
        let misplaced = |source: &Path, kind: &str, top: &Path, entries: Vec<(String, u64)>| {
            let overlay =
                Overlay { volume: "v".into(), upper: upper.clone(), work: root.join("work") };
            let mount = Policy::overlay_mount(source.to_owned(), WORKSPACE.into(), overlay);
            let policy = Policy { mounts: vec![mount], ..policy() };
            let (path, device) = (WORKSPACE.into(), Some(1));
            let inode = Some(inode(top));
            let options = "rw,redirect_dir=on".into();
            let seen = MountSeen { path, device, inode, kind: kind.into(), options, entries };
            let receipt = Receipt { workspace_mounts: vec![seen], ..good(&policy) };
            receipt.misplaced(&policy).len()
        };
        assert_eq!(misplaced(&below, "overlay", &upper, vec![]), 0, "an empty one");
        for folder in [&below, &other] {
            std::fs::write(folder.join("a"), "").expect("a file");
        }
        std::os::unix::fs::symlink(&below, root.join("link")).expect("a link");
        let a = |folder: &Path| ("a".to_owned(), inode(&folder.join("a")));
        let gone = || ("gone".to_owned(), 1);
        assert_eq!(misplaced(&below, "overlay", &upper, vec![a(&below)]), 0);
        assert_eq!(misplaced(&below, "overlay", &upper, vec![gone(), a(&below)]), 0);
        assert_eq!(misplaced(&below, "overlay", &upper, vec![a(&other)]), 1, "another folder");
        assert_eq!(misplaced(&below, "overlay", &upper, vec![gone()]), 1, "nothing in common");
        assert_eq!(misplaced(&below, "overlay", &upper, vec![]), 1, "an image that does not say");
        assert_eq!(misplaced(&below, "overlay", &other, vec![a(&below)]), 1, "another upper");
        assert_eq!(misplaced(&below, "ext4", &upper, vec![a(&below)]), 1, "no overlay at all");
        std::fs::write(upper.join("a"), "").expect("the run's own");
        let its_own = || ("a".to_owned(), inode(&upper.join("a")));
        assert_eq!(misplaced(&below, "overlay", &upper, vec![its_own()]), 0, "after a crash");
        std::fs::write(below.join("b"), "").expect("a file");
        let b = |inode| ("b".to_owned(), inode);
        assert_eq!(misplaced(&below, "overlay", &upper, vec![its_own(), b(1)]), 1);
        let link = root.join("link");
        assert_eq!(misplaced(&link, "overlay", &upper, vec![a(&below)]), 1, "by a link");
    }
}
