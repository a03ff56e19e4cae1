//! Branches and indexes that follow when the files of a run are applied: all of them, or none.
//!
//! The list in the run's record says before the files change which are to be moved. Whoever settles
//! the application, also after a crash, moves them when the files are in their places.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::bring::Brought;
use crate::files::{Durability, write_json};

/// Reads the repositories that commits of a run came back to; none where it made no commits.
pub fn read(list: &Path) -> io::Result<Vec<Brought>> {
    match fs::read(list) {
        Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

pub fn write(list: &Path, all: &[Brought]) -> io::Result<()> {
    write_json(list, &all, Durability::Durable)
}

/// Moves what is to be moved: all of it, or nothing, and notes the reason. Again and again is once.
/// Blocking.
pub fn follow(list: &Path) -> io::Result<()> {
    let mut all = read(list)?;
    if !all.iter().any(|one| one.wanted) {
        return Ok(());
    }
    let mut moved: Vec<&mut Brought> = Vec::new();
    let mut failed = None;
    for one in all.iter_mut().filter(|one| one.wanted) {
        match one.advance() {
            Ok(()) => moved.push(one),
            Err(why) => {
                failed = Some(why);
                break;
            }
        }
    }
    if let Some(why) = failed {
        for one in moved {
            if let Err(why) = one.retreat() {
                tracing::warn!("a branch was moved alone: {why}");
            }
        }
        for one in all.iter_mut().filter(|one| one.wanted) {
            one.why = Some(why.clone());
        }
    }
    for one in &mut all {
        one.wanted = false;
    }
    write(list, &all)
}

/// Moves nothing, because the files were not applied.
pub fn stay(list: &Path) -> io::Result<()> {
    let mut all = read(list)?;
    if !all.iter().any(|one| one.wanted) {
        return Ok(());
    }
    for one in &mut all {
        one.wanted = false;
    }
    write(list, &all)
}

#[cfg(test)]
pub(in crate::workspace) mod testing {
    use serde_json::json;

    use super::super::give_tests::Ground;
    use super::fs;

    /// Repositories at their first commits, to be moved to their second ones.
    pub(in crate::workspace) struct Waiting {
        pub(super) ground: Ground,
        pub list: std::path::PathBuf,
    }

    impl Waiting {
        pub fn new(names: &[&str]) -> Self {
            let ground = Ground::new();
            let all = names.iter().map(|name| {
                ground.repository(name, &[]);
                let id = |what: &str| ground.git(name, &["rev-parse", what]);
                let (to, new) = (id("main"), id("main^{tree}"));
                let (from, old) = (id("other"), id("other^{tree}"));
                ground.git(name, &["reset", "-q", "--hard", "other"]);
                json!({
                    "top": ground.at(name), "git": ground.at(&format!("{name}/.git")),
                    "prefix": "", "place": "", "refs": [], "branch": "refs/heads/main",
                    "from": from, "to": to, "count": 1, "commits": [], "old_index": old,
                    "new_index": new, "moved": false, "wanted": true,
                })
            });
            let all: Vec<_> = all.collect();
            let list = ground.at("commits.json");
            fs::write(&list, json!(all).to_string()).expect("written");
            Self { ground, list }
        }

        /// The subject of the branch, and of the commit whose tree the index is.
        pub fn state(&self, name: &str) -> (String, String) {
            let tree = self.ground.git(name, &["write-tree"]);
            let all = self.ground.git(name, &["log", "--all", "--reflog", "--format=%T %s"]);
            let has = all.lines().find_map(|line| line.strip_prefix(&format!("{tree} ")));
            let subject = self.ground.git(name, &["log", "-1", "--format=%s"]);
            (subject, has.expect("a commit").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Waiting;
    use super::*;

    fn at(word: &str) -> (String, String) {
        (word.to_owned(), word.to_owned())
    }

    #[test]
    fn all_follow_also_after_a_kill_between_the_index_and_the_branch() {
        let waiting = Waiting::new(&["one", "two"]);
        // As if the process had been killed just here, in the second repository.
        let tree = waiting.ground.git("two", &["rev-parse", "ORIG_HEAD^{tree}"]);
        waiting.ground.git("two", &["read-tree", &tree]);
        let before = fs::read(&waiting.list).expect("a list");
        for _ in 0..2 {
            follow(&waiting.list).expect("followed");
            assert_eq!((waiting.state("one"), waiting.state("two")), (at("second"), at("second")));
            let all = read(&waiting.list).expect("a list");
            assert!(all.iter().all(|one| one.moved && !one.wanted));
            // Killed before that was written down.
            fs::write(&waiting.list, &before).expect("written");
        }
    }

    #[test]
    fn none_follows_where_one_cannot() {
        let waiting = Waiting::new(&["one", "two"]);
        waiting.ground.git("two", &["commit", "-q", "--allow-empty", "-m", "theirs"]);
        follow(&waiting.list).expect("looked");
        assert_eq!(waiting.state("one"), at("first"));
        assert_eq!(waiting.state("two").0, "theirs");
        let all = read(&waiting.list).expect("a list");
        assert!(all.iter().all(|one| !one.moved && !one.wanted));
        let why = all[0].why.as_deref().expect("a reason");
        assert!(why.contains("was moved meanwhile"), "{why}");
    }

    #[test]
    fn none_follows_while_git_is_in_the_middle_of_a_merge_there() {
        let waiting = Waiting::new(&["one"]);
        fs::write(waiting.ground.at("one/.git/MERGE_HEAD"), "x").expect("written");
        follow(&waiting.list).expect("looked");
        assert_eq!(waiting.state("one"), at("first"));
        let why = read(&waiting.list).expect("a list")[0].why.clone().expect("a reason");
        assert!(why.contains("MERGE_HEAD"), "{why}");
    }

    #[test]
    fn nothing_follows_files_that_are_not_applied() {
        let waiting = Waiting::new(&["one"]);
        stay(&waiting.list).expect("noted");
        follow(&waiting.list).expect("nothing to do");
        assert_eq!(waiting.state("one"), at("first"));
    }
}
