//! Taking what a run committed into the user's repository, below `refs/sandbox/<run>/`.
//!
//! The pack comes from inside and is hostile. It is checked in a repository of its own, which
//! borrows the user's objects, and fetched from there by name; no other file of the copy is used.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::names::{fold, fold_path};
use super::super::protected_names::why_protected;
use super::host::Ask;
use super::news::News;
use super::read::{is_id, open_absolute, small};
use super::start::{Repository, index};
use crate::ids::RunId;
use crate::text::one_line;

/// How long one command of git may take, and how long it may be waited for a lock.
const TIME: Duration = Duration::from_secs(60);
const LOCKED: Duration = Duration::from_secs(5);
const MOST: u64 = 16 << 20;

/// Most commits that are looked into and listed.
const COMMITS: usize = 1_000;
const LISTED: usize = 20;

/// What a run left in one repository, as its record keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Brought {
    /// The working tree, relative to the workspace.
    pub place: PathBuf,
    pub top: PathBuf,
    pub git: PathBuf,
    /// References in the user's repository, with their names inside and their ids.
    pub refs: Vec<BroughtRef>,
    /// References that the run deleted, which stay in the user's repository.
    pub deleted: Vec<String>,
    /// The branch that is checked out, and its commit before and after the run. None where
    /// nothing is to be moved.
    pub branch: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Commits that are new, the first of them listed.
    pub count: usize,
    pub commits: Vec<Commit>,
    /// Trees of the index, before and after the run.
    pub old_index: Option<String>,
    pub new_index: Option<String>,
    /// Paths in new commits that programs on this machine trust.
    pub protected: Vec<String>,
    /// Whether the branch was moved.
    pub moved: bool,
    /// Why something did not come back.
    pub trouble: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BroughtRef {
    pub name: String,
    pub inside: String,
    pub id: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    pub id: String,
    pub subject: String,
}

/// The user's repository, and who its files belong to.
struct Users<'a> {
    git: &'a Path,
    top: &'a Path,
    owner: (u32, u32),
}

impl Users<'_> {
    fn ask(&self) -> Option<Ask> {
        let ask = Ask::at(self.top)?.of_owner(self.owner);
        Some(ask.env("GIT_DIR", self.git).env("GIT_WORK_TREE", self.top))
    }

    fn run<const N: usize>(&self, args: [&str; N]) -> Result<String, String> {
        said(self.ask(), args, None)
    }
}

/// Runs git, and returns its output or which command failed.
fn said<const N: usize>(
    ask: Option<Ask>,
    args: [&str; N],
    input: Option<File>,
) -> Result<String, String> {
    let ask = ask.ok_or("there is no git on this machine")?;
    let ask = match input {
        Some(file) => ask.input(Stdio::from(file)),
        None => ask,
    };
    let answer = ask.args(args).run(TIME, MOST);
    if !answer.ok {
        let command = args.iter().find(|word| !word.starts_with('-')).copied().unwrap_or("");
        return Err(format!("`git {command}` failed"));
    }
    Ok(String::from_utf8_lossy(&answer.stdout).into_owned())
}

/// A file in a folder, for git's standard input.
fn input(folder: &Path, text: &str) -> Result<File, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut file = tempfile::tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(file)
}

fn tree(said: &str) -> Option<String> {
    let id = said.trim();
    is_id(id).then(|| id.to_owned())
}

/// One line for each, which begins with the same words.
fn lines<'a>(ids: impl Iterator<Item = &'a String>, before: &str) -> String {
    ids.flat_map(|id| [before, id, "\n"]).collect()
}

/// Takes what `news` tells of, and `index_tree`, into the user's repository. `folder` holds the
/// copies, and `owner` is whom the user's repository belongs to. Blocking.
pub fn bring(
    (run, repository): (&RunId, &Repository),
    folder: &Path,
    (top, owner): (&Path, (u32, u32)),
    news: &News,
    (index_tree, limit): (Option<&str>, u64),
    extra: &[String],
) -> Brought {
    let top = top.join(&repository.place);
    let mut brought = Brought {
        place: repository.place.clone(),
        git: repository.git.clone(),
        deleted: news.deleted.clone(),
        top,
        ..Brought::default()
    };
    let users = Users { git: &repository.git, top: &brought.top.clone(), owner };
    let tree = index_tree.filter(|id| is_id(id));
    match taken(run, repository, folder, news, tree, limit, &users) {
        Ok(refs) => brought.refs = refs,
        Err(why) => {
            brought.trouble = Some(why);
            return brought;
        }
    }
    if let Err(why) = look(&mut brought, repository, news, tree, &users, extra) {
        (brought.branch, brought.new_index) = (None, None);
        brought.trouble = Some(why);
    }
    brought
}

