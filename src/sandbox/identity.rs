//! The user's name inside, for programs that refuse to run without one.

use std::path::Path;

use super::{Mount, User};

/// Writes a `passwd` and a `group` with the sandbox's one user to `folder`, and returns their
/// mounts over the image's.
pub fn identity_mounts(folder: &Path, user: User) -> std::io::Result<Vec<Mount>> {
    let (uid, gid) = (user.uid(), user.gid());
    let root = if uid == 0 { "" } else { "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n" };
    let passwd = format!("{root}agent:x:{uid}:{gid}:agent:/home/agent:/bin/bash\n");
    let group = format!("{}agent:x:{gid}:\n", if gid == 0 { "" } else { "root:x:0:\n" });
    [("passwd", passwd), ("group", group)]
        .into_iter()
        .map(|(name, content)| {
            let source = folder.join(name);
            std::fs::write(&source, content)?;
            Ok(Mount {
                what: format!("generated {name}"),
                source,
                target: Path::new("/etc").join(name),
                read_only: true,
            })
        })
        .collect()
}
