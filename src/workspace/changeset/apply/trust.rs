//! Which changes need an explicit yes: those that tools on the host execute or trust.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType};

use super::super::{Alteration, NewRepository, Node, RelPath};
use super::error::{ApplyError, NeedsYes, Obeyed};
use super::leads::Leads;
use crate::workspace::names::{GitMarks, fold, fold_path};
use crate::workspace::protected_names::{is_named_with, is_order_of, why_obeyed, why_protected};
use crate::workspace::walk::{open_folder, open_root};
use crate::workspace::{WorkspacePath, git_programs, gitconfig};

/// More steps than any honest way from link to link has.
const STEPS: usize = 256;

/// What is known of a workspace in which changes are to be carried over.
pub(super) struct Trust<'a> {
    root: BorrowedFd<'a>,
    /// What the run leaves at each path.
    after: HashMap<&'a Path, Option<&'a Node>>,
    /// Configured places, folded.
    extra: Vec<String>,
    /// What git's settings name, likewise.
    named: Vec<String>,
    /// Links with a trusted name, and their ends.
    places: Vec<PathBuf>,
    /// What the run adds to each folder of what git directories have.
    added: HashMap<&'a Path, GitMarks>,
    git: HashMap<PathBuf, bool>,
}

/// Those of the changes that agents or shells on the host will follow, and why.
pub(super) fn obeyed(changes: &[&Alteration]) -> Vec<Obeyed> {
    let orders = changes.iter().filter(|change| !is_folder(change)).filter_map(|change| {
        let path = change.path.as_path();
        let why = why_obeyed(path.parent()?, &fold(path.file_name()?))?;
        Some(Obeyed { path: change.path.to_string(), why })
    });
    orders.collect()
}

/// Returns those of the files, which commits change, that need a yes, and why.
pub fn protected_files(
    workspace: &WorkspacePath,
    extra: &[String],
    files: Vec<RelPath>,
) -> Result<Vec<(RelPath, &'static str)>, ApplyError> {
    let root = open_root(workspace.path()).map_err(|errno| ApplyError::Io {
        what: "open",
        path: workspace.path().display().to_string(),
        source: errno.into(),
    })?;
    let mut trust = Trust::of(workspace, root.as_fd(), extra, &[]);
    let judged =
        files.into_iter().filter_map(|file| Some((trust.why(file.as_path(), false)?, file)));
    Ok(judged.map(|(why, file)| (file, why)).collect())
}

/// Whether any part of a path is git's own, in whatever spelling.
pub(super) fn is_git(path: &RelPath) -> bool {
    path.as_path().iter().any(|name| fold(name) == ".git")
}

impl<'a> Trust<'a> {
    pub fn of(
        workspace: &WorkspacePath,
        root: BorrowedFd<'a>,
        extra: &[String],
        changes: &[&'a Alteration],
    ) -> Self {
        let leads = Leads::of(workspace.path(), root);
        let mut added: HashMap<&Path, GitMarks> = HashMap::new();
        for change in changes.iter().filter(|change| change.after.is_some()) {
            for path in change.path.as_path().ancestors() {
                if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
                    added.entry(folder).or_default().note(&fold(name));
                }
            }
        }
        let mut named = git_programs::effective(workspace.path());
        named.extend(leads.named);
        named.extend(of_repositories(workspace, root, changes));
        let mut trust = Self {
            root,
            after: changes.iter().map(|c| (c.path.as_path(), c.after.as_ref())).collect(),
            extra: extra.iter().filter_map(|path| fold_path(Path::new(path))).collect(),
            named: named.iter().filter_map(|path| fold_path(path)).collect(),
            places: Vec::new(),
            added,
            git: HashMap::new(),
        };
        // What a trusted name leads to by a link is as trusted.
        let ends: Vec<_> = leads.links.iter().filter_map(|link| trust.end_of(link)).collect();
        trust.places.extend(leads.links.into_iter().chain(ends));
        trust
    }

    /// Those of the changes that need a yes.
    pub fn needs(
        &mut self,
        changes: &[&Alteration],
        repositories: &[NewRepository],
    ) -> Vec<NeedsYes> {
        let mut needs = Vec::new();
        // Its files are ours; its commits are the run's.
        for made in repositories {
            if let Some(change) = changes.iter().find(|change| made.has(&change.path))
                && let Some(why) = self.of_commits(made)
            {
                let path = made.shown();
                needs.push(NeedsYes { path, why, change: (*change).clone() });
            }
        }
        let is_made = |path| repositories.iter().any(|made| made.has(path));
        for change in changes.iter().filter(|change| !is_made(&change.path)) {
            let why = self.why(change.path.as_path(), is_folder(change)).or_else(|| {
                let Some(Node::Link { target }) = &change.after else { return None };
                self.leads_astray(change.path.as_path(), OsStr::from_bytes(&target.0))
            });
            needs.extend(why.map(|why| NeedsYes {
                path: change.path.to_string(),
                why,
                change: (*change).clone(),
            }));
        }
        needs
    }