/// Checks the pack in a quarantine, and fetches what it has.
fn taken(
    run: &RunId,
    repository: &Repository,
    folder: &Path,
    news: &News,
    tree: Option<&str>,
    limit: u64,
    users: &Users<'_>,
) -> Result<Vec<BroughtRef>, String> {
    let index = tree.map(|id| ("the index".to_owned(), id.to_owned()));
    let refs: Vec<_> = news
        .refs
        .iter()
        .cloned()
        .chain(index)
        .enumerate()
        .map(|(number, (inside, id))| BroughtRef {
            name: format!("refs/sandbox/{run}/{}", number + 1),
            inside: one_line(&inside, 200),
            id,
        })
        .collect();
    if refs.is_empty() {
        return Ok(refs);
    }
    let mut pack = repository.pack(folder).ok_or("git in the sandbox wrote no pack")?;
    let failed = |error: std::io::Error| error.to_string();
    // Where its owner reaches it, and by a name that `git gc` removes after a crash.
    let objects_of = repository.common.join("objects");
    open_absolute(&objects_of).map_err(|errno| failed(errno.into()))?;
    let quarantine = tempfile::Builder::new()
        .prefix("tmp_objdir-sandbox-mcp-")
        .tempdir_in(objects_of)
        .map_err(failed)?;
    let at = quarantine.path();
    if rustix::process::geteuid().is_root() {
        let (uid, gid) = users.owner;
        std::os::unix::fs::chown(at, Some(uid), Some(gid)).map_err(failed)?;
    }
    let own = at.join("git");
    let ask = || Some(Ask::at(users.top)?.of_owner(users.owner).env("GIT_DIR", &own));
    let place = own.to_str().ok_or("the temporary folder's name is not UTF-8")?;
    let format = format!("--object-format={}", repository.format);
    said(ask(), ["init", "--quiet", "--bare", "--template=", &format, place], None)?;
    let mut stores = String::new();
    for store in &repository.stores {
        let store = store.to_str().filter(|store| !store.contains(['\n', '"']));
        stores.push_str(store.ok_or("an object store has an odd name")?);
        stores.push('\n');
    }
    std::fs::write(own.join("objects/info/alternates"), stores).map_err(failed)?;
    let shallow = open_absolute(&repository.common).ok();
    let shallow =
        shallow.and_then(|common| small(std::os::fd::AsFd::as_fd(&common), "shallow", 64 << 20));
    if let Some(shallow) = shallow {
        std::fs::write(own.join("shallow"), shallow).map_err(failed)?;
    }
    if objects(&mut pack).map_err(failed)? > 0 {
        let most = format!("--max-input-size={limit}");
        let bounded = Ask::bounded(users.top)
            .map(|ask| ask.of_owner(users.owner).env("GIT_DIR", &own).input(Stdio::from(pack)));
        let checks = ["index-pack", "--stdin", "--strict", "--fsck-objects", "--fix-thin", &most];
        said(bounded, checks, None)?;
    }
    let created: String = refs
        .iter()
        .flat_map(|one| {
            [
                "create ", &one.name, " ", &one.id, "
",
            ]
        })
        .collect();
    said(ask(), ["update-ref", "--stdin"], Some(input(at, &created)?))?;
    let all = format!("+refs/sandbox/{run}/*:refs/sandbox/{run}/*");
    let fetching = users.ask().map(|ask| ask.env("GIT_ALLOW_PROTOCOL", "file"));
    let quiet = ["-c", "core.alternateRefsCommand=true", "-c", "gc.auto=0"];
    let fetch = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-prune"];
    let more =
        ["--no-auto-maintenance", "--no-recurse-submodules", "--refmap=", "--update-shallow"];
    let mut words: Vec<&str> = quiet.into_iter().chain(fetch).chain(more).collect();
    words.extend(["--upload-pack=git-upload-pack", place, &all]);
    let fetching = fetching.ok_or("there is no git on this machine")?;
    if !fetching.args(words).run(TIME, MOST).ok {
        return Err("`git fetch` failed: objects are missing or not as they should be".to_owned());
    }
    Ok(refs)
}

