//! What is to be done, and whether it can be: everything is looked at before anything is touched.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Dir, FileType, Stat};
use rustix::io::Errno;

use super::super::node::{Seen, look, name_of, same_content};
use super::super::{Alteration, Escaped, Manifest, NewRepository, Node, RelPath};
use super::error::{ApplyError, Conflict};
use super::folders::{Folders, folds_case};
use super::writers::written_to;
use crate::text::one_line;
use crate::workspace::names::fold;

/// One change to be made.
#[derive(Debug)]
pub(super) struct Todo<'a> {
    pub change: &'a Alteration,
    /// What is there now, if something is.
    pub stat: Option<Stat>,
}

impl Todo<'_> {
    pub fn path(&self) -> RelPath {
        self.change.path.clone()
    }

    /// Whether it is a file with further names that gets another content.
    pub fn is_linked(&self) -> bool {
        self.change.after.is_some()
            && self.replaces_file()
            && self.stat.as_ref().is_some_and(|stat| stat.st_nlink > 1)
    }

    /// Returns true for a file that is there and does not stay.
    pub fn replaces_file(&self) -> bool {
        let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let Alteration { before, after, .. } = self.change;
        !same_content(before.as_ref(), after.as_ref()) && self.stat.as_ref().is_some_and(is_file)
    }
}

#[derive(Debug, Default)]
pub(super) struct Plan<'a> {
    /// In the order of paths.
    pub todo: Vec<Todo<'a>>,
    /// What is as the run left it.
    pub already: Vec<&'a RelPath>,
    /// Folders that the run deleted and that hold something else now.
    pub kept: Vec<&'a RelPath>,
    /// Folders on the way that are not there, and that the list does not have.
    pub missing: Vec<PathBuf>,
    pub conflicts: Vec<Conflict>,
}

/// The changes that are asked for: all, or those at and below some paths, with what belongs to
/// them.
pub(super) fn select<'a>(
    manifest: &'a Manifest,
    only: &[String],
) -> Result<Vec<&'a Alteration>, ApplyError> {
    if only.is_empty() {
        return Ok(manifest.changes.iter().collect());
    }
    let by_path: HashMap<&Path, &Alteration> =
        manifest.changes.iter().map(|change| (change.path.as_path(), change)).collect();
    let mut to: HashMap<&Path, Vec<&Alteration>> = HashMap::new();
    for change in &manifest.changes {
        if let Some(from) = &change.from {
            to.entry(from.as_path()).or_default().push(change);
        }
    }
    let mut open: Vec<&Alteration> = Vec::new();
    for given in only {
        let path = named(manifest, given)?;
        // Half of a repository is none.
        let made = manifest.repositories.iter().map(|made| made.git.as_path());
        let path = made.into_iter().find(|made| path.starts_with(made)).unwrap_or(&path);
        let all = manifest.changes.iter();
        open.extend(all.filter(|change| change.path.as_path().starts_with(path)));
    }
    let mut chosen = HashSet::new();
    while let Some(change) = open.pop() {
        if !chosen.insert(change.path.as_path()) {
            continue;
        }
        // Both ends of a name that changed.
        open.extend(change.from.as_ref().and_then(|from| by_path.get(from.as_path())));
        open.extend(to.get(change.path.as_path()).into_iter().flatten());
        // New folders on the way, and what was in a folder that is none any more.
        if change.after.is_some() {
            let above = change.path.as_path().ancestors().skip(1);
            let made = above.filter_map(|path| by_path.get(path));
            open.extend(made.filter(|above| matches!(above.after, Some(Node::Folder { .. }))));
        }
        if matches!(change.before, Some(Node::Folder { .. }))
            && matches!(change.after, Some(Node::File { .. } | Node::Link { .. }))
        {
            let path = change.path.as_path();
            open.extend(manifest.changes.iter().filter(|c| c.path.as_path().starts_with(path)));
        }
    }
    let chosen = manifest.changes.iter().filter(|change| chosen.contains(change.path.as_path()));
    Ok(chosen.collect())
}

