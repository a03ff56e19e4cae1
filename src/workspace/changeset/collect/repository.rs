//! A repository that a run made, as git on this machine has made it again: its files are changes
//! like others.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::blobs::{Blobs, Not, Source};
use super::{CollectError, Collected, tree, walk_all, written};
use crate::workspace::changeset::{Alteration, NewRepository, Node, RelPath};
use crate::workspace::layer::Layer;
use crate::workspace::walk::{Entry, Limits, Visitor, open_root};
use crate::workspace::{Change, ChangeKind};

/// Adds a repository, with its git directory at `git` in the workspace and at `built` now. `files`
/// are those of its commits, and `blobs` has contents.
pub fn add_repository(
    collected: &mut Collected,
    (git, built): (&Path, &Path),
    files: Option<Vec<PathBuf>>,
    (layer, blobs): (&Layer, &Path),
) -> Result<(), CollectError> {
    let root = open_root(built).map_err(std::io::Error::from)?;
    let mut taken = Taken {
        git,
        blobs: Blobs::new(blobs, layer.note().bounds.bytes, true),
        changes: Vec::new(),
        failed: None,
    };
    taken.changes.extend(added(git.to_owned(), Node::Folder { mode: 0o755 }, None));
    let limits = Limits { entries: usize::MAX, ..Limits::default() };
    let is_whole = walk_all(root.as_fd(), limits, &mut taken);
    let why = match taken.failed {
        Some(Not::Failed(error)) => return Err(error.into()),
        Some(Not::Kept(why)) => Some(why),
        None => (!is_whole).then_some("unreadable"),
    };
    let shown = git.display();
    let Some(path) = RelPath::new(git).ok().filter(|_| why.is_none()) else {
        let why = why.unwrap_or("a name that no file here can have");
        collected.remarks.push(format!("the repository `{shown}` does not come back: {why}"));
        return Ok(());
    };
    let files = files.map(|files| files.into_iter().map(RelPath::new).collect::<Result<_, _>>());
    let files = files.and_then(Result::ok);
    let manifest = &mut collected.manifest;
    manifest.skipped.retain(|skipped| skipped.path != path);
    manifest.changes.extend(taken.changes);
    manifest.changes.sort_by(|one, other| one.path.cmp(&other.path));
    manifest.repositories.push(NewRepository { git: path, files });
    collected.repositories.retain(|other| other != git);
    let summary = &mut collected.summary;
    let path = crate::workspace::changes::shown(git, true);
    summary.files.push(Change { path, change: ChangeKind::Added, from: None });
    summary.applied = Some(false);
    Ok(())
}

fn added(path: PathBuf, after: Node, written: Option<i64>) -> Option<Alteration> {
    let path = RelPath::new(path).ok()?;
    Some(Alteration {
        path,
        before: None,
        after: Some(after),
        from: None,
        base_moved: false,
        written,
    })
}

struct Taken<'a> {
    git: &'a Path,
    blobs: Blobs,
    changes: Vec<Alteration>,
    failed: Option<Not>,
}

impl Visitor for Taken<'_> {
    fn entry(&mut self, folder: &Path, entry: &Entry<'_>) -> bool {
        let path = self.git.join(folder).join(entry.name);
        if entry.kind() == FileType::Directory {
            self.changes.extend(added(path, Node::Folder { mode: 0o755 }, None));
            return true;
        }
        let kept = tree::open_file(entry.folder(), entry.name)
            .map_err(|_| Not::Kept("unreadable"))
            .and_then(|(mut file, stat)| {
                Ok((self.blobs.keep(&mut file, (&stat, Source::Layer), None)?, written(&stat)))
            });
        match kept {
            Ok((node, written)) => self.changes.extend(added(path, node, Some(written))),
            Err(why) => self.failed = Some(why),
        }
        false
    }

    fn closed(&mut self, _folder: &Path) {
        self.failed = Some(Not::Kept("unreadable"));
    }

    fn enough(&self) -> bool {
        self.failed.is_some()
    }
}