/// The number of objects in a pack, which is read from its beginning afterwards.
fn objects(pack: &mut File) -> std::io::Result<u32> {
    let mut header = [0; 12];
    pack.read_exact(&mut header)?;
    pack.seek(SeekFrom::Start(0))?;
    let [.., a, b, c, d] = header;
    Ok(u32::from_be_bytes([a, b, c, d]))
}

/// Looks into what came back: its commits, and whether the branch may move to the last of them.
fn look(
    brought: &mut Brought,
    repository: &Repository,
    news: &News,
    tree: Option<&str>,
    users: &Users<'_>,
    extra: &[String],
) -> Result<(), String> {
    let here = std::env::temp_dir();
    let not = lines(repository.refs.values().chain(&repository.commit), "^");
    let list = |ids: &str| -> Result<Vec<Commit>, String> {
        let most = format!("--max-count={}", COMMITS + 1);
        let asked = ["log", "--no-show-signature", &most, "--format=%H %s", "--stdin"];
        let text = said(users.ask(), asked, Some(input(&here, &format!("{ids}{not}"))?))?;
        let commit = |line: &str| {
            let (id, subject) = line.split_once(' ')?;
            Some(Commit { id: id.to_owned(), subject: one_line(subject, 120) })
        };
        Ok(text.lines().filter_map(commit).collect())
    };
    let index_name = "the index";
    let ids = brought.refs.iter().filter(|one| one.inside != index_name);
    let ids = lines(ids.map(|one| &one.id), "");
    if !ids.is_empty() {
        let mut commits = list(&ids)?;
        brought.count = commits.len();
        commits.truncate(LISTED);
        brought.commits = commits;
    }
    // The branch of this working tree alone, and only where the run stayed on it.
    if news.branch.is_none() || news.branch != repository.branch {
        return Ok(());
    }
    brought.branch.clone_from(&news.branch);
    brought.from.clone_from(&repository.commit);
    brought.to.clone_from(&news.commit);
    brought.old_index = old_index(repository, users);
    brought.new_index = tree.map(str::to_owned);
    if brought.from != brought.to
        && let Some(to) = &brought.to
    {
        let new = list(&format!("{to}\n"))?;
        if new.len() > COMMITS {
            return Err(format!("more than {COMMITS} commits are too many to be looked into"));
        }
        let ids = lines(new.iter().map(|one| &one.id), "");
        let asked =
            ["diff-tree", "--stdin", "-r", "-m", "--root", "--name-only", "--no-commit-id", "-z"];
        let paths = said(users.ask(), asked, Some(input(&here, &ids)?))?;
        let extra: Vec<_> = extra.iter().filter_map(|path| fold_path(Path::new(path))).collect();
        let mut found: Vec<_> =
            paths.split('\0').filter(|path| is_protected(path, &extra)).collect();
        found.sort_unstable();
        found.dedup();
        brought.protected = found.iter().map(|path| one_line(path, 200)).collect();
    }
    Ok(())
}

fn is_protected(path: &str, extra: &[String]) -> bool {
    let path = Path::new(path);
    let known = path.ancestors().any(|place| match (place.parent(), place.file_name()) {
        (Some(folder), Some(name)) => why_protected(folder, &fold(name)).is_some(),
        _ => false,
    });
    let named = |place: &Path| fold_path(place).is_some_and(|place| extra.contains(&place));
    known || path.ancestors().filter(|place| place.file_name().is_some()).any(named)
}

/// The tree of the user's index, where it is as at the start.
fn old_index(repository: &Repository, users: &Users<'_>) -> Option<String> {
    let now = users.run(["write-tree"]).ok().and_then(|said| tree(&said))?;
    if index(&repository.git) == repository.index {
        return Some(now);
    }
    // A look refreshes an index. What is as the last commit has nothing that the user staged.
    let commit = format!("{}^{{tree}}", repository.commit.as_deref()?);
    let last = users.run(["rev-parse", "--verify", &commit]).ok().and_then(|said| tree(&said))?;
    (now == last).then_some(now)
}

