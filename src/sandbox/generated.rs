//! Small files and folders that are made for one run and mounted over others: the user's name,
//! for programs that refuse to run without one, and masks over what the agent must not see.

use std::path::{Path, PathBuf};

use super::{Mount, User};

/// Writes a `passwd` and a `group` with the sandbox's one user to `folder`, and an empty
/// `resolv.conf`, because engines copy the host's even where there is no network; returns their
/// mounts over the image's.
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
    [("passwd", passwd), ("group", group), ("resolv.conf", String::new())]
        .into_iter()
        .map(|(name, content)| {
            let source = folder.join(name);
            std::fs::write(&source, content)?;
            Ok(Mount {
                what: format!("generated {name}"),
                source,
                target: Path::new("/etc").join(name),
                read_only: true,
                overlay: None,
            })
        })
        .collect()
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
