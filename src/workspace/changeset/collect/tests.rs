use super::ground::*;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode};

use super::*;
use crate::workspace::Bounds;

#[test]
fn what_is_gone_changed_and_new_is_told() {
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
    ground.opaque = vec!["opaque".into(), "opaque/in".into()];
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
    fs::DirBuilder::new().mode(0o700).create(upper.join("both")).expect("made");
    for name in ["a", "both/file", "c", "d/e", "d/new", "new"] {
        fs::write(upper.join(name), "2").expect("written");
    }
    whiteout(&upper.join("b"));
    let root = ground.workspace.path().to_owned();
    fs::write(root.join("removed-meanwhile"), "3").expect("written");
    let merged = ground.merged();
    fs::remove_file(root.join("removed-meanwhile")).expect("removed");
    fs::write(root.join("made-meanwhile"), "3").expect("written");
    fs::create_dir(root.join("both")).expect("made");
    fs::write(root.join("a"), "3").expect("written");
    fs::write(root.join("b"), "3").expect("written");
    fs::remove_file(root.join("c")).expect("removed");
    let (told, manifest) = ground.told_of(merged.as_ref());
    let expected = [
        "a file file moved",
        "b file - moved",
        // The folder is there, whoever made it; the file in it may have been.
        "both/file - file moved",
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

/// The layer of all these looks the same to its owner: folders, and marks of deletions.
#[test]
fn folders_that_were_renamed_are_told_by_their_content() {
    let files = [
        ("a/f", "a"),
        ("a/sub/g", "g"),
        ("b/f", "b"),
        ("c/f", "c"),
        ("d/f", "d"),
        ("d/in/deep", "deep"),
        ("same/f", "same"),
    ];
    // Two folders swapped, and one below changed.
    let mut ground = Ground::new(&files);
    let upper = ground.overlay();
    for folder in ["a", "b"] {
        fs::create_dir(upper.join(folder)).expect("made");
    }
    fs::write(upper.join("b/new"), "new").expect("written");
    ground.redirects = vec![("a".into(), "b".into()), ("b".into(), "a".into())];
    let (told, manifest) = ground.told();
    let expected = [
        "a/f file file",
        "a/sub folder -",
        "a/sub/g file -",
        "b/f file file",
        "b/new - file",
        "b/sub - folder",
        "b/sub/g - file",
    ];
    assert_eq!(told, expected);
    assert!(manifest.complete && manifest.skipped.is_empty());
    let sha = |path: &str, after: bool| {
        let change = manifest.changes.iter().find(|change| change.path.to_string() == path);
        let node = change.and_then(|it| if after { it.after.clone() } else { it.before.clone() });
        match node {
            Some(Node::File { sha256, .. }) => sha256,
            other => panic!("{path}: {other:?}"),
        }
    };
    assert_eq!(sha("a/f", true), sha("b/f", false));
    assert_eq!(sha("b/f", true), sha("a/f", false));
    let kept = fs::read(ground.keep.path().join("blobs").join(sha("b/sub/g", true)));
    assert_eq!(kept.expect("kept"), b"g");

    // A chain: c is gone, d has its name, and what was in d has another place.
    let mut ground = Ground::new(&files);
    let upper = ground.overlay();
    for folder in ["c", "moved"] {
        fs::create_dir(upper.join(folder)).expect("made");
    }
    whiteout(&upper.join("d"));
    whiteout(&upper.join("c/in"));
    ground.redirects = vec![("c".into(), "d".into()), ("moved".into(), "d/in".into())];
    let (told, manifest) = ground.told();
    let expected = [
        "c/f file file",
        "d folder -",
        "d/f file -",
        "d/in folder -",
        "d/in/deep file -",
        "moved - folder",
        "moved/deep - file",
    ];
    assert_eq!(told, expected);
    let from = manifest.changes.iter().find_map(|change| change.from.as_ref());
    assert_eq!(from.map(ToString::to_string).as_deref(), Some("d/in/deep"));

    // Removed and made anew, with and without what was in it.
    let mut ground = Ground::new(&files);
    let upper = ground.overlay();
    for folder in ["a", "b"] {
        fs::create_dir(upper.join(folder)).expect("made");
    }
    fs::write(upper.join("b/f"), "b").expect("written");
    ground.opaque = vec!["a".into(), "b".into()];
    let (told, _) = ground.told();
    assert_eq!(told, ["a/f file -", "a/sub folder -", "a/sub/g file -"]);
}

#[test]
fn a_folder_that_cannot_be_read_is_left_out_alone() {
    let mut ground = Ground::new(&[("a/f", "1"), ("b/f", "1")]);
    let upper = ground.overlay();
    for folder in ["a", "b"] {
        fs::create_dir(upper.join(folder)).expect("made");
        fs::write(upper.join(folder).join("f"), "2").expect("written");
    }
    let mut merged = ground.merged().expect("an overlay");
    merged.folders.insert("a".into(), Err("unreadable"));
    let layer = ground.layer.as_ref().expect("made");
    let blobs = ground.keep.path().join("blobs");
    let known = Known { merged: Some(&merged), ..Known::default() };
    let collected = collect(layer, known, &blobs);
    let manifest = collected.expect("read").manifest;
    let paths: Vec<_> = manifest.changes.iter().map(|change| change.path.to_string()).collect();
    assert_eq!((paths, skipped(&manifest)), (vec!["b/f".into()], vec!["a: unreadable".into()]));
    assert!(manifest.complete);
    let error = collect(layer, Known::default(), &blobs).expect_err("not listed");
    assert!(matches!(error, CollectError::NotListed), "{error}");
}

#[test]
fn a_layer_is_read_within_bounds() {
    let mut ground = Ground::new(&[]);
    let upper = ground.bounded(Bounds { bytes: 1 << 20, files: 100 });
    let sparse = File::create(upper.join("sparse")).expect("made");
    sparse.set_len(8 << 40).expect("sparse");
    let began = Instant::now();
    let (told, manifest) = ground.told();
    assert!(began.elapsed() < Duration::from_secs(20) && manifest.complete);
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
    let left_out = |line: &String| line.ends_with("too deep") || line.ends_with("unreadable");
    assert!(manifest.complete && skipped(&manifest).iter().any(left_out));
    let layer = ground.layer.take().expect("made");
    let place = layer.written();
    layer.remove().expect("removed");
    assert!(!place.exists() && !place.parent().expect("a layer").exists());
}

/// Long names take more memory than the files take room on the disk.
#[test]
fn names_that_are_too_much_to_keep_end_the_look() {
    let mut ground = Ground::new(&[]);
    let upper = ground.bounded(Bounds { bytes: 1 << 20, files: 100_000 });
    let deep: PathBuf = std::iter::repeat_n("d".repeat(250), 15).collect();
    fs::create_dir_all(upper.join(&deep)).expect("made");
    for number in 0..3000 {
        fs::create_dir(upper.join(&deep).join(number.to_string())).expect("made");
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
    assert!(!ground.collect().repositories.is_empty());
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

#[test]
fn contents_are_had_without_a_copy_when_nobody_writes_any_more() {
    let mut ground = Ground::new(&[("old", "1")]);
    let upper = ground.overlay();
    for (name, text) in [("old", "2"), ("new", "3"), ("shut", "4"), ("linked", "5")] {
        fs::write(upper.join(name), text).expect("written");
    }
    fs::set_permissions(upper.join("shut"), fs::Permissions::from_mode(0o0)).expect("shut");
    fs::hard_link(upper.join("linked"), upper.join("again")).expect("linked");
    let blobs = ground.keep.path().join("blobs");
    let layer = ground.layer.as_ref().expect("made");
    let merged = ground.merged();
    let inode = |path: PathBuf| path.metadata().expect("there").ino();
    let mut seen = Vec::new();
    for is_over in [false, true] {
        let known = Known { merged: merged.as_ref(), is_over, ..Known::default() };
        let manifest = collect(layer, known, &blobs).expect("read").manifest;
        assert_eq!(manifest.changes.len(), 5);
        for name in ["old", "new", "shut", "linked"] {
            let change =
                manifest.changes.iter().find(|change| change.path.as_path() == Path::new(name));
            let Some(Node::File { sha256, .. }) = &change.expect("a change").after else {
                panic!("{name} is a file")
            };
            let kept = blobs.join(sha256);
            seen.push((is_over, name, inode(kept.clone()) == inode(upper.join(name))));
        }
        fs::remove_dir_all(&blobs).expect("removed");
    }
    let shared: Vec<_> = seen.iter().filter(|(_, _, shared)| *shared).collect();
    assert_eq!(shared, [&(true, "old", true), &(true, "new", true)]);
}
