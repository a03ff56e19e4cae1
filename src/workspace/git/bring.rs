//! Taking what a run committed into the user's repository, below `refs/sandbox/<run>/`.
//!
//! The pack comes from inside and is hostile. It is checked in a repository of its own, which
//! borrows the user's objects, and fetched from there by name; no other file of the copy is used.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::news::News;
use super::quarantine::Quarantine;
use super::read::is_id;
use super::start::Repository;
use super::users::{Users, input, said};
use crate::ids::RunId;
use crate::text::one_line;

/// Time for which a lock that another process holds is waited for.
const LOCKED: Duration = Duration::from_secs(5);

/// Most commits that are looked into, and most that are listed.
pub(super) const COMMITS: usize = 1_000;
const LISTED: usize = 20;

/// The branch of a working tree where a commit itself is checked out, as in a submodule.
pub(super) const HEAD: &str = "HEAD";

/// Files of a git directory by which git goes on with what was begun there.
const BEGUN: &[&str] = &[
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// The user's own references, whose commits are not new.
const NAMED: &[&str] = &["--not", "--branches", "--tags", "--remotes"];

/// Commits, branches and the index that a run left in one repository, as its record keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The working tree, and its git directory.
    top: PathBuf,
    git: PathBuf,
    /// The path of the workspace in the working tree, if it is a subfolder; else the path of the
    /// working tree in the workspace.
    prefix: PathBuf,
    place: PathBuf,
    /// References in the user's repository; none after they were removed.
    refs: Vec<String>,
    /// The branch that is checked out, or `HEAD`, and its commit before and after the run. No
    /// branch where nothing is to be moved.
    pub branch: Option<String>,
    from: Option<String>,
    pub(super) to: Option<String>,
    /// The number of new commits, and the first of them with their subjects.
    pub count: usize,
    pub commits: Vec<String>,
    /// Trees of the index, before and after the run.
    old_index: Option<String>,
    pub(super) new_index: Option<String>,
    /// Commit and index that the run began with, where an earlier one of its session left them.
    #[serde(default)]
    began: Option<(Option<String>, Option<String>)>,
    /// The branch and the index are as the run left them.
    pub moved: bool,
    /// They are to be moved when the files are applied.
    #[serde(default)]
    pub wanted: bool,
    /// The reason why they were not moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Takes what `news` tells of, and the tree of the index inside, into the user's repository.
/// Returns none where nothing differs after all. `folder` holds the copies. Blocking.
pub fn bring(
    run: &RunId,
    repository: &Repository,
    (folder, workspace): (&Path, &Path),
    news: &News,
    tree: Option<&str>,
) -> Result<Option<Brought>, String> {
    let top = repository.top(workspace);
    let users = Users::of(&repository.git, &top)?;
    let quarantine = Quarantine::make(run, repository, users)?;
    let old_index = quarantine.old_index(repository)?;
    let new_index = tree.filter(|id| is_id(id)).map(str::to_owned);
    let changed = new_index.iter().filter(|tree| Some(*tree) != old_index.as_ref());
    let ids: Vec<&String> = news.refs.iter().map(|(_, id)| id).chain(changed).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let refs = quarantine.take(run, repository, folder, &ids)?;
    // The branch of this working tree alone, and only where the run stayed on it.
    let branch = match (&repository.branch, &news.branch) {
        (None, None) => Some(HEAD).filter(|_| repository.commit.is_some() && news.commit.is_some()),
        (before, after) => after.as_deref().filter(|_| before == after),
    };
    let mut brought = Brought {
        top: top.clone(),
        prefix: repository.prefix.clone(),
        place: repository.place.clone(),
        git: repository.git.clone(),
        refs,
        branch: branch.map(str::to_owned),
        from: repository.commit.clone(),
        to: news.commit.clone(),
        count: 0,
        commits: Vec::new(),
        old_index,
        new_index,
        began: repository.began.clone(),
        moved: false,
        wanted: false,
        why: None,
    };
    let commits = news.refs.iter().filter(|(name, _)| !name.contains("stash"));
    let commits: Vec<&str> = commits.map(|(_, id)| id.as_str()).collect();
    match brought.list(users, &commits) {
        Ok(mut commits) => {
            brought.count = commits.len();
            commits.truncate(LISTED);
            brought.commits = commits;
            Ok(Some(brought))
        }
        Err(why) => {
            brought.forget()?;
            Err(why)
        }
    }
}

impl Brought {
    fn users<T>(&self, work: impl FnOnce(Users<'_>) -> Result<T, String>) -> Result<T, String> {
        work(Users::of(&self.git, &self.top)?)
    }

    /// Returns true while a branch or an index of the user's is still to be changed.
    pub fn is_pending(&self) -> bool {
        let index = self.new_index.is_some() && self.new_index != self.old_index;
        !self.moved && self.branch.is_some() && (self.from != self.to || index)
    }

    /// Returns true where a run of the same session goes on from here: nothing of the user's has
    /// moved.
    pub(super) fn is_ahead_of(&self, repository: &Repository) -> bool {
        let branch = repository.branch.as_deref().or(Some(HEAD));
        self.is_pending()
            && self.git == repository.git
            && self.branch.as_deref() == branch
            && self.from == repository.commit
    }

    /// New commits behind some, one in a line with its subject.
    fn list(&self, users: Users<'_>, ids: &[&str]) -> Result<Vec<String>, String> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let most = format!("--max-count={}", COMMITS + 1);
        let log = ["log", "--no-show-signature", &most, "--format=%H %s"];
        let from = self.from.as_deref();
        let args: Vec<&str> = log
            .into_iter()
            .chain(ids.iter().copied())
            .chain(NAMED.iter().copied())
            .chain(from)
            .collect();
        let text = users.run(&args)?;
        Ok(text.lines().map(|line| one_line(line, 160)).collect())
    }

    /// Paths, relative to the workspace, of all files that the commits change which the branch is
    /// to get. Blocking.
    pub fn files(&self) -> Result<Vec<PathBuf>, String> {
        let Some(to) = self.to.as_deref().filter(|_| self.from != self.to) else {
            return Ok(Vec::new());
        };
        self.users(|users| {
            let new = self.list(users, &[to])?;
            if new.len() > COMMITS {
                return Err(format!("more than {COMMITS} commits are too many to be looked into"));
            }
            let ids: String = new
                .iter()
                .filter_map(|line| line.split(' ').next())
                .flat_map(|id| [id, "\n"])
                .collect();
            let files = users.files(&ids, &self.place)?.into_iter();
            // What lies outside of the workspace is judged by its name alone.
            let inside = |file: PathBuf| file.strip_prefix(&self.prefix).map(Path::to_owned);
            Ok(files.map(|file| inside(file.clone()).unwrap_or(file)).collect())
        })
    }

    /// Moves the branch to where the run left it, and the index with it, if both are as at the
    /// start; or says why not. Blocking.
    pub fn advance(&mut self) -> Result<(), String> {
        self.follow_earlier()?;
        let (old, new) = ((&self.from, &self.old_index), (&self.to, &self.new_index));
        self.switch(old, new)?;
        (self.moved, self.why) = (true, None);
        Ok(())
    }

    /// Where the run began with an earlier one's commits and these were applied meanwhile, the
    /// branch goes on from them.
    fn follow_earlier(&mut self) -> Result<(), String> {
        let (Some((Some(commit), index)), Some(branch)) = (&self.began, &self.branch) else {
            return Ok(());
        };
        let wanted = ["rev-parse", "--verify", "--quiet", branch];
        if self.users(|users| Ok(users.tree(&wanted)))?.as_ref() == Some(commit) {
            (self.from, self.old_index) = (Some(commit.clone()), index.clone());
        }
        Ok(())
    }

    /// Moves the branch and the index back, likewise.
    pub fn retreat(&mut self) -> Result<(), String> {
        let (old, new) = ((&self.from, &self.old_index), (&self.to, &self.new_index));
        self.switch(new, old)?;
        self.moved = false;
        Ok(())
    }

    fn switch(&self, (from, old): Side<'_>, (to, new): Side<'_>) -> Result<(), String> {
        let Some(branch) = &self.branch else { return Ok(()) };
        let short = one_line(branch.trim_start_matches("refs/heads/"), 100);
        let was_moved = format!("the branch `{short}` was moved meanwhile");
        self.users(|users| {
            let out = users.run(&["symbolic-ref", "--quiet", HEAD]);
            if out.as_deref().map_or(HEAD, str::trim) != branch {
                return Err(format!("another branch than `{short}` is checked out by now"));
            }
            let mut begun = BEGUN.iter().filter(|name| from != to && self.git.join(name).exists());
            if let Some(begun) = begun.next() {
                return Err(format!("git is in the middle of something there ({begun})"));
            }
            let at = users.tree(&["rev-parse", "--verify", "--quiet", branch]);
            // The index goes first, so a process that was killed here has moved both.
            if from != to && at == *to {
                return Ok(());
            }
            if at != *from {
                return Err(was_moved.clone());
            }
            let (Some(old), Some(new)) = (old, new) else {
                return Err("the index has unmerged files, or was changed meanwhile".to_owned());
            };
            self.stays_inside(users, from.as_deref(), to.as_deref())?;
            self.stays_inside(users, Some(old), Some(new))?;
            if old != new {
                // Compares, and writes nothing.
                let is = |tree| users.run(&["diff-index", "--cached", "--quiet", tree]).is_ok();
                if is(old) {
                    read_tree(users, new)?;
                } else if !is(new) {
                    return Err("the index was changed meanwhile".to_owned());
                }
            }
            let zero = "0".repeat(to.as_ref().or(from.as_ref()).map_or(40, String::len));
            let moved = match (to, from.as_ref().unwrap_or(&zero)) {
                _ if from == to => return Ok(()),
                (Some(to), from) => {
                    let why = "sandbox-mcp: commits of a run";
                    users.run(&["update-ref", "--no-deref", "-m", why, branch, to, from])
                }
                (None, from) => users.run(&["update-ref", "-d", branch, from]),
            };
            if moved.is_err() {
                read_tree(users, old)?;
                return Err(was_moved);
            }
            Ok(())
        })
    }

    /// Refuses differences between two commits or trees outside of the workspace: files there stay as they are.
    fn stays_inside(
        &self,
        users: Users<'_>,
        one: Option<&str>,
        other: Option<&str>,
    ) -> Result<(), String> {
        // A submodule is inside with all of it.
        let is_whole = self.prefix.as_os_str().is_empty() || !self.place.as_os_str().is_empty();
        if is_whole || one == other {
            return Ok(());
        }
        // Before the first commit there is nothing.
        let nothing = users.tree(&["hash-object", "-t", "tree", "--stdin"]);
        let (Some(one), Some(other)) = (one.or(nothing.as_deref()), other.or(nothing.as_deref()))
        else {
            return Err("they cannot be compared".to_owned());
        };
        let outside = format!(":(top,exclude,literal){}", self.prefix.display());
        let quiet = ["diff-tree", "-r", "--quiet", one, other, "--", ":/", &outside];
        match users.run(&quiet) {
            Ok(_) => Ok(()),
            Err(_) => Err("they change what is outside of the workspace".to_owned()),
        }
    }

    /// Removes the references that came back. Blocking.
    pub fn forget(&mut self) -> Result<(), String> {
        if self.refs.is_empty() {
            return Ok(());
        }
        let gone: String = self.refs.iter().flat_map(|name| ["delete ", name, "\n"]).collect();
        self.users(|users| said(users.ask()?.input(input(&gone)?), &["update-ref", "--stdin"]))?;
        self.refs.clear();
        Ok(())
    }
}

/// A commit and the tree of an index.
type Side<'a> = (&'a Option<String>, &'a Option<String>);

/// Makes the index a tree, whatever the files are by now, and keeps what git knows of those that
/// are the same in both.
fn read_tree(users: Users<'_>, tree: &str) -> Result<(), String> {
    let until = Instant::now() + LOCKED;
    loop {
        match users.run(&["read-tree", "-i", "-m", tree]) {
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(200)),
            done => return done.map(drop).map_err(|why| format!("the index stays: {why}")),
        }
    }
}
