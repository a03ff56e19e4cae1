//! The path of a workspace inside of its sandbox: its own, so that paths in answers, virtual
//! environments and caches of builds are true on both sides.

use std::path::{Path, PathBuf};

use super::{Mount, WORKSPACE};

/// Folders of the image that are closed, made anew for each run, or not a workspace's to cover.
const TAKEN: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home/agent",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt/sandbox",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var/lock",
    "/var/run",
];

/// Longest path of a workspace inside, in bytes: what lies in it must be named as well.
const LONGEST: usize = 1024;

/// Returns the path inside for a workspace at `own` on this machine: `asked`, else its own. Where
/// that cannot be, returns [`WORKSPACE`] and the reason; of a subfolder the path `below` its
/// repository follows. `others` are the sandbox's other mounts.
pub fn place(
    own: &Path,
    below: &Path,
    asked: Option<&Path>,
    others: &[Mount],
) -> (PathBuf, Option<String>) {
    // Without slashes at its end and parts that say nothing.
    let wanted: PathBuf = asked.unwrap_or(own).components().collect();
    let Some(why) = obstacle(&wanted, others) else { return (wanted, None) };
    let whose = if asked.is_some() { "the path in `sandbox.path`" } else { "its own path" };
    let place: PathBuf = Path::new(WORKSPACE).join(below).components().collect();
    let at = place.display();
    let told = format!("inside, the workspace is at {at} and not at {whose}: {why}");
    (place, Some(told))
}

/// The reason why nothing can be mounted at a path inside.
fn obstacle(path: &Path, others: &[Mount]) -> Option<String> {
    let Some(text) = path.to_str() else { return Some("that is not UTF-8".into()) };
    if text.len() > LONGEST {
        return Some(format!("that has more than {LONGEST} bytes"));
    }
    if text.chars().any(char::is_control) || text.contains(':') {
        return Some("that has a colon or a control character".into());
    }
    let taken =
        TAKEN.iter().find(|taken| path.starts_with(taken) || Path::new(taken).starts_with(path));
    if let Some(taken) = taken {
        return Some(format!("{taken} is the sandbox's own"));
    }
    let other = others
        .iter()
        .map(|mount| mount.target.as_path())
        .find(|other| path.starts_with(other) || other.starts_with(path))?;
    Some(format!("{} is mounted there", other.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_has_its_own_path_wherever_that_can_be() {
        let others = [Mount {
            what: "material".into(),
            source: "/material".into(),
            target: "/mnt/material".into(),
            read_only: true,
            overlay: None,
        }];
        let at = |path: &str| place(Path::new(path), Path::new(""), None, &others);
        for own in [
            "/home/ada/project",
            "/home/agent2/project",
            "/srv/a, b/project",
            "/data",
            "/var/tmp/project",
            "/mnt/disk/project",
            "/Users/ada/gr\u{fc}n",
        ] {
            assert_eq!(at(own), (own.into(), None));
        }
        for (taken, why) in [
            ("/tmp/project", "/tmp is"),
            ("/root/project", "/root is"),
            ("/home", "/home/agent is"),
            ("/home/agent/project", "/home/agent is"),
            ("/mnt", "/mnt/material is mounted"),
            ("/mnt/material/project", "/mnt/material is mounted"),
            ("/home/a:b", "a colon"),
            ("/home/a\nb", "a control character"),
        ] {
            let (path, told) = at(taken);
            assert_eq!(path, Path::new(WORKSPACE));
            assert!(told.is_some_and(|told| told.contains(why)), "{taken}");
        }
        let below = place(Path::new("/tmp/mono/a/b"), Path::new("a/b"), None, &others);
        assert_eq!(below.0, Path::new(WORKSPACE).join("a/b"));
        let long = format!("/home/{}", "x".repeat(LONGEST));
        assert_eq!(at(&long).0, Path::new(WORKSPACE));
        let asked = place(
            Path::new("/home/ada/project"),
            Path::new(""),
            Some(Path::new(WORKSPACE)),
            &others,
        );
        assert_eq!(asked, (WORKSPACE.into(), None));
        let (path, told) = place(
            Path::new("/home/ada"),
            Path::new(""),
            Some(Path::new("/data//./here/")),
            &others,
        );
        assert_eq!((path.to_str(), told), (Some("/data/here"), None));
        let (_, told) =
            place(Path::new("/home/ada"), Path::new(""), Some(Path::new("/tmp")), &others);
        assert!(told.is_some_and(|told| told.contains("sandbox.path")));
    }
}
