//! A workspace and a result, on which tests apply.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::super::testing::{Item, Tree, between, read, write};
use super::super::{Alteration, Blobs, Manifest};
use super::fault::{AT, CRASH, Fault};
use super::*;

/// A workspace, a result, and everything around them.
pub(super) struct Ground {
    pub keep: tempfile::TempDir,
    pub before: Tree,
    pub after: Tree,
    pub manifest: Manifest,
    pub run: RunId,
    pub protected: Vec<String>,
    pub partial: bool,
    /// How much of what is replaced is kept.
    pub bytes: u64,
    /// The list of branches that follow.
    pub commits: Option<PathBuf>,
}

impl Ground {
    pub fn of(before: Tree, after: Tree) -> Self {
        let keep = tempfile::tempdir().expect("temp");
        let root = keep.path().canonicalize().expect("real").join("w");
        fs::create_dir(&root).expect("made");
        write(&root, &before);
        let blobs = Blobs::new(keep.path().join("blobs"));
        let manifest = between(&root, &before, &after, &blobs, true);
        Self {
            keep,
            before,
            after,
            manifest,
            run: RunId::new(),
            protected: Vec::new(),
            partial: false,
            bytes: 1 << 20,
            commits: None,
        }
    }

    pub fn new(before: &[(&str, &str)], after: &[(&str, &str)]) -> Self {
        Self::of(tree(before), tree(after))
    }

    /// New files of these names, bytes as they are.
    pub fn named(names: &[&[u8]]) -> Self {
        let mut after = Tree::new();
        for name in names {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(name));
            for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
                after.insert(above.to_owned(), Item::Folder(0o755));
            }
            after.insert(path, Item::File(name.to_vec(), 0o644));
        }
        Self::of(Tree::new(), after)
    }

    pub fn change(&mut self, path: &str) -> &mut Alteration {
        let mut changes = self.manifest.changes.iter_mut();
        changes.find(|change| change.path.as_path() == path).expect("it changed")
    }

    /// The run wrote this file at that time.
    pub fn written(&mut self, path: &str, at: i64) {
        self.change(path).written = Some(at);
    }

    /// The file had this mode before the run, and has it after it.
    pub fn expecting(mut self, path: &str, mode: u32) -> Self {
        let Alteration { before, after, .. } = self.change(path);
        for node in [before, after] {
            use super::super::Node::{File, Folder};
            if let Some(File { mode: its, .. } | Folder { mode: its }) = node {
                *its = mode;
            }
        }
        self
    }

    pub fn root(&self) -> &Path {
        &self.manifest.workspace
    }

    pub fn journals(&self) -> PathBuf {
        self.keep.path().join("applying")
    }

    pub fn kept(&self) -> PathBuf {
        self.keep.path().join("before")
    }

    /// Puts back what was applied.
    pub fn undo(&self) -> Result<Carried, ApplyError> {
        let (manifest, _) = super::reversed(&self.kept()).expect("read").expect("something");
        let workspace = WorkspacePath::check(None, self.root(), &[]).expect("checked");
        let lock = FolderLock::try_lock(&workspace).expect("ok").expect("free");
        let request = Request {
            run: &self.run,
            manifest: &manifest,
            blobs: &Blobs::new(self.kept()),
            journals: &self.journals(),
            only: &[],
            protected: &[],
            umask: None,
            keep: None,
            agreed: &Agreed::Everything,
            partial: false,
            hold_checked: false,
            dry_run: false,
            commits: None,
        };
        apply(&workspace, &lock, &request)
    }

    pub fn ask(&self, only: &[&str], allow: bool, dry_run: bool) -> Result<Carried, ApplyError> {
        let agreed = if allow { Agreed::Everything } else { Agreed::Nothing };
        self.ask_with(only, &agreed, dry_run)
    }

    pub fn ask_with(
        &self,
        only: &[&str],
        agreed: &Agreed,
        dry_run: bool,
    ) -> Result<Carried, ApplyError> {
        let workspace = WorkspacePath::check(None, self.root(), &[]).expect("checked");
        let lock = FolderLock::try_lock(&workspace).expect("ok").expect("free");
        let only: Vec<_> = only.iter().map(|path| (*path).to_owned()).collect();
        let request = Request {
            run: &self.run,
            manifest: &self.manifest,
            blobs: &Blobs::new(self.keep.path().join("blobs")),
            journals: &self.journals(),
            only: &only,
            protected: &self.protected,
            umask: Some(0o027),
            keep: Some(super::Keep { folder: &self.kept(), bytes: self.bytes }),
            agreed,
            partial: self.partial,
            hold_checked: false,
            dry_run,
            commits: self.commits.clone(),
        };
        apply(&workspace, &lock, &request)
    }

    pub fn apply(&self) -> Result<Carried, ApplyError> {
        self.ask(&[], true, false)
    }

    pub fn recover(&self) -> Recovered {
        recover(&self.journals())
    }

    /// The content on record is no longer what it was.
    pub fn damage(&self, content: &str) {
        use sha2::Digest;
        let name = crate::text::hex(&sha2::Sha256::digest(content));
        fs::write(self.keep.path().join("blobs").join(name), "?").expect("damaged");
    }

    pub fn now(&self) -> Tree {
        read(self.root())
    }

    /// Everything is as it was, and nothing is left of the attempt.
    pub fn assert_untouched(&self) {
        assert_eq!(self.now(), self.before);
        assert!(Place::all(&self.journals()).is_empty());
    }

    pub fn conflicts(&self) -> Vec<(String, String)> {
        match self.apply() {
            Err(ApplyError::Conflicts(conflicts)) => {
                assert!(conflicts.iter().all(|one| !one.advice.is_empty()));
                conflicts.into_iter().map(|one| (one.path, one.found)).collect()
            }
            other => panic!("no conflict: {other:?}"),
        }
    }

    pub fn needs(&self) -> Vec<String> {
        match self.ask(&[], false, false) {
            Err(ApplyError::Protected(needs)) => needs.into_iter().map(|need| need.path).collect(),
            other => panic!("no yes needed: {other:?}"),
        }
    }
}

/// Files by name and text, with their folders; `-> x` is a link to x, and a name that ends in a
/// slash is a folder.
pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (name, text) in files {
        let path = PathBuf::from(name.trim_end_matches('/'));
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            tree.insert(above.to_owned(), Item::Folder(0o755));
        }
        let item = match text.strip_prefix("-> ") {
            _ if name.ends_with('/') => Item::Folder(0o755),
            Some(target) => Item::Link(target.as_bytes().to_vec()),
            None => Item::File(text.as_bytes().to_vec(), 0o644),
        };
        tree.insert(path, item);
    }
    tree
}

pub(super) fn paths(paths: &[RelPath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

/// Runs until the fault, which must be reached; false where there is nothing more to reach.
pub(super) fn with_fault(at: usize, fault: Fault, work: impl FnOnce()) -> bool {
    AT.set(Some((at, fault)));
    let ended = catch_unwind(AssertUnwindSafe(work));
    let reached = AT.take().is_none();
    if let Err(panic) = ended {
        assert_eq!(panic.downcast_ref::<&str>(), Some(&CRASH), "another panic");
    }
    reached
}

/// As if the process were killed at this point; false where there is none.
pub(super) fn crash(ground: &Ground, at: usize) -> bool {
    with_fault(at, Fault::Crash, || drop(ground.apply()))
}

pub(super) fn paths_of(result: &Result<Carried, ApplyError>) -> Vec<String> {
    paths(&result.as_ref().expect("carried over").changed)
}
