//! Repositories that a run has made in its view: git on this machine makes them again, from objects
//! that are checked and settings that are harmless. No file of the run's own git directory is used.

use std::fs::Permissions;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::AtFlags;
use tempfile::TempDir;

use super::bring::COMMITS;
use super::harmless::harmless_of;
use super::news::News;
use super::quarantine::index_pack;
use super::read::{is_folder, is_id, look, open_absolute, small};
use super::start::Repository;
use super::users::{Users, input, said};
use crate::text::one_line;
use crate::workspace::gitconfig::{LARGEST, parse, settings_of};
use crate::workspace::layer::Layer;
use crate::workspace::walk::{Entry, Limits, Visitor, open_folder, open_root, walk};

/// Most repositories of one run.
const MOST: usize = 16;

/// Most of the list of commits at which a shallow history ends.
const SHALLOW: u64 = 1 << 20;

/// Sections of settings that belong to the machine and to the format, and not to the project.
const OWN: &[&str] = &["core", "extensions"];

/// A repository as git on this machine has made it again. It is removed with this.
#[derive(Debug)]
pub struct Rebuilt {
    _folder: TempDir,
    /// Its git directory.
    pub git: PathBuf,
    /// All files of its commits, relative to the workspace; none where those are too many.
    pub files: Option<Vec<PathBuf>>,
    pub commits: usize,
    /// The names of settings that stay behind.
    pub dropped: Vec<String>,
}

/// Returns the repositories in what a run has written that the workspace has not, and true if there
/// are more. `inside` is where the workspace is in the sandbox. Blocking.
pub fn made(layer: &Path, workspace: &Path, inside: &Path) -> (Vec<Repository>, bool) {
    let (Ok(written), Ok(users)) = (open_root(layer), open_root(workspace)) else {
        return (Vec::new(), false);
    };
    let mut look = Look { found: Vec::new() };
    walk(written.as_fd(), Limits::default(), &mut look);
    let is_new = |git: &PathBuf| {
        let folder = open_folder(users.as_fd(), git.parent().unwrap_or(Path::new("")));
        folder.is_err()
            || folder.is_ok_and(|folder| {
                rustix::fs::statat(&folder, ".git", AtFlags::SYMLINK_NOFOLLOW).is_err()
            })
    };
    let mut found: Vec<_> = look.found.into_iter().filter(is_new).collect();
    let is_more = found.len() > MOST;
    found.truncate(MOST);
    let made = |git: PathBuf| {
        let opened = open_folder(written.as_fd(), &git).ok()?;
        let settings = settings_of(opened.as_fd(), "config").unwrap_or_default();
        let is_sha256 = settings.iter().any(|setting| {
            (&*setting.section, &*setting.key) == ("extensions", "objectformat")
                && setting.value.as_deref() == Some("sha256")
        });
        let place = git.parent()?.to_owned();
        Some(Repository {
            began: None,
            git: workspace.join(&git),
            common: workspace.join(&git),
            stores: Vec::new(),
            // Absolute: it is in the view and not among the copies.
            copy: layer.join(&git),
            inside: inside.join(&git),
            worktree: inside.join(&place),
            place,
            prefix: PathBuf::new(),
            format: if is_sha256 { "sha256" } else { "sha1" }.to_owned(),
            branch: None,
            commit: None,
            refs: std::collections::BTreeMap::new(),
            index: None,
            index_inside: None,
        })
    };
    (found.into_iter().filter_map(made).collect(), is_more)
}

struct Look {
    found: Vec<PathBuf>,
}

impl Visitor for Look {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        if entry.name != ".git" {
            return true;
        }
        let git = open_folder(entry.folder(), Path::new(entry.name));
        if git.is_ok_and(|git| is_git(git.as_fd())) {
            self.found.push(folder.join(entry.name));
        }
        false
    }
}

fn is_git(folder: BorrowedFd<'_>) -> bool {
    look(folder, "HEAD").is_some() && is_folder(folder, "objects") && is_folder(folder, "refs")
}

