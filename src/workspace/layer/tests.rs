use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;
use crate::workspace::Mode;

fn ground() -> (tempfile::TempDir, WorkspacePath) {
    let keep = tempfile::tempdir().expect("temp");
    let root = keep.path().canonicalize().expect("real").join("w");
    fs::create_dir(&root).expect("made");
    let workspace = WorkspacePath::check(None, &root, &[]).expect("checked");
    (keep, workspace)
}

const BOUNDS: Bounds = Bounds { bytes: 1 << 20, files: 100 };

fn make(state: &Path, workspace: &WorkspacePath, owner: &str) -> Layer {
    let owner = owner.parse::<Owner>().expect("an owner");
    Layer::make(state, &RunId::new(), &owner, workspace, BOUNDS, Vec::new()).expect("made")
}

fn me() -> String {
    Owner::current().expect("ours").to_string()
}

const DEAD: &str = "1.1.00000000-0000-0000-0000-000000000000";

#[test]
fn nobody_else_comes_into_a_layer_and_its_top_is_as_the_workspaces() {
    let (keep, workspace) = ground();
    let odd = fs::Permissions::from_mode(0o750);
    fs::set_permissions(workspace.path(), odd).expect("chmod");
    let mut layer = make(keep.path(), &workspace, &me());
    let (upper, work) = layer.overlay(&workspace).expect("made");
    let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o7777;
    for private in [upper.parent(), upper.parent().and_then(Path::parent)] {
        assert_eq!(mode(private.expect("a folder")), 0o700);
    }
    assert_eq!((mode(&upper), mode(&work)), (0o750, 0o750));
    assert_eq!(fs::metadata(&upper).expect("there").uid(), workspace.owner().uid);
    layer.remove().expect("removed");
    assert!(!upper.exists());
    assert_eq!(Mode::Isolated.to_string(), "isolated");
}

#[test]
fn a_layer_whose_note_cannot_be_read_stays_and_one_without_a_note_goes() {
    let (keep, workspace) = ground();
    let state = keep.path();
    let old = SystemTime::now() - MAKING * 2;
    let [unreadable, unfinished] = [(); 2].map(|()| make(state, &workspace, DEAD).folder);
    fs::write(unreadable.join(note::NOTE), "{\"of\": \"another version\"}").expect("a note");
    fs::remove_file(unfinished.join(note::NOTE)).expect("no note");
    for folder in [&unreadable, &unfinished] {
        fs::File::open(folder).and_then(|folder| folder.set_modified(old)).expect("its age");
    }
    assert!(abandoned(state, &[]).is_empty());
    assert!(unreadable.exists() && !unfinished.exists());
}

#[test]
fn only_what_a_dead_owner_left_is_taken_and_by_one_alone() {
    let (keep, workspace) = ground();
    let state = keep.path();
    let live = make(state, &workspace, &me());
    let dead = make(state, &workspace, DEAD);
    let running = dead.run().expect("a run").to_string();
    assert!(abandoned(state, std::slice::from_ref(&running)).is_empty(), "its container runs");
    let found = abandoned(state, &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].run(), dead.run());
    assert!(abandoned(state, &[]).is_empty(), "somebody is at it");
    drop(found);
    let again = abandoned(state, &[]);
    assert_eq!(again.len(), 1, "whoever had it died as well");
    for layer in again {
        layer.remove().expect("removed");
    }
    assert!(live.folder().exists() && !dead.folder().exists());
}

#[test]
fn a_copy_has_everything_but_what_cannot_be_copied() {
    let (keep, workspace) = ground();
    let root = workspace.path();
    fs::create_dir_all(root.join("deep/er")).expect("made");
    fs::write(root.join("deep/er/file"), "text").expect("written");
    fs::write(root.join("run.sh"), "#!/bin/sh").expect("written");
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    let shut = fs::Permissions::from_mode(0o555);
    fs::set_permissions(root.join("deep/er"), shut).expect("chmod");
    symlink("/etc", root.join("link")).expect("a link");
    let _socket = UnixListener::bind(root.join("socket")).expect("a socket");
    let mut layer = make(keep.path(), &workspace, &me());
    let (copy, left_out) = layer.copy(&workspace, &AtomicBool::new(false)).expect("copied");
    assert_eq!(left_out, 1);
    let meta = |path: &Path| path.symlink_metadata().expect("there");
    assert_eq!(fs::read_to_string(copy.join("deep/er/file")).expect("read"), "text");
    assert_eq!(meta(&copy.join("run.sh")).mode() & 0o7777, 0o755);
    assert_eq!(meta(&copy.join("deep/er")).mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(copy.join("link")).expect("a link"), Path::new("/etc"));
    assert!(!copy.join("socket").exists());
    for name in ["deep", "deep/er", "deep/er/file", "run.sh", "link"] {
        let (ours, theirs) = (meta(&copy.join(name)), meta(&root.join(name)));
        assert_eq!((ours.mtime(), ours.mtime_nsec()), (theirs.mtime(), theirs.mtime_nsec()));
        assert_eq!((ours.uid(), ours.gid()), (theirs.uid(), theirs.gid()), "{name}");
    }
    layer.remove().expect("removed, whatever its modes are");
    assert!(!copy.exists());
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o755)).expect("chmod");
}