/// The path that is meant: as it is, as it is shown, or with `%XX` for what is not UTF-8.
pub(super) fn named(manifest: &Manifest, given: &str) -> Result<PathBuf, ApplyError> {
    let path = Path::new(given);
    let path = path.strip_prefix(&manifest.workspace).unwrap_or(path);
    let path: PathBuf = path.components().collect();
    let path = path.strip_prefix(".").unwrap_or(&path);
    let changed = |path: &Path| manifest.changes.iter().any(|c| c.path.as_path().starts_with(path));
    if !path.as_os_str().is_empty() && changed(path) {
        return Ok(path.to_owned());
    }
    let escaped = Escaped::try_from(given.to_owned()).ok();
    if let Some(path) = escaped.and_then(|bytes| RelPath::try_from(bytes).ok())
        && changed(path.as_path())
    {
        return Ok(path.as_path().to_owned());
    }
    let shown = given.trim_end_matches('/');
    let above = manifest.changes.iter().flat_map(|change| change.path.as_path().ancestors());
    let mut meant: Vec<_> = above
        .filter(|path| RelPath::new(*path).is_ok_and(|path| path.to_string() == shown))
        .collect();
    meant.sort_unstable();
    meant.dedup();
    match meant[..] {
        [one] => Ok(one.to_owned()),
        [] => Err(ApplyError::UnknownPath {
            given: one_line(given, 200),
            nearest: nearest(manifest, path),
        }),
        [one, ..] => Err(ApplyError::TwoPaths {
            given: one_line(given, 200),
            escaped: RelPath::new(one).map(|one| Escaped::from(one).into()).unwrap_or_default(),
        }),
    }
}

fn nearest(manifest: &Manifest, path: &Path) -> Option<String> {
    const LOOKED_AT: usize = 10_000;
    let wanted = path.to_string_lossy();
    let likeness = |change: &Alteration| {
        strsim::jaro_winkler(&change.path.as_path().to_string_lossy(), &wanted)
    };
    let known = manifest.changes.iter().take(LOOKED_AT);
    let near = known.map(|change| (likeness(change), change));
    near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, change)| change.path.to_string())
}

impl<'a> Plan<'a> {
    /// Looks at every path that is to change, in the folders that are changed later.
    pub fn make(
        folders: &mut Folders<'_>,
        changes: &[&'a Alteration],
        made: &[NewRepository],
        umask: Option<u32>,
    ) -> Result<Self, ApplyError> {
        let by_path: HashMap<&Path, &Alteration> =
            changes.iter().map(|change| (change.path.as_path(), *change)).collect();
        let mut plan = Self::default();
        let mut missing = HashSet::new();
        for change in changes.iter().copied() {
            match here(folders, change, &by_path)? {
                Here::Seen(seen) if is_index(change, made) => plan.judge_index(change, &seen),
                Here::Seen(seen) => plan.judge(change, &seen, umask),
                Here::Conflict(conflict) => plan.conflicts.push(conflict),
            }
            if change.after.is_some() {
                let above = change.path.as_path().ancestors().skip(1);
                let above = above.take_while(|path| !path.as_os_str().is_empty());
                let absent =
                    above.take_while(|path| matches!(folders.open(path), Err(Errno::NOENT)));
                missing.extend(absent.filter(|path| !by_path.contains_key(path)));
            }
        }
        plan.missing = missing.into_iter().map(Path::to_owned).collect();
        plan.missing.sort();
        plan.look_into_folders(folders, made);
        plan.look_for_writers();
        plan.look_for_namesakes(folders);
        Ok(plan)
    }

    fn judge(&mut self, change: &'a Alteration, seen: &Seen, umask: Option<u32>) {
        let folders = |one: Option<&Node>, other: Option<&Node>| {
            matches!((one, other), (Some(Node::Folder { .. }), Some(Node::Folder { .. })))
        };
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        // Whether a folder that came or went has the same mode matters to nobody.
        let made = before.is_none() && folders(seen.node(), after);
        let there = after.is_none() && folders(seen.node(), before);
        let ours = is_free(change, umask) && same_content(seen.node(), after);
        if seen.is(after) || made || ours {
            self.already.push(&change.path);
        } else if change.base_moved && before.is_some() {
            // What the run added where there is nothing takes nothing from anybody, even if the
            // folder around it has changed.
            self.conflicts.push(Conflict {
                at: change.path.clone(),
                path: change.path.to_string(),
                expected: describe(before),
                found: "a file that somebody else changed while the run went on".into(),
                advice: "compare with `sandbox-mcp diff`, and put the two together by hand",
            });
        } else if seen.is(before) || there {
            self.todo.push(Todo { change, stat: seen.stat().copied() });
        } else {
            let found = match seen {
                Seen::Nothing => describe(None),
                Seen::Node(node, _) => describe(Some(node)),
                Seen::OtherFile(stat) => {
                    format!("another file, of {} bytes", stat.st_size)
                }
                Seen::Special => "neither a file nor a folder".into(),
            };
            self.conflicts.push(Conflict {
                at: change.path.clone(),
                path: change.path.to_string(),
                expected: describe(before),
                found,
                advice: "it changed since the run began; put the two together by hand, or take the \
                         run's with `--take`",
            });
        }
    }

    /// An index goes with its repository. Each look with git writes it again, and what somebody has
    /// added since is an object, which the folder of objects shows.
    fn judge_index(&mut self, change: &'a Alteration, seen: &Seen) {
        match seen.stat() {
            Some(stat) => self.todo.push(Todo { change, stat: Some(*stat) }),
            None => self.already.push(&change.path),
        }
    }

    /// What another process is writing at the moment would be lost with the old file.
    fn look_for_writers(&mut self) {
        let inode = |todo: &Todo<'_>| {
            let stat = todo.stat.as_ref()?;
            let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            is_file.then_some((stat.st_dev, stat.st_ino))
        };
        let written = written_to(&self.todo.iter().filter_map(inode).collect());
        for todo in &self.todo {
            if inode(todo).is_some_and(|inode| written.contains(&inode)) {
                self.conflicts.push(Conflict {
                    at: todo.change.path.clone(),
                    path: todo.change.path.to_string(),
                    expected: describe(todo.change.before.as_ref()),
                    found: "a file that another process has open for writing".into(),
                    advice: "close it there and apply again",
                });
            }
        }
    }

