use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

fn repository() -> (TempDir, Inside) {
    let place = tempfile::tempdir().expect("temp");
    let made = Command::new("git").args(["init", "-q"]).arg(place.path()).status();
    assert!(made.expect("git").success());
    let found = fs::metadata(place.path()).expect("metadata");
    let who = Inside { uid: found.uid(), gid: found.gid() };
    (place, who)
}

fn configured(text: &str) -> Vec<String> {
    let (place, who) = repository();
    let path = place.path().join(".git/config");
    let before = fs::read_to_string(&path).expect("read");
    fs::write(&path, before + text).expect("write");
    remarks(place.path(), who)
}

fn hook(place: &Path, name: &str, mode: u32) {
    let path = place.join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("make");
    fs::write(&path, "#!/bin/sh\n").expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode");
}

#[test]
fn an_ordinary_repository_and_none_are_not_worth_a_word() {
    let (place, who) = repository();
    assert_eq!(remarks(place.path(), who), [""; 0]);
    let empty = tempfile::tempdir().expect("temp");
    assert_eq!(remarks(empty.path(), who), [""; 0]);
    let usual = "[filter \"lfs\"]\n\tclean = git-lfs clean -- %f\n\tprocess = git-lfs filter-process\n\
                 [commit]\n\tgpgsign = false\n[remote \"o\"]\n\turl = https://x/y\n";
    assert_eq!(configured(usual), [""; 0]);
}

#[test]
fn hooks_are_told_that_are_there_and_would_run() {
    let (place, who) = repository();
    hook(place.path(), ".git/hooks/pre-commit", 0o755);
    hook(place.path(), ".git/hooks/commit-msg", 0o644);
    hook(place.path(), ".git/hooks/pre-push.sample", 0o755);
    hook(place.path(), ".git/hooks/update", 0o755);
    let told = remarks(place.path(), who);
    assert!(told.len() == 1 && told[0].contains("hooks (pre-commit) are off"), "{told:?}");
    // They count in another folder, and there alone.
    let path = place.path().join(".git/config");
    let config = fs::read_to_string(&path).expect("read");
    hook(place.path(), ".husky/_/commit-msg", 0o755);
    for (value, expected) in [
        (".husky/_", Some("(commit-msg)")),
        ("/dev/null", None),
        ("none", Some("(none)")),
        ("/home/ada/hooks", Some("(/home/ada/hooks)")),
    ] {
        fs::write(&path, format!("{config}[core]\n\thooksPath = {value}\n")).expect("write");
        let told = remarks(place.path(), who);
        match expected {
            Some(words) => assert!(told.len() == 1 && told[0].contains(words), "{told:?}"),
            None => assert!(told.is_empty(), "{told:?}"),
        }
    }
}

#[test]
fn what_the_settings_ask_for_in_vain_is_told() {
    for (text, words) in [
        ("[commit]\n\tgpgsign = true\n", "commit.gpgsign"),
        ("[commit]\n\tgpgSign\n", "commit.gpgsign"),
        ("[tag]\n\tgpgsign = yes\n", "tag.gpgsign"),
        ("[filter \"crypt\"]\n\tclean = git-crypt clean\n", "filter.crypt.clean"),
        ("[diff]\n\texternal = difft\n", "diff.external"),
        ("[core]\n\trepositoryformatversion = 7\n", "core.repositoryformatversion = 7"),
        (
            "[core]\n\trepositoryformatversion = 1\n[extensions]\n\trefstorage = reftable\n",
            "git refs migrate",
        ),
    ] {
        let told = configured(text);
        assert!(told.len() == 1 && told[0].contains(words), "{text}: {told:?}");
    }
    let known = "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tworktreeConfig = true\n";
    assert_eq!(configured(known), [""; 0]);
}

#[test]
fn what_belongs_to_another_user_is_told_with_the_cure() {
    let (place, who) = repository();
    // Seen by another user, everything here is another user's, who may read what all may.
    let other = Inside { uid: who.uid + 1, gid: who.gid + 1 };
    assert_eq!(remarks(place.path(), other), [""; 0]);
    let closed = place.path().join(".git/HEAD");
    fs::set_permissions(closed, fs::Permissions::from_mode(0o600)).expect("mode");
    let told = remarks(place.path(), other);
    let cure = format!("chown -R {}:{} {}/.git", other.uid, other.gid, place.path().display());
    assert!(told.len() == 1 && told[0].contains(&cure), "{told:?}");
    let mode = |name: &str, mode| {
        let path = place.path().join(".git").join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    };
    mode("HEAD", 0o444);
    assert_eq!(remarks(place.path(), who), [""; 0]);
    mode("objects/pack", 0o300);
    let told = remarks(place.path(), who);
    assert!(told.len() == 1 && told[0].contains(".git/objects/pack belongs to"), "{told:?}");
    mode("objects/pack", 0o555);
    assert_eq!(remarks(place.path(), who), [""; 0]);
}

#[test]
fn links_are_not_followed() {
    let (place, who) = repository();
    let elsewhere = tempfile::tempdir().expect("temp");
    hook(elsewhere.path(), "pre-commit", 0o755);
    fs::remove_dir_all(place.path().join(".git/hooks")).expect("remove");
    symlink(elsewhere.path(), place.path().join(".git/hooks")).expect("link");
    assert_eq!(remarks(place.path(), who), [""; 0]);
    fs::rename(place.path().join(".git"), elsewhere.path().join("git")).expect("move");
    symlink(elsewhere.path().join("git"), place.path().join(".git")).expect("link");
    assert_eq!(remarks(place.path(), who), [""; 0]);
}
