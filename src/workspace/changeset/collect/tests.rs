use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, XattrFlags};

use super::*;
use crate::ids::{Owner, RunId};
use crate::workspace::{Bounds, WorkspacePath};

struct Ground {
    keep: tempfile::TempDir,
    workspace: WorkspacePath,
    layer: Option<Layer>,
}

impl Ground {
    /// A workspace that nobody has touched for a while, as far as the run can tell.
    fn new(files: &[(&str, &str)]) -> Self {
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
        Self { keep, workspace, layer: None }
    }

    fn layer(&mut self, bounds: Bounds, covered: &[&str]) -> &mut Layer {
        let owner = Owner::current().expect("ours");
        let covered = covered.iter().map(|path| RelPath::new(path).expect("a path")).collect();
        let state = self.keep.path();
        let layer = Layer::make(state, &RunId::new(), &owner, &self.workspace, bounds, covered);
        self.layer.insert(layer.expect("made"))
    }

    fn overlay(&mut self) -> PathBuf {
        self.bounded(Bounds { bytes: 1 << 20, files: 1000 })
    }

    fn bounded(&mut self, bounds: Bounds) -> PathBuf {
        let workspace = self.workspace.clone();
        self.layer(bounds, &["hidden.json"]).overlay(&workspace).expect("made").0
    }

    fn collect(&self) -> Collected {
        collect(self.layer.as_ref().expect("made"), &self.keep.path().join("blobs")).expect("read")
    }

    fn told(&self) -> (Vec<String>, Manifest) {
        let manifest = self.collect().manifest;
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

fn whiteout(path: &Path) {
    let kind = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, path, kind, Mode::empty(), 0).expect("a mark anybody may make");
}

fn mark(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).expect("attributes");
}

fn skipped(manifest: &Manifest) -> Vec<String> {
    manifest.skipped.iter().map(|one| format!("{}: {}", one.path, one.why)).collect()
}

#[test]
fn the_kernels_marks_are_understood() {
    let mut ground = Ground::new(&[
        ("gone", "1"),
        ("folder/a", "1"),
        ("folder/b/c", "1"),
        ("folder/.git/config", "1"),
        ("opaque/old", "1"),
        ("opaque/both", "1"),
        ("opaque/in/deep", "1"),
        ("opaque/in/other", "1"),
        ("plain/kept", "1"),
        ("same", "same"),
    ]);
    let upper = ground.overlay();
    whiteout(&upper.join("gone"));
    whiteout(&upper.join("folder"));
    whiteout(&upper.join("never-was"));
    fs::create_dir_all(upper.join("opaque/in")).expect("made");
    mark(&upper.join("opaque"), "user.overlay.opaque", b"y");
    fs::write(upper.join("opaque/both"), "2").expect("written");
    fs::write(upper.join("opaque/in/deep"), "2").expect("written");
    fs::create_dir(upper.join("plain")).expect("made");
    fs::write(upper.join("plain/new"), "2").expect("written");
    fs::write(upper.join("same"), "same").expect("written");
    fs::write(upper.join("hidden.json"), "ours").expect("written");
    let (told, manifest) = ground.told();
    assert_eq!(
        told,
        [
            "folder folder -",
            "folder/a file -",
            "folder/b folder -",
            "folder/b/c file -",
            "gone file -",
            "opaque/both file file",
            "opaque/in/deep file file",
            "opaque/in/other file -",
            "opaque/old file -",
            "plain/new - file",
        ]
    );
    assert!(manifest.complete);
    assert_eq!(skipped(&manifest), ["folder/.git: inside .git"]);
    // It can be done again, as after a crash, and says the same.
    assert_eq!(ground.collect().manifest, manifest);
}

#[test]
fn what_the_host_changed_meanwhile_is_marked() {
    let mut ground = Ground::new(&[("a", "1"), ("b", "1"), ("c", "1"), ("d/e", "1")]);
    let upper = ground.overlay();
    fs::create_dir(upper.join("d")).expect("made");
    for name in ["a", "c", "d/e", "d/new", "new"] {
        fs::write(upper.join(name), "2").expect("written");
    }
    whiteout(&upper.join("b"));
    let root = ground.workspace.path().to_owned();
    fs::write(root.join("a"), "3").expect("written");
    fs::write(root.join("b"), "3").expect("written");
    fs::remove_file(root.join("c")).expect("removed");
    let (told, manifest) = ground.told();
    let expected = [
        "a file file moved",
        "b file - moved",
        "c - file moved",
        "d/e file file",
        "d/new - file",
        // It may have been there, and have been removed.
        "new - file moved",
    ];
    assert_eq!(told, expected);
    assert!(manifest.complete);
}