    /// Names that are two in the run's view, and one in a folder that folds case.
    fn look_for_namesakes(&mut self, folders: &mut Folders<'_>) {
        let mut names: HashMap<(&Path, String), &RelPath> = HashMap::new();
        for Todo { change, .. } in self.todo.iter().filter(|todo| todo.change.after.is_some()) {
            let folder = change.path.as_path().parent().unwrap_or(Path::new(""));
            let other = names.insert((folder, fold(name_of(&change.path))), &change.path);
            // A new folder is like the one that it is made in.
            let there = folder.ancestors().find(|path| folders.open(path).is_ok());
            if let Some(other) = other
                && there.is_some_and(|path| folders.open(path).is_ok_and(folds_case))
            {
                self.conflicts.push(Conflict {
                    at: change.path.clone(),
                    path: change.path.to_string(),
                    expected: describe(change.before.as_ref()),
                    found: format!("one place with `{other}`, because case does not count there"),
                    advice: "apply one of them with `--only`",
                });
            }
        }
    }

    /// Which of the folders that the run deleted will be empty.
    fn look_into_folders(&mut self, folders: &mut Folders<'_>, made: &[NewRepository]) {
        let mut leaving: HashSet<PathBuf> = HashSet::new();
        let mut stay = HashSet::new();
        // From the deepest to the top: a folder sorts in front of what is in it.
        for todo in self.todo.iter().rev() {
            let change = todo.change;
            let path = change.path.as_path();
            let goes = !matches!(change.after, Some(Node::Folder { .. }));
            if goes && matches!(change.before, Some(Node::Folder { .. })) {
                let entries = folders.open(path).and_then(Dir::read_from);
                let empty = entries.is_ok_and(|entries| {
                    entries.flatten().all(|entry| {
                        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
                        name == "." || name == ".." || leaving.contains(&path.join(name))
                    })
                });
                if !empty {
                    if made.iter().any(|made| made.git == change.path) {
                        self.conflicts.push(Conflict {
                            at: change.path.clone(),
                            path: change.path.to_string(),
                            expected: "a repository as the run made it".into(),
                            found: "one in which somebody has worked since".into(),
                            advice: "keep it, or remove it by hand",
                        });
                    } else if change.after.is_some() {
                        self.conflicts.push(Conflict {
                            at: change.path.clone(),
                            path: change.path.to_string(),
                            expected: "a folder with nothing in it but what the run deleted".into(),
                            found: "a folder with something else in it".into(),
                            advice: "move that to another place and apply again",
                        });
                    }
                    stay.insert(&change.path);
                    continue;
                }
            }
            if change.after.is_none() {
                leaving.insert(path.to_owned());
            }
        }
        self.todo.retain(|todo| !stay.contains(&todo.change.path) || todo.change.after.is_some());
        self.kept.extend(stay);
        self.kept.sort();
    }
}

