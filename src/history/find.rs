//! Which runs there are, and which one somebody means.

use std::fs;
use std::path::{Path, PathBuf};

use super::folder_of_runs;
use crate::ids::RunId;
use crate::text::one_line;

/// How many others are named to who asked for one that is not there.
const OFFERED: usize = 5;

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
    runs.sort_by(|a: &RunId, b| b.as_str().cmp(a.as_str()));
    runs
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
