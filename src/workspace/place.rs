//! Single places of a workspace, looked at without following any link on the way.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::WorkspacePath;
use super::walk::{open_folder, open_root};

/// A file or folder that is what it seems: no symbolic link is on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Relative to the workspace.
    pub relative: PathBuf,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Dir,
}

/// A symbolic link, a device, a FIFO or a socket where settings of the agent would be. Nothing can be
/// mounted over it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` in the workspace is {what}, so it cannot be hidden from the agent; replace it with a real file or folder, or use another mode than read-only",
    crate::text::one_line(&.relative.to_string_lossy(), 200)
)]
pub struct Obstacle {
    pub relative: PathBuf,
    pub what: &'static str,
}

impl Obstacle {
    /// Returns true for a symbolic link.
    pub fn is_link(&self) -> bool {
        self.what == LINK
    }
}

const LINK: &str = "a symbolic link";

/// Those of `names`, relative to the workspace, that exist in it, and those that are not what they
/// seem.
pub fn existing(workspace: &WorkspacePath, names: &[&str]) -> (Vec<Place>, Vec<Obstacle>) {
    let (mut places, mut obstacles) = (Vec::new(), Vec::new());
    if let Ok(root) = open_root(workspace.path()) {
        for name in names {
            let relative = PathBuf::from(name);
            match look(root.as_fd(), &relative) {
                Found::Nothing => {}
                Found::Real(kind) => places.push(Place { relative, kind }),
                Found::Odd { at, what } => obstacles.push(Obstacle { relative: at, what }),
            }
        }
    }
    (places, obstacles)
}

/// Returns the file or folder of the workspace that a link in it leads to; none where the link leads
/// to nothing in the workspace.
pub fn led_to(workspace: &WorkspacePath, link: &Path) -> Option<Place> {
    let end = workspace.path().join(link).canonicalize().ok()?;
    let relative = end.strip_prefix(workspace.path()).ok()?.to_owned();
    let kind = if end.is_dir() { Kind::Dir } else { Kind::File };
    Some(Place { relative, kind })
}

enum Found {
    Nothing,
    Real(Kind),
    Odd { at: PathBuf, what: &'static str },
}

fn look(root: BorrowedFd<'_>, relative: &Path) -> Found {
    let mut at = PathBuf::new();
    let mut found = Found::Nothing;
    for part in relative.components() {
        let Component::Normal(name) = part else { return Found::Nothing };
        let Ok(parent) = open_folder(root, &at) else { return Found::Nothing };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else {
            return Found::Nothing;
        };
        at.push(name);
        found = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Found::Real(Kind::Dir),
            FileType::RegularFile => Found::Real(Kind::File),
            FileType::Symlink => return Found::Odd { at, what: LINK },
            _ => return Found::Odd { at, what: "neither a file nor a folder" },
        };
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_told_and_never_followed() {
        let folder = tempfile::tempdir().expect("temp");
        let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
        let at = |name: &str| workspace.path().join(name);
        std::fs::create_dir(at("real")).expect("made");
        std::fs::write(at("real/file"), "").expect("written");
        symlink("real", at("link")).expect("linked");
        let (places, obstacles) =
            existing(&workspace, &["real", "real/file", "link", "link/file", "gone", "../x"]);
        let place = |relative: &str, kind| Place { relative: relative.into(), kind };
        assert_eq!(places, [place("real", Kind::Dir), place("real/file", Kind::File)]);
        let at_the_link = Obstacle { relative: "link".into(), what: "a symbolic link" };
        assert_eq!(obstacles, [at_the_link.clone(), at_the_link]);
        symlink("link/file", at("chain")).expect("linked");
        symlink("/etc", at("out")).expect("linked");
        let led = |link: &str| led_to(&workspace, Path::new(link));
        assert_eq!(led("link"), Some(place("real", Kind::Dir)));
        assert_eq!(led("chain"), Some(place("real/file", Kind::File)));
        assert_eq!((led("out"), led("gone")), (None, None));
    }
}
