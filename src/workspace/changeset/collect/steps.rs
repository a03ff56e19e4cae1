//! Telling the agent's changes from those of a caller's check, which runs in the view as well: before
//! the agent and after it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Stat};

use super::{Collector, walk_all};
use crate::text::one_line;
use crate::workspace::changes::changed;
use crate::workspace::walk::{Entry, Limits, Visitor, open_root};

/// Longest look at what is written.
const LONGEST: Duration = Duration::from_secs(30);

/// Everything in a layer at one moment: what tells a thing from what it was at another.
#[derive(Clone, Debug)]
pub struct Moment(HashMap<PathBuf, u64>);

/// A layer before the first check, before the agent, and after it.
#[derive(Clone, Debug)]
pub struct Steps {
    pub start: Moment,
    pub before: Moment,
    /// None where no check came after the agent.
    pub after: Option<Moment>,
}

/// The origin of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Agents,
    /// The check alone made it.
    Checks,
    /// The check changed it after the agent.
    Both,
}

impl Moment {
    /// Looks at what is written to a layer, `entries` at most; none where that is too much. Blocking.
    pub fn of(written: &Path, entries: usize) -> Option<Self> {
        let root = open_root(written).ok()?;
        let mut look = Look { found: HashMap::new(), is_whole: true };
        let is_whole = walk_all(root.as_fd(), Limits { entries, time: LONGEST }, &mut look);
        (is_whole && look.is_whole).then_some(Self(look.found))
    }

    /// The same while processes of the run are at work: some things vanish meanwhile. Blocking.
    pub fn in_passing(written: &Path, entries: usize) -> Option<Self> {
        let root = open_root(written).ok()?;
        let mut look = Look { found: HashMap::new(), is_whole: true };
        let is_whole = walk_all(root.as_fd(), Limits { entries, time: LONGEST }, &mut look);
        is_whole.then_some(Self(look.found))
    }

    /// Returns true where a path was not the same at another moment.
    pub fn differs(&self, other: &Self, path: &Path) -> bool {
        self.0.get(path) != other.0.get(path)
    }
}

impl Steps {
    /// Returns whose the change at a path is, as the layer is `now`.
    pub(super) fn whose(&self, now: &Moment, path: &Path) -> Whose {
        let at = |moment: &Moment| moment.0.get(path).copied();
        let after = self.after.as_ref().unwrap_or(now);
        let is_touched = at(&self.before) != at(after);
        let is_as_left = at(after) == at(now);
        match (is_touched, is_as_left) {
            (true, true) => Whose::Agents,
            (true, false) => Whose::Both,
            // What an earlier run left waiting, or what shows here from another place.
            (false, _) if at(&self.start) == at(now) => Whose::Agents,
            (false, _) => Whose::Checks,
        }
    }
}

impl Collector<'_> {
    /// Returns true for a change that is only the check's.
    pub(super) fn is_of_check(&mut self, path: &Path) -> bool {
        let Some((steps, now)) = &self.steps else { return false };
        let whose = steps.whose(now, path);
        match whose {
            Whose::Agents => {}
            Whose::Both => self.both.push(path.to_owned()),
            Whose::Checks => self.of_check.push(path.to_owned()),
        }
        whose == Whose::Checks
    }

    /// Remarks what is left out.
    pub(super) fn tell_of_check(&mut self) {
        self.of_check.sort();
        let [first, rest @ ..] = &*self.of_check else { return };
        let more =
            if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        self.remarks.push(format!(
            "`verify` made or changed {}{more}, which is left out",
            one_line(&first.display().to_string(), 160)
        ));
    }
}

struct Look {
    found: HashMap<PathBuf, u64>,
    is_whole: bool,
}

impl Visitor for Look {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let Some(stat) = entry.stat() else {
            self.is_whole = false;
            return false;
        };
        self.found.insert(folder.join(entry.name), state(&stat));
        true
    }

    fn closed(&mut self, _folder: &Path) {
        self.is_whole = false;
    }
}

/// A folder is another one only if it was made anew: what is made in it changes its times, and a look
/// its mode. An overlay's marks of deletions are all one inode, which changes with each.
fn state(stat: &Stat) -> u64 {
    let mut hasher = DefaultHasher::new();
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile | FileType::Symlink => {
            (stat.st_mode, stat.st_ino, stat.st_size, changed(stat)).hash(&mut hasher);
        }
        FileType::Directory => stat.st_ino.hash(&mut hasher),
        _ => (stat.st_mode, stat.st_rdev).hash(&mut hasher),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_check_made_is_the_checks() {
        let moment = |things: &[(&str, u64)]| {
            Moment(things.iter().map(|(path, state)| (PathBuf::from(path), *state)).collect())
        };
        let steps = Steps {
            start: moment(&[("earlier", 1), ("copied", 1)]),
            before: moment(&[("earlier", 1), ("copied", 1), ("cache", 1), ("log", 1)]),
            after: Some(moment(&[
                ("earlier", 1),
                ("copied", 2),
                ("cache", 1),
                ("log", 2),
                ("new", 1),
            ])),
        };
        let now = moment(&[
            ("earlier", 1),
            ("copied", 2),
            ("cache", 2),
            ("log", 3),
            ("new", 1),
            ("report", 1),
        ]);
        for (path, whose) in [
            ("earlier", Whose::Agents),
            ("copied", Whose::Agents),
            ("new", Whose::Agents),
            ("elsewhere", Whose::Agents),
            ("cache", Whose::Checks),
            ("report", Whose::Checks),
            ("log", Whose::Both),
        ] {
            assert_eq!(steps.whose(&now, Path::new(path)), whose, "{path}");
        }
        let unchecked = Steps { after: None, ..steps };
        assert_eq!(unchecked.whose(&now, Path::new("new")), Whose::Agents);
        assert_eq!(unchecked.whose(&now, Path::new("report")), Whose::Agents);
    }
}
