//! Giving a sandbox the git directory of its workspace: a copy of its small files, and its objects
//! read-only.
//!
//! | in the copy | what |
//! |---|---|
//! | `objects/` | empty: what is new inside |
//! | `borrowed/N/objects` | an object store of the user's, read-only |
//! | `borrowed/N/lfs/objects` | what git-lfs keeps beside it, read-only |
//! | `modules/…` | the same of each submodule |
//! | `worktrees/NAME` | the administration of this worktree, and of no other |

use std::borrow::Cow;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::WorkspacePath;
use super::super::refuse::Ours;
use super::copy::{Copier, CopyError, Part};
use super::find::{Found, Refused, find_around, stores};
use super::inspect::Inside;
use super::narrow::narrow;
use super::read::{look, open_absolute, resolved};
use super::settings::{OfTheUser, of_the_user, path_setting};
use super::start::{Repository, head, index, note, references};

/// How often a repository is copied afresh that changes meanwhile.
const TRIES: usize = 3;

/// Something to be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitMount {
    pub what: Cow<'static, str>,
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    pub read_only: bool,
}

/// What a sandbox gets of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub mounts: Vec<GitMount>,
    /// Places of the workspace that these mounts cover.
    pub covered: Vec<PathBuf>,
    /// That of the workspace first. Empty where there is none, or none that can be given.
    pub repositories: Vec<Repository>,
    pub remarks: Vec<String>,
    /// Folders of the user's that are mounted, with their devices and inodes.
    sources: Vec<(PathBuf, (u64, u64))>,
}

impl Given {
    /// No git, and why.
    pub fn nothing(why: String) -> Self {
        Self { remarks: vec![why], ..Self::default() }
    }

    /// Whether what is mounted of the user's is still what was found: the engine goes by names, and
    /// follows links. To be asked when everything is mounted, too.
    pub fn is_as_it_was(&self) -> bool {
        self.sources.iter().all(|(path, inode)| inode_of(path) == Some(*inode))
    }
}

/// Device and inode of a folder that no link leads to.
fn inode_of(path: &Path) -> Option<(u64, u64)> {
    let found = rustix::fs::fstat(open_absolute(path).ok()?).ok()?;
    Some((found.st_dev, found.st_ino))
}

/// Copies the git directory of a workspace into `into`, an empty folder, for a sandbox that has the
/// workspace at `inside` and works as `who`. `lenders` are object stores elsewhere that it may borrow
/// from. Blocking.
pub fn give(
    workspace: &WorkspacePath,
    inside: &Path,
    who: Inside,
    into: &Path,
    lenders: &[PathBuf],
) -> Result<Given, CopyError> {
    give_for(workspace.path(), inside, who, into, (&Ours::here(), lenders))
}

pub(super) fn give_for(
    workspace: &Path,
    inside: &Path,
    who: Inside,
    into: &Path,
    (ours, lenders): (&Ours, &[PathBuf]),
) -> Result<Given, CopyError> {
    let refused = |Refused(why)| Given::nothing(why);
    let (top, found) = match find_around(workspace, ours) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Given::default()),
        Err(why) => return Ok(refused(why)),
    };
    let prefix = workspace.strip_prefix(&top).unwrap_or(Path::new("")).to_owned();
    let Some(inside) = without_end(inside, &prefix) else {
        return Ok(Given::nothing(format!(
            "git does not work in this run: the workspace is a subfolder of {}, and its path inside \
             does not end with {}; leave `sandbox.path` out",
            top.display(),
            prefix.display()
        )));
    };
    let top = &*top;
    let root = rustix::process::geteuid().is_root();
    let owner = root.then_some((who.uid, who.gid));
    let user = of_the_user(top);
    for left in (0..TRIES).rev() {
        let before = state(&found);
        let mut giving = Giving {
            top,
            inside,
            prefix: &prefix,
            into,
            within: [top, &found.common].into_iter().chain(lenders.iter().map(|l| &**l)).collect(),
            copier: Copier::new(owner),
            user: &user,
            given: Given::default(),
        };
        match giving.all(&found) {
            Ok(()) => {
                let users = giving
                    .given
                    .mounts
                    .iter()
                    .filter(|mount| mount.read_only && !mount.source.starts_with(into));
                let known = users.filter_map(|m| Some((m.source.clone(), inode_of(&m.source)?)));
                giving.given.sources = known.collect();
            }
            Err(Stopped::Refused(why)) => return Ok(refused(why)),
            Err(Stopped::Copy(error)) => return Err(error),
        }
        // Something of another moment could be in it.
        if left == 0 || state(&found) == before {
            note(into, &giving.given)?;
            return Ok(giving.given);
        }
        for entry in fs::read_dir(into).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            removed.map_err(|source| CopyError::Io { path, source })?;
        }
    }
    unreachable!("the last try is the last")
}

