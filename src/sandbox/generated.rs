//! Small files and folders that are made for one run and mounted over others: the user's name,
//! for programs that refuse to run without one, and masks over what the agent must not see.

use std::path::{Path, PathBuf};

use super::policy::HOSTNAME;
use super::{Mount, User};

/// The names of a sandbox that has no network.
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";

/// Writes files for `/etc` to `folder`, and returns their mounts over the image's: `passwd` and
/// `group` with the sandbox's one user; `hosts`, `hostname` and an empty `resolv.conf`, because
/// engines copy the machine's even where there is no network.
pub fn identity_mounts(folder: &Path, user: User) -> std::io::Result<Vec<Mount>> {
    let (uid, gid) = (user.uid(), user.gid());
    let root = if uid == 0 { "" } else { "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n" };
    let passwd = format!("{root}agent:x:{uid}:{gid}:agent:/home/agent:/bin/bash\n");
    let shared = user.shared().map(|gid| format!("workspace:x:{gid}:agent\n"));
    let group = format!(
        "{}agent:x:{gid}:\n{}",
        if gid == 0 { "" } else { "root:x:0:\n" },
        shared.unwrap_or_default()
    );
    let contents = [passwd, group, HOSTS.into(), format!("{HOSTNAME}\n"), String::new()];
    let mut mounts = generated(folder);
    for (mount, content) in mounts.iter_mut().zip(contents) {
        std::fs::write(&mount.source, content)?;
    }
    Ok(mounts)
}

/// The mounts of the files that a run makes for `/etc`, from `folder`.
pub fn generated(folder: &Path) -> Vec<Mount> {
    let mount = |name: &&str| Mount {
        what: format!("generated {name}"),
        source: folder.join(name),
        target: Path::new("/etc").join(name),
        read_only: true,
        overlay: None,
    };
    ["passwd", "group", "hosts", "hostname", "resolv.conf"].iter().map(mount).collect()
}

/// The mount of nothing over one place of the workspace: an empty folder, or an empty JSON object
/// for a file, because what reads such a file expects JSON.
pub fn mask_mount(folder: &Path, target: PathBuf, is_folder: bool) -> std::io::Result<Mount> {
    let source = folder.join(if is_folder { "masked" } else { "masked.json" });
    if is_folder {
        std::fs::create_dir_all(&source)?;
    } else {
        std::fs::write(&source, "{}\n")?;
    }
    Ok(Mount { what: "hidden".into(), source, target, read_only: true, overlay: None })
}
