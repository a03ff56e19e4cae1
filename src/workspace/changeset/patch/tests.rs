use std::fs;
use std::path::Path;
use std::process::Command;

use super::super::testing::{Dice, Item, Tree, between, changed, random, read, write};
use super::super::{Blobs, Manifest, RelPath};
use super::*;

/// The real git, with nobody's settings.
fn git(folder: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new("git")
        .args(["-c", "safe.directory=*", "-c", "user.name=A", "-c", "user.email=a@b"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CEILING_DIRECTORIES", folder.parent().expect("a parent"))
        .output()
        .expect("git")
}

fn patch_of(manifest: &Manifest, base: &Path, blobs: &Blobs) -> (Vec<u8>, PatchReport) {
    let mut patch = Vec::new();
    let report = write_patch(manifest, base, blobs, &mut patch).expect("written");
    (patch, report)
}

/// What git knows of a tree.
fn as_git(tree: &Tree) -> Tree {
    let item = |item: &Item| match item {
        Item::File(content, mode) => {
            Item::File(content.clone(), if mode & 0o100 == 0 { 0o644 } else { 0o755 })
        }
        other => other.clone(),
    };
    tree.iter()
        .filter(|(path, found)| {
            !matches!(found, Item::Folder(_))
                && !path.starts_with(".git")
                && *path != Path::new("p")
        })
        .map(|(path, found)| (path.clone(), item(found)))
        .collect()
}

fn without_empty_folders(tree: Tree) -> Tree {
    let kept = tree.iter().filter(|(_, item)| !matches!(item, Item::Folder(_)));
    let kept: Vec<_> = kept.map(|(path, _)| path.clone()).collect();
    let used = |folder: &Path| kept.iter().any(|path| path.starts_with(folder));
    tree.into_iter().filter(|(path, item)| !matches!(item, Item::Folder(_)) || used(path)).collect()
}

#[test]
fn git_makes_the_same_of_it() {
    let rounds = 300;
    let mut seen = [0; 5];
    for round in 0..rounds {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (round << 20));
        let folder = tempfile::tempdir().expect("temp");
        let base = folder.path().join("w");
        fs::create_dir(&base).expect("made");
        let before = without_empty_folders(random(&mut dice));
        let after = without_empty_folders(changed(&before, &mut dice));
        write(&base, &before);
        let blobs = Blobs::new(folder.path().join("blobs"));
        let manifest = between(&base, &before, &after, &blobs, dice.roll(2) == 0);
        let (patch, report) = patch_of(&manifest, &base, &blobs);
        assert!(report.is_complete(), "{report:?}");
        for (at, words) in
            [&b"\nrename from"[..], b"GIT binary", b"\\ No newline", b"\nold mode", b" 120000\n"]
                .iter()
                .enumerate()
        {
            seen[at] += usize::from(patch.windows(words.len()).any(|found| found == *words));
        }
        let file = folder.path().join("p");
        fs::write(&file, &patch).expect("written");
        let in_repository = round % 2 == 0;
        if in_repository {
            assert!(git(&base, &["init", "-q"]).status.success());
        }
        let arguments = ["apply", "--allow-empty", "--whitespace=nowarn", "../p"];
        let done = git(&base, &arguments);
        let text = String::from_utf8_lossy(&patch);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "round {round}: {said}\n{text}");
        assert_eq!(as_git(&read(&base)), as_git(&after), "round {round}\n{text}");
    }
    assert!(seen.iter().all(|count| *count > 20), "too little was tried: {seen:?}");
}