/// Makes a repository of a run again, outside of the workspace. `tree` is that of its index.
/// Blocking.
pub fn rebuild(
    repository: &Repository,
    layer: &Layer,
    news: &News,
    tree: Option<&str>,
) -> Result<Rebuilt, String> {
    let io = |error: std::io::Error| error.to_string();
    clear(layer).map_err(io)?;
    let name = name(layer);
    let theirs = open_absolute(&repository.copy).map_err(|errno| errno.to_string())?;
    let workspace = layer.workspace().metadata().map_err(io)?;
    let owner = (workspace.uid(), workspace.gid());
    let is_another = rustix::process::geteuid().is_root() && owner.0 != 0;
    let place = if is_another { shared().next() } else { Some(layer.folder().to_owned()) };
    let place = place.ok_or("its owner can reach no folder for temporary files")?;
    let mut named = tempfile::Builder::new();
    let named = named.prefix(&name).rand_bytes(0).permissions(Permissions::from_mode(0o700));
    let folder = named.tempdir_in(place).map_err(io)?;
    if is_another {
        std::os::unix::fs::lchown(folder.path(), Some(owner.0), Some(owner.1)).map_err(io)?;
    }
    let git = folder.path().join(".git");
    let users = Users::new(&git, folder.path(), owner);
    let format = format!("--object-format={}", repository.format);
    said(users.at(&git)?, &["init", "--quiet", "--template=", &format])?;
    let shallow = small(theirs.as_fd(), "shallow", SHALLOW).unwrap_or_default();
    let shallow = String::from_utf8_lossy(&shallow);
    let shallow: String =
        shallow.lines().filter(|id| is_id(id)).flat_map(|id| [id, "\n"]).collect();
    if !shallow.is_empty() {
        std::fs::write(git.join("shallow"), shallow).map_err(io)?;
    }
    let pack = repository.pack(Path::new("/")).ok_or("git in the sandbox wrote no pack")?;
    index_pack(users, &git, pack)?;
    point(users, news)?;
    said(users.at(&git)?, &["pack-refs", "--all"])?;
    if let Some(tree) = tree.filter(|tree| is_id(tree)) {
        said(users.at(&git)?, &["read-tree", tree])?;
    }
    let count = users.run(&["rev-list", "--all", "--count"])?;
    let count: usize = count.trim().parse().map_err(|_| "git counts in another way")?;
    // What is too much to be listed is too much to be judged.
    let files = (count <= COMMITS).then(|| {
        let commits = users.run(&["rev-list", "--all"]).ok()?;
        users.files(&commits, &repository.place).ok()
    });
    let files = files.flatten();
    // Last of all: from here on, git is no longer run in it by us.
    let dropped =
        settle(&git, &small(theirs.as_fd(), "config", LARGEST).unwrap_or_default()).map_err(io)?;
    Ok(Rebuilt { _folder: folder, git, files, commits: count, dropped })
}

/// Removes what a process left that died while it made a repository again. Blocking.
pub fn clear(layer: &Layer) -> std::io::Result<()> {
    for place in shared().chain([layer.folder().to_owned()]) {
        match std::fs::remove_dir_all(place.join(name(layer))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a temporary folder of a run's, the same each time.
fn name(layer: &Layer) -> String {
    let run = layer.run().map(|run| run.to_string()).unwrap_or_default();
    format!("sandbox-mcp-git-{run}")
}

/// Folders for temporary files that every user reaches: git works as the workspace's owner, who
/// reaches no folder of root's.
fn shared() -> impl Iterator<Item = PathBuf> {
    let is_open =
        |path: &Path| path.metadata().is_ok_and(|found| found.permissions().mode() & 0o001 != 0);
    let places = [std::env::temp_dir(), "/var/tmp".into(), "/tmp".into()];
    places.into_iter().filter(move |place| place.ancestors().all(is_open))
}

/// Makes the references, and what is checked out.
fn point(users: Users<'_>, news: &News) -> Result<(), String> {
    let (stashes, refs): (Vec<_>, Vec<_>) =
        news.refs.iter().partition(|(name, _)| name.contains("stash"));
    let named = refs.iter().filter(|(name, _)| name.starts_with("refs/"));
    let created: String = named.flat_map(|(name, id)| ["create ", name, " ", id, "\n"]).collect();
    said(users.ask()?.input(input(&created)?), &["update-ref", "--stdin"])?;
    match (&news.branch, &news.commit) {
        (Some(branch), _) => users.run(&["symbolic-ref", "HEAD", branch])?,
        (None, Some(commit)) => users.run(&["update-ref", "--no-deref", "HEAD", commit])?,
        (None, None) => String::new(),
    };
    // The oldest first, as they were made: `refs/stash` itself is the newest.
    let mut stashes: Vec<_> = stashes
        .into_iter()
        .map(|(name, id)| {
            let number = name.strip_prefix("stash@{").and_then(|rest| rest.strip_suffix('}'));
            (number.and_then(|number| number.parse::<u32>().ok()).unwrap_or(0), id)
        })
        .collect();
    stashes.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    for (_, id) in stashes {
        let subject = users.run(&["log", "--no-walk", "--format=%s", id])?;
        let subject = one_line(&subject, 200);
        users.run(&["update-ref", "--create-reflog", "-m", &subject, "refs/stash", id])?;
    }
    Ok(())
}

/// Adds the run's settings to those of `git init`, as far as they are harmless. Returns the names of
/// those that are not.
fn settle(git: &Path, theirs: &[u8]) -> std::io::Result<Vec<String>> {
    let (settings, is_sound) = parse(&String::from_utf8_lossy(theirs));
    let theirs = settings.into_iter().filter(|setting| !OWN.contains(&&*setting.section));
    let theirs = harmless_of(theirs, is_sound);
    let path = git.join("config");
    let mut text = std::fs::read_to_string(&path)?;
    text.push_str(&theirs.text);
    std::fs::write(&path, text)?;
    Ok(theirs.dropped)
}
