//! The list of changes, as it is kept on disk.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::RunId;

/// Of the format. A reader refuses what is newer than it knows: applying half-understood changes
/// would lose some.
pub const VERSION: u32 = 1;

/// What a run changed, each path once, in the order of paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    /// The folder that the run's view was of.
    pub workspace: PathBuf,
    pub changes: Vec<Alteration>,
    /// What the run made that is never carried over.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Repositories that the run made; their files are among the changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<NewRepository>,
    /// The run whose changes are among these, because it left them waiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<RunId>,
    /// Paths that the caller's check changed after the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checked: Vec<RelPath>,
    /// False where a bound ended the look: then only paths that are named may be applied.
    pub complete: bool,
}

/// A repository that a run made, as git on this machine has made it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRepository {
    /// Its git directory.
    pub git: RelPath,
    /// All files of its commits; none where those are too many to be judged.
    pub files: Option<Vec<RelPath>>,
}

impl NewRepository {
    /// Returns true for the git directory and for what is in it.
    pub fn has(&self, path: &RelPath) -> bool {
        path.as_path().starts_with(self.git.as_path())
    }

    pub fn shown(&self) -> String {
        format!("{}/", self.git)
    }
}

/// One path that is not what it was. `before` alone is a deletion, `after` alone an addition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alteration {
    pub path: RelPath,
    pub before: Option<Node>,
    pub after: Option<Node>,
    /// Where an addition has the content of a deletion: a name that was changed. Both are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RelPath>,
    /// The workspace's own file was changed by somebody else while the run went on, so that
    /// `before` may not be what the agent saw.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub base_moved: bool,
    /// When the file was written in the run's view, in nanoseconds of the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<i64>,
}

/// What is at a path. Modes are permission bits alone (`0o777`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Node {
    File { sha256: String, size: u64, mode: u32 },
    Link { target: Escaped },
    Folder { mode: u32 },
}

/// Something that a result leaves out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub path: RelPath,
    /// Such as `socket`, `fifo`, `device`, `inside .git`.
    pub why: String,
}

/// A path below a workspace: not empty, not absolute, without `.` and `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Escaped", into = "Escaped")]
pub struct RelPath(PathBuf);

/// A text that is no path below a workspace.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no path below the workspace")]
pub struct BadPath(String);

impl Alteration {
    /// One word for what happened at the path.
    pub fn word(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) if self.from.is_some() => "renamed",
            (None, _) => "added",
            (_, None) => "deleted",
            _ => "modified",
        }
    }
}

impl Manifest {
    /// Paths as a person reads them: a new repository is one, and not each of its files.
    pub fn shown(&self, paths: &[RelPath]) -> Vec<String> {
        let shown = |path: &RelPath| match self.repositories.iter().find(|made| made.has(path)) {
            Some(made) => made.shown(),
            None => path.to_string(),
        };
        let mut shown: Vec<String> = paths.iter().map(shown).collect();
        shown.dedup();
        shown
    }
}

impl RelPath {
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, BadPath> {
        let path = path.into();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let bytes = path.as_os_str().as_bytes();
        // `a//b` and `a/` have only normal parts, and would be two names for one place.
        let clean = !bytes.ends_with(b"/") && !bytes.windows(2).any(|two| two == b"//");
        let shown = || crate::text::one_line(&path.to_string_lossy(), 200);
        if plain && clean && !bytes.is_empty() && !bytes.contains(&0) {
            Ok(Self(path))
        } else {
            Err(BadPath(shown()))
        }
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::super::changes::shown(&self.0, false))
    }
}

/// Any bytes as text: those that are not UTF-8, and `%`, are written as `%XX`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Escaped(pub Vec<u8>);

impl From<Escaped> for String {
    fn from(bytes: Escaped) -> Self {
        let mut text = String::new();
        for chunk in bytes.0.utf8_chunks() {
            text.push_str(&chunk.valid().replace('%', "%25"));
            for byte in chunk.invalid() {
                // Writing to a text cannot fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }
}

impl TryFrom<String> for Escaped {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, BadPath> {
        let bad = || BadPath(crate::text::one_line(&text, 200));
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first != b'%' {
                bytes.push(first);
                continue;
            }
            let (digits, after) = rest.split_at_checked(2).ok_or_else(bad)?;
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            rest = after;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<Escaped> for RelPath {
    type Error = BadPath;

    fn try_from(bytes: Escaped) -> Result<Self, BadPath> {
        Self::new(std::ffi::OsString::from_vec(bytes.0))
    }
}

impl From<RelPath> for Escaped {
    fn from(path: RelPath) -> Self {
        Self(path.0.into_os_string().into_vec())
    }
}

impl AsRef<OsStr> for RelPath {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(bytes: &[u8]) -> RelPath {
        let path = RelPath::new(std::ffi::OsString::from_vec(bytes.to_vec())).expect("a path");
        let text = serde_json::to_string(&path).expect("JSON");
        assert_eq!(serde_json::from_str::<RelPath>(&text).expect("read"), path, "{text}");
        path
    }

    #[test]
    fn any_name_that_a_file_can_have_survives() {
        for name in [&b"a"[..], b"a/b", b"100%", b"%41", b"\xff\xfe/x", "ü/ß\n".as_bytes(), b" "]
        {
            round(name);
        }
    }

    #[test]
    fn a_path_that_leads_out_is_none() {
        for wrong in ["", "/a", "../a", "a/../b", "./a", "a/", "a//b", "a\0b", ".", ".."] {
            assert!(RelPath::new(wrong).is_err(), "{wrong:?}");
            let text = serde_json::to_string(wrong).expect("JSON");
            assert!(serde_json::from_str::<RelPath>(&text).is_err(), "{wrong:?}");
        }
        for wrong in ["%", "%4", "%zz", "%2e%2e/a", "%00"] {
            let text = serde_json::to_string(wrong).expect("JSON");
            assert!(serde_json::from_str::<RelPath>(&text).is_err(), "{wrong:?}");
        }
    }
}