/// What changes when git changes anything that is copied.
fn state(found: &Found) -> Vec<Option<(u64, i64, u64)>> {
    let of = |folder: &Path, name: &str| {
        let opened = open_absolute(folder).ok()?;
        let file = look(opened.as_fd(), name)?;
        // Types differ from one system to another.
        #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, clippy::cast_possible_wrap)]
        Some((file.st_ino as u64, file.st_mtime as i64, file.st_mtime_nsec as u64))
    };
    let own = ["HEAD", "index", "logs"].map(|name| of(&found.git, name));
    let shared = ["packed-refs", "refs", "config", "shallow"].map(|name| of(&found.common, name));
    let heads = of(&found.common.join("refs"), "heads");
    own.into_iter().chain(shared).chain([heads, of(&found.git.join("logs"), "HEAD")]).collect()
}

/// A path without what it ends with.
fn without_end<'a>(path: &'a Path, end: &Path) -> Option<&'a Path> {
    path.ends_with(end).then(|| path.ancestors().nth(end.components().count())).flatten()
}

pub(super) enum Stopped {
    Refused(Refused),
    Copy(CopyError),
}

impl From<Refused> for Stopped {
    fn from(why: Refused) -> Self {
        Self::Refused(why)
    }
}

impl From<CopyError> for Stopped {
    fn from(error: CopyError) -> Self {
        Self::Copy(error)
    }
}

/// The giving of one repository, as far as it has come.
pub(super) struct Giving<'a> {
    /// The working tree, on this machine and inside, and the workspace in it.
    pub top: &'a Path,
    pub inside: &'a Path,
    pub prefix: &'a Path,
    pub into: &'a Path,
    /// The only places of object stores: working tree, repository, and what a person has named.
    pub within: Vec<&'a Path>,
    pub copier: Copier,
    pub user: &'a OfTheUser,
    pub given: Given,
}

