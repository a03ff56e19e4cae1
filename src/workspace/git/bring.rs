//! Taking what a run committed into the user's repository, below `refs/sandbox/<run>/`.
//!
//! The pack comes from inside and is hostile. It is checked in a repository of its own, which
//! borrows the user's objects, and fetched from there by name; no other file of the copy is used.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::host::Ask;
use super::news::{News, PACK_BYTES};
use super::read::{is_id, open_absolute, open_file, small};
use super::start::{Repository, index};
use crate::ids::RunId;
use crate::text::one_line;

/// Time for one command of git, and for a lock that another process holds.
const TIME: Duration = Duration::from_secs(60);
const LOCKED: Duration = Duration::from_secs(5);

/// Most that one command may print.
const OUTPUT: u64 = 16 << 20;

/// Most commits that are looked into, and most that are listed.
const COMMITS: usize = 1_000;
const LISTED: usize = 20;

/// Most of the list of commits at which a shallow history ends.
const SHALLOW: u64 = 64 << 20;

/// The user's own references, whose commits are not new.
const NAMED: &[&str] = &["--not", "--branches", "--tags", "--remotes"];

/// Commits, branches and the index that a run left in one repository, as its record keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// The working tree, relative to the workspace.
    place: PathBuf,
    workspace: PathBuf,
    git: PathBuf,
    /// References in the user's repository; none after they were removed.
    refs: Vec<String>,
    /// The branch that is checked out, and its commit before and after the run. No branch where
    /// nothing is to be moved.
    pub branch: Option<String>,
    from: Option<String>,
    to: Option<String>,
    /// The number of new commits, and the first of them with their subjects.
    pub count: usize,
    pub commits: Vec<String>,
    /// Trees of the index, before and after the run.
    old_index: Option<String>,
    new_index: Option<String>,
    /// The branch and the index are as the run left them.
    pub moved: bool,
}

/// The user's repository, and whom its files belong to.
#[derive(Clone, Copy)]
struct Users<'a> {
    git: &'a Path,
    top: &'a Path,
    owner: (u32, u32),
}

impl<'a> Users<'a> {
    fn of(git: &'a Path, top: &'a Path) -> Result<Self, String> {
        let found = std::fs::symlink_metadata(git).map_err(|error| {
            format!("{} cannot be read: {error}", one_line(&git.display().to_string(), 160))
        })?;
        Ok(Self { git, top, owner: (found.uid(), found.gid()) })
    }

    /// Git as the owner, in another repository of the owner's.
    fn at(self, git: &Path) -> Result<Ask, String> {
        self.of_owner(Ask::at(self.top), git)
    }

    fn of_owner(self, ask: Option<Ask>, git: &Path) -> Result<Ask, String> {
        let ask = ask.ok_or("there is no git on this machine")?;
        Ok(ask.of_owner(self.owner).env("GIT_DIR", git))
    }

    fn ask(self) -> Result<Ask, String> {
        Ok(self.at(self.git)?.env("GIT_WORK_TREE", self.top))
    }

    fn run(self, args: &[&str]) -> Result<String, String> {
        said(self.ask()?, args)
    }

    /// The tree that git names.
    fn tree(self, args: &[&str]) -> Option<String> {
        self.run(args).ok().map(|said| said.trim().to_owned()).filter(|id| is_id(id))
    }
}

/// Runs git, and returns its output or which command failed.
fn said(ask: Ask, args: &[&str]) -> Result<String, String> {
    let answer = ask.args(args).run(TIME, OUTPUT);
    if answer.ok {
        return Ok(String::from_utf8_lossy(&answer.stdout).into_owned());
    }
    let command = args.iter().find(|word| !word.starts_with('-')).copied().unwrap_or_default();
    Err(format!("`git {command}` failed"))
}

