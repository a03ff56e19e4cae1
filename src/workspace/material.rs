//! What besides the workspace an agent may read, if a person configured it.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::refuse::{Ours, refusal};
use super::sockets::sockets_in;
use crate::text::one_line;

/// Why a file or folder is not handed in. The messages complete "`mount` has …".
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    #[error("`{path}`, which cannot be read: {source}")]
    Unreadable { path: String, source: std::io::Error },
    #[error("`{path}`, {why}; name something narrower")]
    Refused { path: String, why: &'static str },
    #[error(
        "`{path}`, which holds the socket `{socket}`: what listens there could be reached even \
         though it is mounted read-only; name a folder without sockets"
    )]
    Socket { path: String, socket: String },
}

/// Checks a path that is to be mounted read-only and returns it without links. `roots` are the
/// folders below which workspaces lie: nothing above them is handed in.
pub fn check_material(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, MaterialError> {
    check(path, roots, &Ours::here())
}

fn check(path: &Path, roots: &[PathBuf], ours: &Ours) -> Result<PathBuf, MaterialError> {
    let shown = one_line(&path.to_string_lossy(), 300);
    let real = path
        .canonicalize()
        .map_err(|source| MaterialError::Unreadable { path: shown.clone(), source })?;
    if let Some(why) = refusal(&real, &real, ours) {
        return Err(MaterialError::Refused { path: shown, why });
    }
    let above = |root: &PathBuf| {
        root.canonicalize().is_ok_and(|root| root != real && root.starts_with(&real))
    };
    if roots.iter().any(above) {
        return Err(MaterialError::Refused { path: shown, why: "above a folder of workspaces" });
    }
    let found = real
        .symlink_metadata()
        .map_err(|source| MaterialError::Unreadable { path: shown.clone(), source })?;
    if found.file_type().is_socket() {
        return Err(MaterialError::Refused { path: shown, why: "a socket" });
    }
    if !found.is_file() && !found.is_dir() {
        return Err(MaterialError::Refused { path: shown, why: "neither a file nor a folder" });
    }
    // The engine could read on our behalf what this user may not.
    rustix::fs::access(&real, rustix::fs::Access::READ_OK)
        .map_err(|errno| MaterialError::Unreadable { path: shown.clone(), source: errno.into() })?;
    if found.is_dir()
        && let Some(socket) = sockets_in(&real).0.into_iter().next()
    {
        let socket = one_line(&socket.to_string_lossy(), 200);
        return Err(MaterialError::Socket { path: shown, socket });
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn folders_and_files_pass_and_links_are_resolved() {
        let place = tempfile::tempdir().expect("temp");
        let real = place.path().canonicalize().expect("real");
        let folder = real.join("reference");
        fs::create_dir(&folder).expect("folder");
        fs::write(folder.join("a.md"), "text").expect("file");
        std::os::unix::fs::symlink(&folder, real.join("link")).expect("link");
        let passed = |name: &str| check(&real.join(name), &[], &Ours::default()).expect(name);
        assert_eq!(passed("reference"), folder);
        assert_eq!(passed("link"), folder);
        assert_eq!(passed("reference/a.md"), folder.join("a.md"));
    }

    #[test]
    fn what_would_open_more_than_it_says_is_refused() {
        let place = tempfile::tempdir().expect("temp");
        let real = place.path().canonicalize().expect("real");
        let folder = real.join("services");
        fs::create_dir_all(folder.join("deep")).expect("folder");
        let _listener =
            std::os::unix::net::UnixListener::bind(folder.join("deep/engine.sock")).expect("bound");
        let refused = |path: &Path, roots: &[PathBuf]| {
            check(path, roots, &Ours::default()).expect_err("refused").to_string()
        };
        assert!(refused(&folder, &[]).contains("holds the socket `deep/engine.sock`"));
        assert!(refused(&folder.join("deep/engine.sock"), &[]).contains("a socket"));
        assert!(refused(&real, &[folder]).contains("above a folder of workspaces"));
        assert!(refused(&real.join("absent"), &[]).contains("cannot be read"));
        for system in ["/", "/etc", "/etc/passwd", "/run", "/var/run/docker.sock", "/tmp", "/root"]
        {
            if Path::new(system).exists() {
                refused(Path::new(system), &[]);
            }
        }
    }
}