#[test]
fn a_copy_has_its_bounds_and_can_be_stopped() {
    let (keep, workspace) = ground();
    for count in 0..101 {
        fs::write(workspace.path().join(format!("f{count}")), "x").expect("written");
    }
    let mut layer = make(keep.path(), &workspace, &me());
    let failed = layer.copy(&workspace, &AtomicBool::new(false)).expect_err("too many");
    assert!(failed.to_string().contains("more than 100 files (`limits.files`)"), "{failed}");
    layer.remove().expect("removed");
    let mut layer = make(keep.path(), &workspace, &me());
    let stopped = layer.copy(&workspace, &AtomicBool::new(true)).expect_err("stopped");
    assert!(matches!(stopped, LayerError::Stopped), "{stopped}");
    assert!(layer.view().is_none(), "nobody takes it for a result");
    fs::remove_file(workspace.path().join("f0")).expect("removed");
    let sparse = File::create(workspace.path().join("sparse")).expect("made");
    sparse.set_len(8 << 40).expect("sparse");
    let mut layer = make(keep.path(), &workspace, &me());
    let failed = layer.copy(&workspace, &AtomicBool::new(false)).expect_err("too large");
    assert!(failed.to_string().contains("limits.disk"), "{failed}");
}

#[test]
fn what_only_root_could_remove_waits_for_the_next_run() {
    let (keep, workspace) = ground();
    let mut layer = make(keep.path(), &workspace, &me());
    let (_, work) = layer.overlay(&workspace).expect("made");
    fs::write(work.join("mark"), "").expect("written");
    let spare = work.parent().and_then(Path::parent).expect("layers").join(SPARE);
    fs::create_dir(&spare).expect("made");
    fs::rename(&work, spare.join("parked")).expect("parked");
    layer.remove().expect("removed");
    let mut next = make(keep.path(), &workspace, &me());
    let (_, work) = next.overlay(&workspace).expect("made");
    assert!(work.join("mark").exists() && !spare.join("parked").exists());
    let mut third = make(keep.path(), &workspace, &me());
    let (_, work) = third.overlay(&workspace).expect("made");
    assert!(!work.join("mark").exists(), "it was taken");
}

#[test]
fn a_path_that_an_overlays_options_cannot_hold_is_known() {
    for (name, can) in [("plain ü", true), ("a,b", false), ("a:b", false), ("a\\b", false)] {
        let keep = tempfile::tempdir().expect("temp");
        let root = keep.path().canonicalize().expect("real").join(name);
        fs::create_dir(&root).expect("made");
        let workspace = WorkspacePath::check(None, &root, &[]).expect("checked");
        assert_eq!(make(keep.path(), &workspace, &me()).can_be_overlay(), can, "{name}");
    }
}

#[test]
fn what_a_mount_will_cover_is_an_empty_place_of_a_copy() {
    let (keep, workspace) = ground();
    for name in ["inner/deep/file", "plain"] {
        let path = workspace.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, "text").expect("written");
    }
    for number in 0..900 {
        fs::write(workspace.path().join(format!("inner/{number}")), "").expect("written");
    }
    let owner = me().parse::<Owner>().expect("an owner");
    let bounds = Bounds { bytes: 1 << 20, files: 10 };
    let made = Layer::make(keep.path(), &RunId::new(), &owner, &workspace, bounds, Vec::new());
    let mut layer = made.expect("made");
    assert!(!layer.is_quick(&workspace));
    let places = ["inner", "plain"].map(|place| RelPath::new(place).expect("a path"));
    layer.cover(places.into_iter()).expect("noted");
    assert!(layer.is_quick(&workspace), "what is not copied takes no time");
    let (copy, left_out) = layer.copy(&workspace, &AtomicBool::new(false)).expect("copied");
    assert_eq!(fs::read_dir(copy.join("inner")).expect("a folder").count(), 0);
    assert_eq!((fs::read(copy.join("plain")).expect("a file").len(), left_out), (0, 0));
}