impl Giving<'_> {
    fn all(&mut self, found: &Found) -> Result<(), Stopped> {
        let opened = |path: &Path| {
            open_absolute(path)
                .map_err(|errno| CopyError::Io { path: path.to_owned(), source: errno.into() })
        };
        let common_inside = self.place_of(&found.common)?;
        // Before anything is written: what is refused leaves nothing.
        let stores = stores(&found.common, &self.within)?;
        let common = opened(&found.common)?;
        let git = opened(&found.git)?;
        let to = self.into.join("git");
        let separate = found.pointer.is_some() && !found.is_worktree();
        let (own, own_inside) = match found.git.strip_prefix(&found.common) {
            Ok(below) if found.is_worktree() => {
                self.copier.part(common.as_fd(), &to, Part::Common, None)?;
                let own = self.copier.folders(&to, below)?;
                self.copier.part(git.as_fd(), &own, Part::Worktree, None)?;
                self.copier.write(&own.join("commondir"), b"../..\n")?;
                let pointer = format!("{}\n", self.inside.join(".git").display());
                self.copier.write(&own.join("gitdir"), pointer.as_bytes())?;
                (own, common_inside.join(below))
            }
            _ => {
                let worktree = separate.then_some(self.inside);
                self.copier.part(common.as_fd(), &to, Part::Whole, worktree)?;
                (to.clone(), common_inside.clone())
            }
        };
        self.narrow(&to, &own)?;
        self.finish(Finish {
            found,
            stores,
            to: &to,
            own: &own,
            inside: &common_inside,
            own_inside: &own_inside,
            place: Some(PathBuf::new()),
        })?;
        self.given.mounts.push(GitMount {
            what: "copy of the git directory".into(),
            source: to.clone(),
            target: common_inside.clone(),
            read_only: false,
        });
        if let Ok(below) = found.common.strip_prefix(self.top) {
            self.cover(below);
        }
        if let Some(pointer) = &found.pointer {
            self.point(Path::new(""), pointer, &own_inside)?;
        }
        self.modules(git.as_fd(), found, &own, &own_inside, 0)?;
        // The engine mounts what is above first, but need not.
        self.given.mounts.sort_by_key(|mount| mount.target.components().count());
        Ok(())
    }

    /// Notes a place of the working tree that a mount covers, if it is in the workspace.
    fn cover(&mut self, place: &Path) {
        self.given.covered.extend(place.strip_prefix(self.prefix).ok().map(Path::to_owned));
    }

    /// In a subfolder, says to git that the rest of the working tree is not checked out.
    fn narrow(&mut self, to: &Path, own: &Path) -> Result<(), Stopped> {
        if self.prefix.as_os_str().is_empty() {
            return Ok(());
        }
        narrow(self.prefix, to, own).map_err(|why| {
            Refused(format!(
                "git does not work in this run: the workspace is a subfolder of {}, and {why}",
                self.top.display()
            ))
        })?;
        // Before the first file is added there is no index.
        let index = Some(own.join("index")).filter(|index| index.exists());
        let written = [own.join("info/sparse-checkout"), to.join("config")];
        for written in index.into_iter().chain(written) {
            self.copier.own(&written)?;
        }
        self.given.remarks.push(format!(
            "the workspace is a subfolder of the repository {}: the agent can read the history of \
             all of it, and has no files of it but these; `workspace.git = \"none\"` shuts it",
            self.top.display()
        ));
        Ok(())
    }

    /// Where something of this machine is inside.
    fn place_of(&self, path: &Path) -> Result<PathBuf, Refused> {
        if let Ok(below) = path.strip_prefix(self.top) {
            return Ok(self.inside.join(below));
        }
        if path.starts_with(self.inside) || self.inside.starts_with(path) {
            return Err(Refused(format!(
                "git does not work in this run: {} would lie in the workspace inside",
                path.display()
            )));
        }
        Ok(path.to_owned())
    }

    /// What every copy gets when its files are there: its stores, the user's settings, and its
    /// place among the repositories.
    pub fn finish(&mut self, what: Finish<'_>) -> Result<(), CopyError> {
        let Finish { found, stores, to, own, inside, own_inside, place } = what;
        let mut alternates = String::new();
        for (number, store) in stores.iter().enumerate() {
            let place = Path::new("borrowed").join(number.to_string());
            self.copier.folders(to, &place.join("objects"))?;
            let objects = inside.join(&place).join("objects");
            alternates.push_str(&objects.to_string_lossy());
            alternates.push('\n');
            let mut mount = |what: &'static str, source: PathBuf, target: PathBuf| {
                let what = what.into();
                self.given.mounts.push(GitMount { what, source, target, read_only: true });
            };
            mount("objects of the repository", store.clone(), objects.clone());
            let borrows = open_absolute(store)
                .is_ok_and(|store| look(store.as_fd(), "info/alternates").is_some());
            if borrows {
                // All of them are listed already, and their own names are not there inside.
                let empty = self.into.join("empty");
                fs::write(&empty, b"")
                    .map_err(|source| CopyError::Io { path: empty.clone(), source })?;
                mount("no further objects", empty, objects.join("info/alternates"));
            }
            let lfs = store.parent().map(|git| git.join("lfs/objects"));
            if let Some(lfs) = lfs.filter(|lfs| open_absolute(lfs).is_ok()) {
                mount(
                    "git-lfs objects of the repository",
                    lfs,
                    inside.join(&place).join("lfs/objects"),
                );
                self.copier.folders(to, &place.join("lfs/objects"))?;
            }
        }
        self.copier.write(&to.join("objects/info/alternates"), alternates.as_bytes())?;
        self.of_the_user(to, inside)?;
        let Some(place) = place else { return Ok(()) };
        let refs = references(to);
        let (branch, commit) = head(own, &refs);
        let config = fs::read_to_string(to.join("config")).unwrap_or_default();
        let sha256 = config.contains("objectformat = \"sha256\"");
        self.given.repositories.push(Repository {
            began: None,
            prefix: self.prefix.to_owned(),
            worktree: self.inside.join(&place),
            place,
            git: found.git.clone(),
            common: found.common.clone(),
            stores,
            copy: own.strip_prefix(self.into).unwrap_or(own).to_owned(),
            inside: own_inside.to_owned(),
            format: if sha256 { "sha256" } else { "sha1" }.to_owned(),
            branch,
            commit,
            index: index(&found.git),
            index_inside: index(own),
            refs,
        });
        Ok(())
    }

    /// Adds the user's own settings below those of the repository.
    fn of_the_user(&mut self, to: &Path, inside: &Path) -> Result<(), CopyError> {
        let mut text = self.user.text.clone();
        for (content, key, name) in [
            (&self.user.excludes, "excludesFile", "user-excludes"),
            (&self.user.attributes, "attributesFile", "user-attributes"),
        ] {
            if let Some(content) = content {
                self.copier.write(&to.join(name), content)?;
                text.push_str(&path_setting(key, &inside.join(name)));
            }
        }
        let config = to.join("config");
        let own = fs::read_to_string(&config)
            .map_err(|source| CopyError::Io { path: config.clone(), source })?;
        // The last one counts, and that is the repository's own.
        self.copier.write(&config, format!("{text}{own}").as_bytes())
    }

    /// Makes a `.git` file that leads to where a git directory is inside, unless the view has one that
    /// does already.
    pub fn point(&mut self, place: &Path, pointer: &str, to: &Path) -> Result<(), CopyError> {
        let is_in_view = place.starts_with(self.prefix);
        if is_in_view && resolved(&self.inside.join(place), pointer) == to {
            return Ok(());
        }
        let number = self.given.covered.len();
        let file = self.into.join(format!("pointer-{number}"));
        self.copier.write(&file, format!("gitdir: {}\n", to.display()).as_bytes())?;
        let place = place.join(".git");
        self.given.mounts.push(GitMount {
            what: "way to the git directory".into(),
            source: file,
            target: self.inside.join(&place),
            read_only: true,
        });
        self.cover(&place);
        Ok(())
    }
}

/// A git directory whose files are copied.
pub(super) struct Finish<'a> {
    pub found: &'a Found,
    pub stores: Vec<PathBuf>,
    /// Where the common part was copied to, and that of the working tree.
    pub to: &'a Path,
    pub own: &'a Path,
    pub inside: &'a Path,
    pub own_inside: &'a Path,
    /// Relative to the workspace; none where no working tree there belongs to it.
    pub place: Option<PathBuf>,
}