/// Whether something is new, and its mode is what the run's mask gave.
pub(super) fn is_free(change: &Alteration, umask: Option<u32>) -> bool {
    let (None, Some(umask)) = (&change.before, umask) else { return false };
    match change.after {
        Some(Node::File { mode, .. }) => [0o666, 0o777].iter().any(|all| mode == all & !umask),
        Some(Node::Folder { mode }) => mode == 0o777 & !umask,
        _ => false,
    }
}

/// Returns true for the index of a repository that is to be removed.
fn is_index(change: &Alteration, made: &[NewRepository]) -> bool {
    let path = change.path.as_path();
    change.after.is_none()
        && path.file_name().is_some_and(|name| name == "index")
        && made.iter().any(|made| path.parent() == Some(made.git.as_path()))
}

enum Here {
    Seen(Seen),
    Conflict(Conflict),
}

/// What is at a change's path.
fn here(
    folders: &mut Folders<'_>,
    change: &Alteration,
    by_path: &HashMap<&Path, &Alteration>,
) -> Result<Here, ApplyError> {
    let conflict = |found: &str, advice| {
        Ok(Here::Conflict(Conflict {
            at: change.path.clone(),
            path: change.path.to_string(),
            expected: describe(change.before.as_ref()),
            found: found.to_owned(),
            advice,
        }))
    };
    let sizes: Vec<u64> = [&change.before, &change.after]
        .into_iter()
        .filter_map(|node| match node {
            Some(Node::File { size, .. }) => Some(*size),
            _ => None,
        })
        .collect();
    let path = change.path.as_path().parent().unwrap_or(Path::new(""));
    let device = folders.device();
    let parent = match folders.open(path) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(Here::Seen(Seen::Nothing)),
        Err(Errno::NOTDIR | Errno::LOOP) => {
            // What stands in the way is to be changed itself, and is judged by its own line.
            let odd = first_that_is_no_folder(folders, path);
            if odd.is_some_and(|odd| by_path.contains_key(odd)) {
                return Ok(Here::Seen(Seen::Nothing));
            }
            return conflict(
                "a link or a file in the place of a folder on the way",
                "put the folder back and apply again",
            );
        }
        Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
            return Err(ApplyError::Io {
                what: "open (apply in parts with `--only`)",
                path: path.display().to_string(),
                source: errno.into(),
            });
        }
        Err(errno) => return conflict(&errno.to_string(), "make its folder accessible"),
    };
    match rustix::fs::fstat(parent) {
        Ok(stat) if Some(stat.st_dev) != device => {
            return conflict(
                "a folder on another file system",
                "apply to a workspace in that file system, or take the patch",
            );
        }
        Ok(_) => {}
        Err(errno) => return conflict(&errno.to_string(), "make its folder accessible"),
    }
    match look(parent, name_of(&change.path), &sizes) {
        Ok(seen) => Ok(Here::Seen(seen)),
        Err(error) => conflict(&error.to_string(), "make it readable and apply again"),
    }
}

fn first_that_is_no_folder<'p>(folders: &mut Folders<'_>, path: &'p Path) -> Option<&'p Path> {
    let mut above: Vec<_> = path.ancestors().collect();
    above.reverse();
    above.into_iter().find(|path| folders.open(path).is_err())
}

pub(super) fn describe(node: Option<&Node>) -> String {
    match node {
        None => "nothing".to_owned(),
        Some(Node::File { sha256, size, mode }) => {
            let hash = crate::text::prefix(sha256, 12);
            format!("a file of {size} bytes, mode {mode:o}, SHA-256 {}…", one_line(hash, 12))
        }
        Some(Node::Link { target }) => {
            let target = String::from_utf8_lossy(&target.0);
            format!("a link to {}", one_line(&target, 100))
        }
        Some(Node::Folder { mode }) => format!("a folder, mode {mode:o}"),
    }
}
