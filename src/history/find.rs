//! Which runs there are, and which one somebody means.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Entry, folder_of_runs};
use crate::ids::RunId;
use crate::text::one_line;

/// How many others are named to who asked for one that is not there.
const OFFERED: usize = 5;

/// How much of an id is its time.
const SECOND: usize = 15;

/// Why a word names no run.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    #[error("there is no run on record in {}", .0.display())]
    Empty(PathBuf),
    #[error("there is no run `{word}` on record; the newest are {}", list(.newest))]
    Unknown { word: String, newest: Vec<RunId> },
    #[error("`{word}` may be more than one run: {}", list(.matches))]
    Ambiguous { word: String, matches: Vec<RunId> },
}

fn list(ids: &[RunId]) -> String {
    let names: Vec<_> = ids.iter().take(OFFERED).map(RunId::as_str).collect();
    let more = if ids.len() > OFFERED { ", …" } else { "" };
    names.join(", ") + more
}

/// The runs on record, the newest first.
pub fn runs(state: &Path) -> Vec<RunId> {
    let entries = fs::read_dir(folder_of_runs(state)).into_iter().flatten();
    let mut runs: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse().ok())
        .collect();
    runs.sort_unstable_by(|a: &RunId, b| b.cmp(a));
    // The random end of an id says nothing about two runs of the same second.
    for same in runs.chunk_by_mut(|a, b| a.as_str()[..SECOND] == b.as_str()[..SECOND]) {
        if same.len() > 1 {
            same.sort_by_cached_key(|run| Reverse(began(state, run)));
        }
    }
    runs
}

fn began(state: &Path, run: &RunId) -> Option<SystemTime> {
    Entry::of(state, run).map(|entry| entry.times().0)
}

/// The run that a person means: its id, the beginning of it that no other has, or `last`.
pub fn find(state: &Path, word: &str) -> Result<RunId, NotFound> {
    let runs = runs(state);
    let shown = || one_line(word, 40);
    let Some(newest) = runs.first() else {
        return Err(NotFound::Empty(folder_of_runs(state)));
    };
    if word == "last" {
        return Ok(newest.clone());
    }
    let begins = |id: &&RunId| !word.is_empty() && id.as_str().starts_with(word);
    let matches: Vec<_> = runs.iter().filter(begins).cloned().collect();
    match matches.as_slice() {
        [id] => Ok(id.clone()),
        [] => Err(NotFound::Unknown {
            word: shown(),
            newest: runs.into_iter().take(OFFERED + 1).collect(),
        }),
        _ => Err(NotFound::Ambiguous { word: shown(), matches }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_one_second_is_the_one_that_came_last() {
        let state = tempfile::tempdir().expect("temp dir");
        for id in ["20260101-000000-zzzz", "20260101-000000-aaaa", "20260101-000000-mmmm"] {
            let run = id.parse().expect("a run id");
            super::super::Record::create(state.path(), &run).expect("record");
            // Longer than the clock of any file system takes for a step.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(find(state.path(), "last").expect("found").as_str(), id);
        }
        let order = runs(state.path()).into_iter().map(|id| id.as_str()[16..].to_owned());
        assert_eq!(order.collect::<Vec<_>>(), ["mmmm", "aaaa", "zzzz"]);
    }

    #[test]
    fn a_run_is_found_by_what_only_it_has() {
        let state = tempfile::tempdir().expect("temp dir");
        let none = find(state.path(), "last").expect_err("nothing there").to_string();
        assert!(none.starts_with("there is no run on record in /"), "{none}");
        for id in ["20260101-000000-aaaa", "20260101-000000-aabb", "20260102-000000-aaaa"] {
            fs::create_dir_all(state.path().join("runs").join(id)).expect("made");
        }
        fs::create_dir_all(state.path().join("runs/.hidden")).expect("made");
        let found = |word| find(state.path(), word).map(|id| id.to_string());
        let newest = "20260102-000000-aaaa";
        for word in ["last", "20260102", newest] {
            assert_eq!(found(word).expect(word), newest);
        }
        assert_eq!(found("20260101-000000-aab").expect("one"), "20260101-000000-aabb");
        let error = found("20260101").expect_err("two").to_string();
        assert!(error.contains("20260101-000000-aabb, 20260101-000000-aaaa"), "{error}");
        for word in ["", "../runs/20260102-000000-aaaa", ".hidden", "2026\u{1b}[31m", "x"] {
            let error = found(word).expect_err(word).to_string();
            assert!(error.contains("the newest are 20260102-000000-aaaa, "), "{error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
}