impl Brought {
    /// Whether a branch or an index of the user's is still to be changed.
    pub fn is_pending(&self) -> bool {
        let index = self.new_index.is_some() && self.new_index != self.old_index;
        !self.moved && self.branch.is_some() && (self.from != self.to || index)
    }

    /// Moves the branch to where the run left it, and the index with it, if both are as at the
    /// start; or says why not. `owner` is whom the repository belongs to. Blocking.
    pub fn advance(&mut self, owner: (u32, u32)) -> Result<(), String> {
        let (from, to) = (self.from.clone(), self.to.clone());
        self.switch((from.as_deref(), to.as_deref()), (&self.old_index, &self.new_index), owner)?;
        self.moved = true;
        Ok(())
    }

    /// Moves the branch and the index back.
    pub fn retreat(&mut self, owner: (u32, u32)) -> Result<(), String> {
        let (from, to) = (self.from.clone(), self.to.clone());
        self.switch((to.as_deref(), from.as_deref()), (&self.new_index, &self.old_index), owner)?;
        self.moved = false;
        Ok(())
    }

    fn switch(
        &self,
        (from, to): (Option<&str>, Option<&str>),
        (old_index, new_index): (&Option<String>, &Option<String>),
        owner: (u32, u32),
    ) -> Result<(), String> {
        let users = Users { git: &self.git, top: &self.top, owner };
        let Some(branch) = &self.branch else { return Ok(()) };
        let short = one_line(branch.trim_start_matches("refs/heads/"), 100);
        let here = users.run(["symbolic-ref", "HEAD"])?;
        if here.trim() != branch {
            return Err(format!("another branch than `{short}` is checked out by now"));
        }
        let now = users.run(["rev-parse", "--verify", branch]).ok();
        if now.as_deref().map(str::trim) != from {
            return Err(format!("the branch `{short}` was moved meanwhile"));
        }
        let moved_index = match (old_index, new_index) {
            (Some(old), Some(new)) if old != new => {
                let now = users.run(["write-tree"]).ok().and_then(|said| tree(&said));
                if now.as_ref() != Some(old) {
                    return Err("the index was changed meanwhile".to_owned());
                }
                read_tree(&users, new)?;
                Some(old)
            }
            (Some(_), Some(_)) => None,
            _ if from == to => return Ok(()),
            _ => return Err("the index cannot be read, or has unmerged files".to_owned()),
        };
        let zero = "0".repeat(to.or(from).map_or(40, str::len));
        let moved = match (from == to, to) {
            (true, _) => Ok(String::new()),
            (false, Some(to)) => {
                let why = "sandbox-mcp: commits of a run";
                users.run(["update-ref", "-m", why, branch, to, from.unwrap_or(&zero)])
            }
            (false, None) => users.run(["update-ref", "-d", branch, from.unwrap_or(&zero)]),
        };
        if moved.is_err() {
            if let Some(old) = moved_index {
                read_tree(&users, old)?;
            }
            return Err(format!("the branch `{short}` was moved meanwhile"));
        }
        Ok(())
    }

    /// Removes the references that came back. Blocking.
    pub fn forget(&self, owner: (u32, u32)) -> Result<(), String> {
        let users = Users { git: &self.git, top: &self.top, owner };
        if self.refs.is_empty() {
            return Ok(());
        }
        let gone = lines(self.refs.iter().map(|one| &one.name), "delete ");
        let gone = input(&std::env::temp_dir(), &gone)?;
        said(users.ask(), ["update-ref", "--stdin"], Some(gone)).map(drop)
    }
}

/// Makes the index a tree, whatever the files are by now, and keeps what git knows of those that
/// are the same in both.
fn read_tree(users: &Users<'_>, tree: &str) -> Result<(), String> {
    let until = std::time::Instant::now() + LOCKED;
    loop {
        match users.run(["read-tree", "-i", "-m", tree]) {
            Err(_) if std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(200));
            }
            done => return done.map(drop).map_err(|why| format!("the index stays: {why}")),
        }
    }
}
