//! A workspace with a layer over it, for tests.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::fs::{CWD, Mode};

use super::*;
use crate::ids::{Owner, RunId};
use crate::sandbox::{EntrySeen, FolderSeen, KindSeen};
use crate::workspace::changeset::RelPath;
use crate::workspace::{Bounds, WorkspacePath};

pub(super) struct Ground {
    pub keep: tempfile::TempDir,
    pub workspace: WorkspacePath,
    pub layer: Option<Layer>,
    /// Folders of the layer through which nothing shows.
    pub opaque: Vec<PathBuf>,
    /// Folders of the layer under which other ones show, by the names that those had.
    pub redirects: Vec<(PathBuf, PathBuf)>,
}

impl Ground {
    /// A workspace that nobody has touched for a while, as far as the run can tell.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let keep = tempfile::tempdir().expect("temp");
        let root = keep.path().canonicalize().expect("real").join("w");
        fs::create_dir(&root).expect("made");
        for (name, text) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        std::thread::sleep(Duration::from_millis(40));
        let workspace = WorkspacePath::check(None, &root, &[]).expect("checked");
        Self { keep, workspace, layer: None, opaque: Vec::new(), redirects: Vec::new() }
    }

    pub fn layer(&mut self, bounds: Bounds, covered: &[&str]) -> &mut Layer {
        let owner = Owner::current().expect("ours");
        let covered = covered.iter().map(|path| RelPath::new(path).expect("a path")).collect();
        let state = self.keep.path();
        let layer = Layer::make(state, &RunId::new(), &owner, &self.workspace, bounds, covered);
        self.layer.insert(layer.expect("made"))
    }

    pub fn overlay(&mut self) -> PathBuf {
        self.bounded(Bounds { bytes: 1 << 20, files: 1000 })
    }

    pub fn bounded(&mut self, bounds: Bounds) -> PathBuf {
        let workspace = self.workspace.clone();
        self.layer(bounds, &["hidden.json"]).overlay(&workspace).expect("made").0
    }

    /// The folder of the workspace that shows through a folder of the view.
    pub fn lower(&self, folder: &Path) -> Option<PathBuf> {
        let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
            return Some(self.workspace.path().to_owned());
        };
        if self.opaque.iter().any(|opaque| opaque == folder) {
            return None;
        }
        let redirect = self.redirects.iter().find(|(to, _)| to == folder);
        let lower = match redirect {
            Some((_, from)) => self.workspace.path().join(from),
            None => self.lower(parent)?.join(name),
        };
        lower.is_dir().then_some(lower)
    }

    /// The folder as the kernel would show it.
    pub fn list(&self, folder: &Path) -> FolderSeen {
        let upper = self.layer.as_ref().expect("made").written().join(folder);
        let lower = self.lower(folder);
        let mut entries = BTreeMap::new();
        for (from, is_upper) in [(lower.as_ref(), false), (Some(&upper), true)] {
            let names = from.and_then(|from| fs::read_dir(from).ok());
            for entry in names.into_iter().flatten().flatten() {
                let meta = entry.metadata().expect("there");
                let kind = meta.file_type();
                let is_whiteout = meta.rdev() == 0 && meta.mode() & 0o170_000 == 0o020_000;
                if is_upper && is_whiteout {
                    entries.remove(&entry.file_name());
                    continue;
                }
                let kind = match () {
                    () if kind.is_dir() => KindSeen::Folder,
                    () if kind.is_symlink() => KindSeen::Link,
                    () if kind.is_file() => KindSeen::File,
                    () => KindSeen::Other,
                };
                let name = entry.file_name();
                let below = self.lower(&folder.join(&name)).filter(|_| kind == KindSeen::Folder);
                let inode = below.map_or(meta.ino(), |below| below.metadata().expect("it").ino());
                let (mode, size) = (meta.mode() & 0o7777, meta.len());
                entries.insert(name.clone(), EntrySeen { name, kind, mode, inode, size });
            }
        }
        FolderSeen { path: folder.to_owned(), entries: Some(entries.into_values().collect()) }
    }

    pub fn merged(&self) -> Option<Merged> {
        let layer = self.layer.as_ref().expect("made");
        layer.mounted()?;
        let mut survey = Survey::begin(layer, true).expect("begun");
        loop {
            let wanted = survey.wanted();
            if wanted.is_empty() {
                return Some(survey.done());
            }
            survey.take(wanted.iter().map(|folder| self.list(folder)).collect());
        }
    }

    pub fn collect(&self) -> Collected {
        self.collect_as(self.merged().as_ref())
    }

    pub fn collect_as(&self, merged: Option<&Merged>) -> Collected {
        let (layer, blobs) = (self.layer.as_ref().expect("made"), self.keep.path().join("blobs"));
        let known = Known { merged, ..Known::default() };
        collect(layer, known, &blobs).expect("read")
    }

    pub fn told(&self) -> (Vec<String>, Manifest) {
        self.told_of(self.merged().as_ref())
    }

    pub fn told_of(&self, merged: Option<&Merged>) -> (Vec<String>, Manifest) {
        let manifest = self.collect_as(merged).manifest;
        let word = |node: &Option<Node>| match node {
            None => "-",
            Some(Node::File { .. }) => "file",
            Some(Node::Link { .. }) => "link",
            Some(Node::Folder { .. }) => "folder",
        };
        let lines = manifest.changes.iter().map(|change| {
            let moved = if change.base_moved { " moved" } else { "" };
            format!("{} {} {}{moved}", change.path, word(&change.before), word(&change.after))
        });
        (lines.collect(), manifest)
    }
}

pub(super) fn whiteout(path: &Path) {
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, path, kind, Mode::empty(), 0).expect("a mark anybody may make");
}

pub(super) fn skipped(manifest: &Manifest) -> Vec<String> {
    manifest.skipped.iter().map(|one| format!("{}: {}", one.path, one.why)).collect()
}
