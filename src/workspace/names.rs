//! Names as the most forgiving file systems read them, in whatever way they are spelt.
//!
//! A name that is harmless here can be `.git` to the file system of whoever gets the folder next,
//! and a workspace itself can lie on a file system that folds case.

use std::ffi::OsStr;
use std::path::{Component, Path};

use crate::text::is_invisible;

/// Folders of what was installed and built. Packages bring editor settings by the hundred that
/// nobody's editor ever opens.
const VENDORED: &[&str] =
    &["node_modules", "bower_components", ".venv", "venv", ".tox", "__pycache__", "target"];

/// A name as the most forgiving file systems read it: case, characters without width, the trailing
/// dots, spaces and streams of NTFS, and its short name for `.git` do not count.
pub(super) fn fold(name: &OsStr) -> String {
    let lossy = name.to_string_lossy();
    let mut folded = if lossy.is_ascii() {
        lossy.to_ascii_lowercase()
    } else {
        // Up and down again, because some letters meet only there.
        let visible = lossy.chars().filter(|letter| !is_invisible(*letter));
        visible.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
    };
    if let Some(stream) = folded.find(':') {
        folded.truncate(stream);
    }
    folded.truncate(folded.trim_end_matches(['.', ' ']).len());
    if folded == "git~1" { ".git".to_owned() } else { folded }
}

/// Whether a folder's last name folds to this.
pub(super) fn is_called(folder: &Path, name: &str) -> bool {
    folder.file_name().is_some_and(|own| fold(own) == name)
}

pub(super) fn is_vendored(folder: &Path) -> bool {
    folder.components().any(|part| VENDORED.iter().any(|name| part.as_os_str() == *name))
}

/// A relative path as a text that is equal for all spellings of one place. Nothing when it leads
/// up or away.
pub(super) fn fold_path(path: &Path) -> Option<String> {
    let mut folded = String::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => {
                if !folded.is_empty() {
                    folded.push('/');
                }
                folded.push_str(&fold(name));
            }
            _ => return None,
        }
    }
    Some(folded)
}

/// What tells a git directory of any kind from other folders, collected name by name.
///
/// Git takes a folder for one when it has a `HEAD`, and objects and refs of its own or of a
/// common directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GitMarks(u8);

impl GitMarks {
    const HEAD: u8 = 1;
    const OBJECTS: u8 = 2;
    const REFS: u8 = 4;
    const COMMON: u8 = 8;

    pub fn note(&mut self, folded: &str) {
        self.0 |= match folded {
            "head" => Self::HEAD,
            "objects" => Self::OBJECTS,
            "refs" => Self::REFS,
            "commondir" => Self::COMMON,
            _ => 0,
        };
    }

    pub fn is_git(self) -> bool {
        let has = |marks| self.0 & marks == marks;
        has(Self::HEAD | Self::COMMON) || has(Self::HEAD | Self::OBJECTS | Self::REFS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_is_that_name() {
        for name in [
            ".git",
            ".GIT",
            ".Git ",
            ".git...",
            ".g\u{200c}it",
            "\u{feff}.gi\u{2060}T",
            "GIT~1",
            ".git::$INDEX_ALLOCATION",
            ".G\u{131}t",
        ] {
            assert_eq!(fold(OsStr::new(name)), ".git", "{name:?}");
        }
        assert_eq!(fold(OsStr::new(".V\u{17f}CODE")), ".vscode");
        for name in [".gitx", "git", "_git", ".gi", ".gitmodules", "..git"] {
            assert_ne!(fold(OsStr::new(name)), ".git", "{name:?}");
        }
        assert_eq!(
            fold_path(Path::new("./.GitHub//Workflows")).as_deref(),
            Some(".github/workflows")
        );
        assert_eq!(fold_path(Path::new("a/../b")), None);
        assert_eq!(fold_path(Path::new("/a")), None);
    }
}