    fn of_commits(&mut self, made: &NewRepository) -> Option<&'static str> {
        let Some(files) = &made.files else { return Some("it has more commits than are judged") };
        let mut files = files.iter();
        files
            .any(|file| self.why(file.as_path(), false).is_some())
            .then_some("its commits change what tools on the host trust")
    }

    fn why(&mut self, path: &Path, is_folder: bool) -> Option<&'static str> {
        let last = path.components().count();
        for (at, place) in places_on(path).enumerate() {
            let (Some(folder), Some(name)) = (place.parent(), place.file_name()) else { continue };
            let name = fold(name);
            let is_last = at + 1 == last;
            let held = is_named_with(&name);
            if let Some(why) = why_protected(folder, &name) {
                // A folder holds nothing by itself, and a file of orders is another matter.
                let spared = match (is_last, is_folder) {
                    (true, true) => held,
                    (true, false) => why_obeyed(folder, &name).is_some(),
                    (false, true) => false,
                    (false, false) => at + 2 == last && is_order(path),
                };
                if !spared {
                    return Some(why);
                }
            }
            if is_last && !is_folder && held {
                return Some("it could lead to what tools on the host trust");
            }
        }
        let folded = fold_path(path)?;
        let below = |place: &String| {
            let rest = folded.strip_prefix(place.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        // What becomes of a folder on the way decides what is at its end.
        let above = |place: &String| {
            let rest = place.strip_prefix(folded.as_str());
            !is_folder && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        if self.extra.iter().any(|place| below(place) || above(place)) {
            return Some("it is in `workspace.protected`");
        }
        if self.named.iter().any(|place| below(place) || above(place)) {
            return Some("git on the host runs or reads it, by its settings");
        }
        let known =
            |place: &PathBuf| path.starts_with(place) || (!is_folder && place.starts_with(path));
        if self.places.iter().any(known) {
            return Some("git or another tool on the host is led to it");
        }
        let inside = path.ancestors().skip(1).any(|folder| self.is_git_directory(folder));
        inside.then_some("it is in what git takes for a repository")
    }

    /// Whether git would take a folder for a git directory, with what the run leaves in it.
    fn is_git_directory(&mut self, folder: &Path) -> bool {
        if let Some(known) = self.git.get(folder) {
            return *known;
        }
        let mut marks = self.added.get(folder).copied().unwrap_or_default();
        if let Ok(opened) = open_folder(self.root, folder)
            && let Ok(entries) = Dir::new(opened)
        {
            for entry in entries.flatten() {
                marks.note(&fold(OsStr::from_bytes(entry.file_name().to_bytes())));
            }
        }
        self.git.insert(folder.to_owned(), marks.is_git());
        marks.is_git()
    }

    /// Whether a link leads out of the workspace, or to a place that needs a yes, by whatever way.
    fn leads_astray(&mut self, path: &Path, target: &OsStr) -> Option<&'static str> {
        match self.follow(path, target) {
            Ok(end) => self.why(&end, false).map(|_| "a link to what tools on the host trust"),
            Err(why) => Some(why),
        }
    }

    /// Where a link ends, or why that is no place in the workspace.
    fn follow(&self, path: &Path, target: &OsStr) -> Result<PathBuf, &'static str> {
        const OUT: &str = "a link that leads out of the workspace";
        let parts = |path: &Path| path.iter().map(OsStr::to_owned).collect::<Vec<OsString>>();
        let mut at: PathBuf = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut way: VecDeque<OsString> = parts(Path::new(target)).into();
        for _ in 0..STEPS {
            let Some(name) = way.pop_front() else { return Ok(at) };
            if name == "/" {
                return Err(OUT);
            }
            if name == "." {
                continue;
            }
            if name == ".." {
                if !at.pop() {
                    return Err(OUT);
                }
                continue;
            }
            if fold(&name) == ".git" {
                return Err("a link into git's own folder");
            }
            at.push(&name);
            if let Some(next) = self.link_at(&at) {
                at.pop();
                for part in parts(Path::new(&next)).into_iter().rev() {
                    way.push_front(part);
                }
            }
        }
        Err(OUT)
    }

    /// Where a link of the workspace ends in it.
    fn end_of(&self, link: &Path) -> Option<PathBuf> {
        let end = self.follow(link, &self.link_at(link)?).ok()?;
        (!end.as_os_str().is_empty()).then_some(end)
    }

    fn link_at(&self, path: &Path) -> Option<OsString> {
        if let Some(after) = self.after.get(path) {
            return match after {
                Some(Node::Link { target }) => Some(OsStr::from_bytes(&target.0).to_owned()),
                _ => None,
            };
        }
        let parent = open_folder(self.root, path.parent()?).ok()?;
        let name = path.file_name()?;
        let stat = rustix::fs::statat(parent.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return None;
        }
        let target = rustix::fs::readlinkat(parent.as_fd(), name, Vec::new()).ok()?;
        Some(OsStr::from_bytes(target.to_bytes()).to_owned())
    }
}

/// A path and all above it, from the top.
fn places_on(path: &Path) -> impl Iterator<Item = &Path> {
    let mut places: Vec<_> = path.ancestors().filter(|place| place.file_name().is_some()).collect();
    places.reverse();
    places.into_iter()
}

fn is_order(path: &Path) -> bool {
    let name = path.file_name().map(fold).unwrap_or_default();
    path.parent().is_some_and(|folder| is_order_of(folder, &name))
}

/// What the settings of repositories name that changes are in.
fn of_repositories(
    workspace: &WorkspacePath,
    root: BorrowedFd<'_>,
    changes: &[&Alteration],
) -> Vec<PathBuf> {
    let folders = changes.iter().flat_map(|change| change.path.as_path().ancestors().skip(1));
    let folders: HashSet<_> = folders.collect();
    let mut named = Vec::new();
    for folder in folders {
        let git = folder.join(".git");
        if let Some(settings) = gitconfig::settings(root, &git) {
            named.extend(git_programs::of_settings(workspace.path(), folder, &settings));
        }
    }
    named
}

/// Whether it was and stays a folder, or is one that comes or goes: those hold nothing by
/// themselves.
fn is_folder(change: &Alteration) -> bool {
    let folder = |node: &Option<Node>| !matches!(node, Some(Node::File { .. } | Node::Link { .. }));
    folder(&change.before) && folder(&change.after)
}