/// A file that git reads as its standard input.
fn input(text: &str) -> Result<Stdio, String> {
    let mut file = tempfile::tempfile().map_err(|error| error.to_string())?;
    file.write_all(text.as_bytes()).map_err(|error| error.to_string())?;
    file.rewind().map_err(|error| error.to_string())?;
    Ok(Stdio::from(file))
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
    let top = workspace.join(&repository.place);
    let users = Users::of(&repository.git, &top)?;
    let quarantine = Quarantine::make(run, repository, users)?;
    let old_index = quarantine.old_index(repository, users)?;
    let new_index = tree.filter(|id| is_id(id)).map(str::to_owned);
    let changed = new_index.iter().filter(|tree| Some(*tree) != old_index.as_ref());
    let ids: Vec<&String> = news.refs.iter().map(|(_, id)| id).chain(changed).collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let refs = quarantine.take(run, repository, folder, &ids)?;
    // The branch of this working tree alone, and only where the run stayed on it.
    let branch = news.branch.clone().filter(|_| news.branch == repository.branch);
    let mut brought = Brought {
        place: repository.place.clone(),
        workspace: workspace.to_owned(),
        git: repository.git.clone(),
        refs,
        branch,
        from: repository.commit.clone(),
        to: news.commit.clone(),
        count: 0,
        commits: Vec::new(),
        old_index,
        new_index,
        moved: false,
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

/// A repository that borrows the user's objects, for objects that are not checked yet.
struct Quarantine<'a> {
    folder: TempDir,
    git: PathBuf,
    users: Users<'a>,
}

impl<'a> Quarantine<'a> {
    /// A folder where the owner of the repository reaches it. The name is the same for the same
    /// run, which comes again after a crash; `git gc` removes it, too.
    fn make(run: &RunId, repository: &Repository, users: Users<'a>) -> Result<Self, String> {
        let objects = repository.common.join("objects");
        open_absolute(&objects).map_err(|errno| errno.to_string())?;
        let name = format!("tmp_objdir-sandbox-mcp-{run}");
        match std::fs::remove_dir_all(objects.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        let folder = tempfile::Builder::new().prefix(&name).rand_bytes(0).tempdir_in(objects);
        let folder = folder.map_err(|error| error.to_string())?;
        let quarantine = Self { git: folder.path().join("git"), folder, users };
        quarantine.own(quarantine.folder.path())?;
        Ok(quarantine)
    }

    fn own(&self, path: &Path) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let (uid, gid) = self.users.owner;
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).map_err(|error| error.to_string())
    }

    /// The tree of the user's index, where it is as at the start. Git writes into an index when it
    /// is asked for its tree, so a copy is asked.
    fn old_index(
        &self,
        repository: &Repository,
        users: Users<'_>,
    ) -> Result<Option<String>, String> {
        let copy = self.folder.path().join("index");
        let git = open_absolute(&repository.git).map_err(|errno| errno.to_string())?;
        if let Ok(mut theirs) = open_file(git.as_fd(), "index".as_ref()) {
            let mut ours = File::create_new(&copy).map_err(|error| error.to_string())?;
            io::copy(&mut theirs, &mut ours).map_err(|error| error.to_string())?;
            self.own(&copy)?;
        }
        let asked = users.ask()?.env("GIT_INDEX_FILE", &copy);
        let Ok(now) = said(asked, &["write-tree"]) else { return Ok(None) };
        let now = now.trim().to_owned();
        if index(&repository.git) == repository.index {
            return Ok(Some(now));
        }
        // A look refreshes an index. What is as the last commit has nothing that the user staged.
        let Some(commit) = &repository.commit else { return Ok(None) };
        let last = users.tree(&["rev-parse", "--verify", &format!("{commit}^{{tree}}")]);
        Ok(last.filter(|last| *last == now))
    }

    /// Checks the pack, and has the user's repository fetch what it has. Returns the references.
    fn take(
        &self,
        run: &RunId,
        repository: &Repository,
        folder: &Path,
        ids: &[&String],
    ) -> Result<Vec<String>, String> {
        let users = self.users;
        let mut pack = repository.pack(folder).ok_or("git in the sandbox wrote no pack")?;
        let place = self.git.to_str().ok_or("the name of the repository is not UTF-8")?;
        let format = format!("--object-format={}", repository.format);
        let init = ["init", "--quiet", "--bare", "--template=", &format, place];
        said(users.at(&self.git)?, &init)?;
        let mut stores = String::new();
        for store in &repository.stores {
            let store = store.to_str().filter(|store| !store.contains(['\n', '"']));
            stores.push_str(store.ok_or("an object store has an odd name")?);
            stores.push('\n');
        }
        std::fs::write(self.git.join("objects/info/alternates"), stores)
            .map_err(|error| error.to_string())?;
        let common = open_absolute(&repository.common).map_err(|errno| errno.to_string())?;
        if let Some(shallow) = small(common.as_fd(), "shallow", SHALLOW) {
            std::fs::write(self.git.join("shallow"), shallow).map_err(|error| error.to_string())?;
        }
        // Git refuses a pack of nothing, which is what is new of a branch on an old commit.
        if objects(&mut pack).map_err(|error| error.to_string())? > 0 {
            let most = format!("--max-input-size={PACK_BYTES}");
            let ask = users.of_owner(Ask::bounded(users.top), &self.git)?.input(Stdio::from(pack));
            said(
                ask,
                &["index-pack", "--stdin", "--strict", "--fsck-objects", "--fix-thin", &most],
            )?;
        }
        let refs: Vec<String> =
            (1..=ids.len()).map(|number| format!("refs/sandbox/{run}/{number}")).collect();
        let named = refs.iter().zip(ids);
        let created: String =
            named.flat_map(|(name, id)| ["create ", name, " ", id.as_str(), "\n"]).collect();
        said(users.at(&self.git)?.input(input(&created)?), &["update-ref", "--stdin"])?;
        let all = format!("+refs/sandbox/{run}/*:refs/sandbox/{run}/*");
        let ask = users.ask()?.env("GIT_ALLOW_PROTOCOL", "file");
        // Settings of the repository name no program here.
        let ask = ask.args(["-c", "core.alternateRefsCommand=true", "-c", "gc.auto=0"]);
        said(
            ask,
            &[
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-prune",
                "--no-auto-maintenance",
                "--no-recurse-submodules",
                "--refmap=",
                "--update-shallow",
                "--upload-pack=git-upload-pack",
                place,
                &all,
            ],
        )?;
        Ok(refs)
    }
}