#[test]
fn a_layer_leads_nowhere() {
    let outside = tempfile::tempdir().expect("temp");
    fs::write(outside.path().join("secret"), "word-of-the-host").expect("written");
    let mut ground = Ground::new(&[("folder/a", "1"), ("named", "1")]);
    let upper = ground.overlay();
    symlink(outside.path(), upper.join("folder")).expect("a link");
    symlink(outside.path().join("secret"), upper.join("named")).expect("a link");
    symlink("loop", upper.join("loop")).expect("a link");
    rustix::fs::mknodat(CWD, upper.join("pipe"), FileType::Fifo, Mode::RWXU, 0).expect("a pipe");
    let _socket = std::os::unix::net::UnixListener::bind(upper.join("socket")).expect("a socket");
    fs::write(upper.join("suid"), "x").expect("written");
    fs::set_permissions(upper.join("suid"), fs::Permissions::from_mode(0o6755)).expect("chmod");
    let (told, manifest) = ground.told();
    let expected =
        ["folder folder link", "folder/a file -", "loop - link", "named file link", "suid - file"];
    assert_eq!(told, expected);
    assert_eq!(skipped(&manifest), ["pipe: fifo", "socket: socket"]);
    let suid = manifest.changes.last().and_then(|change| change.after.clone());
    assert!(matches!(suid, Some(Node::File { mode: 0o755, .. })), "{suid:?}");
    for blob in fs::read_dir(ground.keep.path().join("blobs")).expect("blobs").flatten() {
        assert_ne!(fs::read(blob.path()).expect("one"), b"word-of-the-host");
        assert_eq!(blob.metadata().expect("one").mode() & 0o777, 0o600);
    }
}

#[test]
fn what_is_not_understood_is_not_taken_for_whole() {
    for (name, value, at, whole) in [
        ("user.overlay.redirect", &b"/folder"[..], "d", false),
        ("user.overlay.metacopy", b"", "f", false),
        ("user.overlay.opaque", b"x", "d", false),
        ("user.overlay.whiteout", b"", "f", false),
        // What a run itself called by such a name.
        ("user.overlay.overlay.opaque", b"y", "d", true),
        ("user.overlay.origin", b"", "f", true),
    ] {
        let mut ground = Ground::new(&[]);
        let upper = ground.overlay();
        fs::create_dir(upper.join("d")).expect("made");
        fs::write(upper.join("f"), "1").expect("written");
        mark(&upper.join(at), name, value);
        let (told, manifest) = ground.told();
        assert_eq!(manifest.complete, whole, "{name}: {told:?}");
        assert_eq!(told.len(), if whole { 2 } else { 1 }, "{name}: {told:?}");
    }
}

#[test]
fn a_layer_is_read_within_bounds() {
    let mut ground = Ground::new(&[]);
    let upper = ground.bounded(Bounds { bytes: 1 << 20, files: 100 });
    let sparse = File::create(upper.join("sparse")).expect("made");
    sparse.set_len(8 << 40).expect("sparse");
    let began = Instant::now();
    let (told, manifest) = ground.told();
    assert!(began.elapsed() < Duration::from_secs(20) && !manifest.complete);
    assert_eq!(told, [] as [&str; 0]);
    assert_eq!(skipped(&manifest), ["sparse: larger than what may be kept"]);

    let mut ground = Ground::new(&[]);
    let upper = ground.bounded(Bounds { bytes: 1 << 20, files: 100 });
    for count in 0..500 {
        fs::write(upper.join(format!("f{count}")), "x").expect("written");
    }
    let Collected { manifest, summary, .. } = ground.collect();
    assert!(!manifest.complete && summary.truncated);
    assert_eq!(manifest.changes.len(), 200);
}

#[test]
fn a_chain_of_ten_thousand_folders_is_neither_followed_nor_left() {
    let mut ground = Ground::new(&[]);
    let upper = ground.overlay();
    let mut folder = open_root(&upper).expect("opened");
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&folder, "d", Mode::RWXU).expect("made");
        folder = crate::workspace::walk::step(
            std::os::fd::AsFd::as_fd(&folder),
            std::ffi::OsStr::new("d"),
        )
        .expect("opened");
    }
    drop(folder);
    let manifest = ground.collect().manifest;
    assert!(!manifest.complete);
    assert!(skipped(&manifest).iter().any(|line| line.ends_with("too deep")));
    let layer = ground.layer.take().expect("made");
    let place = layer.written();
    layer.remove().expect("removed");
    assert!(!place.exists() && !place.parent().expect("a layer").exists());
}

