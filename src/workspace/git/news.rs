//! Reading from a copied git directory what a run left in it. All of it is hostile.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::read::{is_id, open_absolute, open_file, small};
use super::start::{Repository, head, index, references};

/// Most references that come back of one run.
const MOST: usize = 1_000;

/// Most of a log of stashes.
const LOG: u64 = 1 << 20;

/// The file in the copy that git inside packs new objects into.
const PACK: &str = "sandbox-mcp.pack";

/// Largest such file.
pub const PACK_BYTES: u64 = 2 << 30;

/// Differences between a repository's copy and its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// New and moved references, by their names inside, and stash entries.
    pub refs: Vec<(String, String)>,
    /// References that are gone inside.
    pub deleted: Vec<String>,
    /// The branch that is checked out inside; none where a commit itself is.
    pub branch: Option<String>,
    pub commit: Option<String>,
    /// More references than come back.
    pub truncated: bool,
}

impl News {
    /// The input of `git pack-objects --revs` for objects that the user's repository lacks.
    pub fn wanted(&self, repository: &Repository) -> String {
        let mut text: String = self.refs.iter().flat_map(|(_, id)| [id, "\n"]).collect();
        text.push_str("--not\n");
        let known: HashSet<_> = repository.refs.values().chain(&repository.commit).collect();
        text.extend(known.into_iter().flat_map(|id| [id, "\n"]));
        text
    }
}

impl Repository {
    /// Returns what differs from the start in the copy below `folder`; none where nothing does.
    pub fn news(&self, folder: &Path) -> Option<News> {
        let (copy, common) = self.copies(folder);
        let refs = references(&common);
        let (branch, commit) = head(&copy, &refs);
        let is_new = |name: &str, id: &String| self.refs.get(name) != Some(id);
        let mut news: BTreeMap<String, String> =
            refs.iter().filter(|(name, id)| is_new(name, id)).map(owned).collect();
        if news.contains_key("refs/stash") {
            let known = stashes(&self.common);
            for (number, id) in stashes(&common).into_iter().rev().enumerate().skip(1) {
                if !known.contains(&id) {
                    news.insert(format!("stash@{{{number}}}"), id);
                }
            }
        }
        if let (None, Some(commit)) = (&branch, &commit)
            && self.commit.as_ref() != Some(commit)
        {
            news.insert("HEAD".to_owned(), commit.clone());
        }
        let deleted: Vec<_> =
            self.refs.keys().filter(|name| !refs.contains_key(*name)).cloned().collect();
        let same_head = (&branch, &commit) == (&self.branch, &self.commit);
        if news.is_empty() && deleted.is_empty() && same_head && index(&copy) == self.index_inside {
            return None;
        }
        let truncated = news.len() > MOST;
        // The branch that is checked out goes first: it matters most.
        let mut refs: Vec<_> = news.into_iter().collect();
        refs.sort_by_key(|(name, _)| Some(name) != branch.as_ref());
        refs.truncate(MOST);
        Some(News { refs, deleted, branch, commit, truncated })
    }

    /// The path at which git inside puts its pack.
    pub fn pack_inside(&self) -> PathBuf {
        self.inside.join(PACK)
    }

    /// Opens the pack that git inside has written into the copy below `folder`.
    pub(super) fn pack(&self, folder: &Path) -> Option<File> {
        let copy = open_absolute(&folder.join(&self.copy)).ok()?;
        open_file(copy.as_fd(), PACK.as_ref()).ok()
    }
}

fn owned((name, id): (&String, &String)) -> (String, String) {
    (name.clone(), id.clone())
}

/// The ids of stash entries, the oldest first.
fn stashes(common: &Path) -> Vec<String> {
    let Ok(logs) = open_absolute(&common.join("logs/refs")) else { return Vec::new() };
    let text = small(logs.as_fd(), "stash", LOG).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let ids = text.lines().filter_map(|line| line.split(' ').nth(1));
    ids.filter(|id| is_id(id)).map(str::to_owned).collect()
}