/// The number of objects in a pack, which is read from its beginning afterwards.
fn objects(pack: &mut File) -> io::Result<u32> {
    let mut header = [0; 12];
    pack.read_exact(&mut header)?;
    pack.rewind()?;
    let [.., a, b, c, d] = header;
    Ok(u32::from_be_bytes([a, b, c, d]))
}

impl Brought {
    fn users<T>(&self, work: impl FnOnce(Users<'_>) -> Result<T, String>) -> Result<T, String> {
        work(Users::of(&self.git, &self.workspace.join(&self.place))?)
    }

    /// Returns true while a branch or an index of the user's is still to be changed.
    pub fn is_pending(&self) -> bool {
        let index = self.new_index.is_some() && self.new_index != self.old_index;
        !self.moved && self.branch.is_some() && (self.from != self.to || index)
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
            let ask = users.ask()?.input(input(&ids)?);
            let tree = ["diff-tree", "--stdin", "-r", "-m", "--root"];
            let ask = ask.args(tree).args(["--name-only", "--no-commit-id", "-z"]);
            let answer = ask.run(TIME, OUTPUT);
            if !answer.ok {
                return Err("`git diff-tree` failed".to_owned());
            }
            let names = answer.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
            let names: BTreeSet<&[u8]> = names.collect();
            Ok(names.into_iter().map(|name| self.place.join(OsStr::from_bytes(name))).collect())
        })
    }

    /// Moves the branch to where the run left it, and the index with it, if both are as at the
    /// start; or says why not. Blocking.
    pub fn advance(&mut self) -> Result<(), String> {
        let (old, new) = ((&self.from, &self.old_index), (&self.to, &self.new_index));
        self.switch(old, new)?;
        self.moved = true;
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
            if users.run(&["symbolic-ref", "HEAD"])?.trim() != branch {
                return Err(format!("another branch than `{short}` is checked out by now"));
            }
            if users.tree(&["rev-parse", "--verify", "--quiet", branch]) != *from {
                return Err(was_moved.clone());
            }
            let (Some(old), Some(new)) = (old, new) else {
                return Err("the index has unmerged files, or was changed meanwhile".to_owned());
            };
            if old != new {
                // Compares, and writes nothing.
                if users.run(&["diff-index", "--cached", "--quiet", old]).is_err() {
                    return Err("the index was changed meanwhile".to_owned());
                }
                read_tree(users, new)?;
            }
            let zero = "0".repeat(to.as_ref().or(from.as_ref()).map_or(40, String::len));
            let moved = match (to, from.as_ref().unwrap_or(&zero)) {
                _ if from == to => return Ok(()),
                (Some(to), from) => users.run(&[
                    "update-ref",
                    "-m",
                    "sandbox-mcp: commits of a run",
                    branch,
                    to,
                    from,
                ]),
                (None, from) => users.run(&["update-ref", "-d", branch, from]),
            };
            if moved.is_err() {
                read_tree(users, old)?;
                return Err(was_moved);
            }
            Ok(())
        })
    }

    /// Removes the references that came back. Blocking.
    pub fn forget(&mut self) -> Result<(), String> {
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