/// Names of 64 KiB each would take more memory than the files take room on the disk.
#[test]
fn names_that_are_too_much_to_keep_end_the_look() {
    let mut ground = Ground::new(&[]);
    let upper = ground.bounded(Bounds { bytes: 1 << 20, files: 100_000 });
    let mut folder = open_root(&upper).expect("opened");
    let long = "d".repeat(250);
    let down = |folder: &std::os::fd::OwnedFd, name: &str| {
        rustix::fs::mkdirat(folder, name, Mode::RWXU).expect("made");
        crate::workspace::walk::step(std::os::fd::AsFd::as_fd(folder), std::ffi::OsStr::new(name))
            .expect("opened")
    };
    for _ in 0..250 {
        folder = down(&folder, &long);
    }
    for number in 0..200 {
        down(&folder, &number.to_string());
    }
    let manifest = ground.collect().manifest;
    assert!(!manifest.complete);
    let kept = manifest.changes.iter().map(|change| listed(change.path.as_path())).sum::<usize>();
    assert!(kept > 1 << 20 && kept <= LIST, "{kept}");
    ground.layer.take().expect("made").remove().expect("removed");
}

#[test]
fn a_workspace_that_was_replaced_gives_no_result_to_apply() {
    let mut ground = Ground::new(&[("a", "1")]);
    let upper = ground.overlay();
    fs::write(upper.join("a"), "2").expect("written");
    let root = ground.workspace.path().to_owned();
    fs::rename(&root, root.with_extension("old")).expect("moved");
    fs::create_dir(&root).expect("another");
    assert!(!ground.collect().manifest.complete);
}

#[test]
fn a_copy_is_compared_by_what_the_kernel_saw() {
    let mut ground = Ground::new(&[
        ("edited", "1"),
        ("forged", "1"),
        ("same", "1"),
        ("gone", "1"),
        ("x/f", "from x"),
        ("y/f", "from y"),
        ("folder/inner/file", "here"),
        (".git/refs/heads/main", "1"),
        (".git/index", "1"),
    ]);
    let workspace = ground.workspace.clone();
    let bounds = Bounds { bytes: 1 << 20, files: 1000 };
    let stop = AtomicBool::new(false);
    let (copy, left_out) = ground.layer(bounds, &[]).copy(&workspace, &stop).expect("copied");
    assert_eq!(left_out, 0);
    assert_eq!(ground.told().0, [] as [&str; 0]);
    std::thread::sleep(Duration::from_millis(40));

    fs::write(copy.join("edited"), "2").expect("written");
    let forged = fs::metadata(copy.join("forged")).expect("there").modified().expect("a time");
    fs::write(copy.join("forged"), "2").expect("written");
    let file = File::options().write(true).open(copy.join("forged")).expect("opened");
    file.set_modified(forged).expect("as if nothing had been");
    fs::remove_file(copy.join("gone")).expect("removed");
    // The files are as they were copied; only their folders have other names.
    fs::rename(copy.join("x"), copy.join("tmp")).expect("moved");
    fs::rename(copy.join("y"), copy.join("x")).expect("moved");
    fs::rename(copy.join("tmp"), copy.join("y")).expect("moved");
    fs::rename(copy.join("folder"), copy.join("renamed")).expect("moved");
    fs::write(copy.join(".git/refs/heads/main"), "2").expect("written");
    let (told, manifest) = ground.told();
    let expected = [
        "edited file file",
        "folder folder -",
        "folder/inner folder -",
        "folder/inner/file file -",
        "forged file file",
        "gone file -",
        "renamed - folder",
        "renamed/inner - folder",
        "renamed/inner/file - file",
        "x/f file file",
        "y/f file file",
    ];
    assert_eq!(told, expected);
    assert_eq!(skipped(&manifest), [".git: inside .git"]);
    let renamed = manifest.changes.iter().find_map(|change| change.from.as_ref());
    assert_eq!(renamed.map(ToString::to_string).as_deref(), Some("folder/inner/file"));
    assert!(ground.collect().commits);
}

#[test]
fn renames_are_told_once_each_and_never_of_nothing() {
    let mut ground = Ground::new(&[("a", "text"), ("b", "text"), ("e", "")]);
    let upper = ground.overlay();
    for name in ["a", "b", "e"] {
        whiteout(&upper.join(name));
    }
    for name in ["x", "y", "z"] {
        fs::write(upper.join(name), "text").expect("written");
    }
    fs::write(upper.join("empty"), "").expect("written");
    let Collected { manifest, summary, .. } = ground.collect();
    let from = |path: &str| {
        let change = manifest.changes.iter().find(|change| change.path.to_string() == path);
        change.and_then(|change| change.from.as_ref()).map(ToString::to_string)
    };
    assert_eq!(
        (from("x").as_deref(), from("y").as_deref(), from("z"), from("empty")),
        (Some("a"), Some("b"), None, None)
    );
    let shown: Vec<_> = summary.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(shown, ["e", "empty", "x", "y", "z"], "a renamed file is one line");
}