fn ground(before: &[(&str, &str)], after: &[(&str, &str)]) -> (tempfile::TempDir, Manifest, Blobs) {
    let folder = tempfile::tempdir().expect("temp");
    let base = folder.path().join("w");
    fs::create_dir(&base).expect("made");
    let tree = |files: &[(&str, &str)]| -> Tree {
        let file = |text: &str| Item::File(text.as_bytes().to_vec(), 0o644);
        files.iter().map(|(name, text)| (name.into(), file(text))).collect()
    };
    write(&base, &tree(before));
    let blobs = Blobs::new(folder.path().join("blobs"));
    let manifest = between(&base, &tree(before), &tree(after), &blobs, true);
    (folder, manifest, blobs)
}

#[test]
fn what_cannot_be_in_it_is_said_first() {
    let before = [("a", "1\n"), ("b", "1\n"), ("c", "moved\n"), ("e", "1\n")];
    let after = [("a", "2\n"), ("b", "2\n"), ("d\ndiff --git", "moved\n"), ("e", "2\n")];
    let (folder, manifest, blobs) = ground(&before, &after);
    let base = folder.path().join("w");
    fs::write(base.join("a"), "by somebody else\n").expect("written");
    fs::write(base.join("c"), "by somebody else\n").expect("written");
    let Some(Node::File { sha256, .. }) = &manifest.changes[1].after else { panic!("a file") };
    // The content of `e` is the same one.
    fs::remove_file(folder.path().join("blobs").join(sha256)).expect("removed");
    let (patch, report) = patch_of(&manifest, &base, &blobs);
    let text = String::from_utf8(patch).expect("text");
    let left: Vec<_> = report.left_out.iter().map(|(path, why)| (path.to_string(), *why)).collect();
    assert_eq!(left.len(), 5, "{left:?}");
    assert!(left.contains(&("a".into(), NOT_THE_BASE)) && left.contains(&("b".into(), DAMAGED)));
    assert!(
        text.contains("# not in this patch: \"d\\ndiff --git\" (the workspace no longer"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.starts_with("# ")), "{text}");
}

#[test]
fn a_base_that_became_a_link_is_not_followed() {
    let (folder, manifest, blobs) = ground(&[("a", "1\n")], &[("a", "2\n")]);
    let base = folder.path().join("w");
    fs::rename(base.join("a"), folder.path().join("outside")).expect("moved");
    std::os::unix::fs::symlink("../outside", base.join("a")).expect("link");
    let (_, report) = patch_of(&manifest, &base, &blobs);
    assert_eq!(report.left_out, [(RelPath::new("a").expect("path"), NOT_THE_BASE)]);
}

#[test]
fn large_files_are_binary_and_too_large_ones_are_left_out() {
    let large = "a line of text\n".repeat(100_000);
    let (folder, mut manifest, blobs) = ground(&[], &[("large", &large), ("small", "x\n")]);
    let (patch, report) = patch_of(&manifest, &folder.path().join("w"), &blobs);
    assert!(report.is_complete());
    assert!(String::from_utf8_lossy(&patch).contains("GIT binary patch\nliteral 1500000\n"));
    if let Some(Node::File { size, .. }) = &mut manifest.changes[0].after {
        *size = LARGEST as u64 + 1;
    }
    let (patch, report) = patch_of(&manifest, &folder.path().join("w"), &blobs);
    let text = String::from_utf8_lossy(&patch);
    assert_eq!(report.left_out[0].1, TOO_LARGE);
    assert!(
        text.starts_with("# not in this patch: large (too large)\ndiff --git a/small"),
        "{text}"
    );
}

#[test]
fn a_text_made_to_be_slow_is_not() {
    let mut dice = Dice(7);
    let mut text = || (0..200_000).map(|_| ["0\n", "1\n", "2\n"][dice.roll(3)]).collect::<String>();
    let (before, after) = (text(), text());
    let (folder, manifest, blobs) = ground(&[("a", &before)], &[("a", &after)]);
    let started = std::time::Instant::now();
    let (_, report) = patch_of(&manifest, &folder.path().join("w"), &blobs);
    assert!(report.is_complete());
    assert!(started.elapsed() < SEARCH * 3, "{:?}", started.elapsed());
}
