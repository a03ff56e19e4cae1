//! The list of what a run changed, as a report shows it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Stat;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text;

/// Most files that a summary names.
pub(super) const LISTED: usize = 200;

/// Files that a run added, changed or removed. The inside of `.git` is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChangeSummary {
    pub files: Vec<Change>,
    /// True when there may be more changes than are listed.
    pub truncated: bool,
    /// True when the changes are in the workspace too. Absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<bool>,
    // What of them was not applied when the rest was. Not in the schema, where every word is on the
    // wire in each conversation: the result itself names its parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub pending: Option<Pending>,
    // What came back to the user's repository, which the schema leaves out likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub commits: Option<Commits>,
}

/// Commits, branches and stash entries of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Commits {
    /// The number of new commits; those that are listed may be fewer.
    pub count: usize,
    pub list: Vec<String>,
    /// A prefix of the references that have them in the user's repository.
    pub refs: String,
    /// The branch that is to have them, or has them.
    pub branch: Option<String>,
    /// The branch has them.
    pub moved: bool,
}

/// Changes that wait for a decision, after the others were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pending {
    /// The number of them.
    pub count: u64,
    /// The number of those that tools on this machine trust or execute.
    pub protected: u64,
    /// The number of changes that were applied.
    pub applied: u64,
    /// The first of them.
    pub files: Vec<PendingFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingFile {
    pub path: String,
    /// Why it was not applied.
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Relative to the workspace; ends in `/` where a whole folder is meant.
    pub path: String,
    pub change: ChangeKind,
    /// The old name of what was renamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
    Renamed,
}

/// A path as one line of plain text. It was made up by an agent: a newline in it must not look
/// like the end of an entry.
pub(super) fn shown(path: &Path, is_folder: bool) -> String {
    const LONGEST: usize = 500;
    let lossy = path.to_string_lossy().replace('\n', "\\n").replace('\r', "\\r");
    let clean = text::clean(&lossy).replace('\t', "\\t");
    let mut shown = text::prefix(&clean, LONGEST).to_owned();
    if shown.len() < clean.len() {
        shown.push('…');
    }
    if is_folder {
        shown.push('/');
    }
    shown
}

pub(super) fn now() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i128::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

/// When the kernel changed this last, content or anything else.
pub(super) fn changed(stat: &Stat) -> i128 {
    nanoseconds(stat.st_ctime.into(), stat.st_ctime_nsec.into())
}

/// Whether this was changed after `taken`, by the kernel's own clock.
pub(super) fn changed_since(stat: &Stat, taken: i128) -> bool {
    // The kernel stamps files with a clock that is up to a few ticks late.
    const LATE: i128 = 20_000_000;
    changed(stat) + LATE >= taken
}

pub(super) fn nanoseconds(seconds: i128, rest: i128) -> i128 {
    seconds * 1_000_000_000 + rest
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn hostile_names_are_shown_on_one_plain_line() {
        let show = |name: &[u8]| shown(Path::new(OsStr::from_bytes(name)), false);
        for (name, expected) in [
            (&b"a\nb"[..], "a\\nb"),
            (b"tab\tx", "tab\\tx"),
            (b"\x1b[31mred", "red"),
            ("bidi\u{202e}x".as_bytes(), "bidix"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"two  spaces", "two  spaces"),
            (b"latin-\xe9", "latin-\u{fffd}"),
        ] {
            assert_eq!(show(name), expected);
        }
        let long = shown(Path::new(&vec!["x".repeat(200); 4].join("/")), true);
        assert!(long.len() < 520 && long.ends_with("\u{2026}/"), "{long}");
    }
}
