//! Workspaces that would have another repository, or another file, handed into a sandbox.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::refuse::Ours;
use super::find::find;
use super::give::Given;
use super::give_tests::Ground;

#[track_caller]
fn is_refused(given: &Given, why: &str) {
    assert!(given.mounts.is_empty() && given.repositories.is_empty(), "{given:?}");
    assert!(given.remarks.len() == 1 && given.remarks[0].contains(why), "{given:?}");
}

#[test]
fn a_git_file_leads_nowhere_that_does_not_name_it_back() {
    let ground = Ground::new();
    ground.repository("theirs", &[]);
    ground.git("theirs", &["worktree", "add", "-q", "../tree"]);
    fs::create_dir(ground.at("ws")).expect("make");
    let theirs = ground.at("theirs/.git");
    for (text, why) in [
        ("gitdir: /etc\n".to_owned(), "does not name this folder"),
        (format!("gitdir: {}\n", theirs.display()), "does not name this folder"),
        ("gitdir: ../theirs/.git\n".to_owned(), "does not name this folder"),
        (format!("gitdir: {}/worktrees/tree\n", theirs.display()), "not the administration"),
        ("gitdir: /nowhere\n".to_owned(), "is not there"),
        ("gitdir:\n".to_owned(), "no file of git's"),
        ("x".repeat(100_000), "no file of git's"),
        ("gitdir: a\nb\n".to_owned(), "no file of git's"),
    ] {
        ground.write("ws/.git", &text);
        is_refused(&ground.give("ws"), why);
    }
}

#[test]
fn a_worktree_that_claims_another_repository_is_refused() {
    let ground = Ground::new();
    ground.repository("theirs", &[]);
    fs::create_dir(ground.at("ws")).expect("make");
    // An administration of its own making, which says that the rest is theirs.
    ground.write("ws/.git", "gitdir: admin/worktrees/x\n");
    ground.write("ws/admin/worktrees/x/HEAD", "ref: refs/heads/main\n");
    let back = format!("{}\n", ground.at("ws/.git").display());
    ground.write("ws/admin/worktrees/x/gitdir", &back);
    let theirs = format!("{}\n", ground.at("theirs/.git").display());
    ground.write("ws/admin/worktrees/x/commondir", &theirs);
    is_refused(&ground.give("ws"), "not the administration");
    // The same in a folder that looks like an ordinary repository.
    fs::remove_dir_all(ground.at("ws")).expect("remove");
    ground.repository("ws", &[]);
    ground.write("ws/.git/commondir", &theirs);
    is_refused(&ground.give("ws"), "commondir");
}

#[test]
fn links_and_pipes_are_not_followed() {
    let ground = Ground::new();
    ground.repository("theirs", &[]);
    fs::create_dir(ground.at("ws")).expect("make");
    symlink(ground.at("theirs/.git"), ground.at("ws/.git")).expect("link");
    is_refused(&ground.give("ws"), "symbolic link");
    fs::remove_file(ground.at("ws/.git")).expect("remove");
    ground.repository("ws", &[]);
    // The store, and a way to it.
    fs::rename(ground.at("ws/.git/objects"), ground.at("kept")).expect("move");
    symlink(ground.at("theirs/.git/objects"), ground.at("ws/.git/objects")).expect("link");
    is_refused(&ground.give("ws"), "objects is not a folder");
    fs::remove_file(ground.at("ws/.git/objects")).expect("remove");
    fs::rename(ground.at("kept"), ground.at("ws/.git/objects")).expect("back");
    // Files of it.
    ground.write("secret", "secret\n");
    for name in ["refs/heads/link", "info/exclude", "MERGE_MSG", "packed-refs", "shallow"] {
        let path = ground.at("ws/.git").join(name);
        let _ = fs::remove_file(&path);
        symlink(ground.at("secret"), &path).expect("link");
    }
    fs::remove_dir_all(ground.at("ws/.git/logs")).expect("remove");
    symlink(ground.at("theirs/.git/logs"), ground.at("ws/.git/logs")).expect("link");
    for name in ["refs/heads/pipe", "ORIG_HEAD"] {
        let path = ground.at("ws/.git").join(name);
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    }
    let given = ground.give("ws");
    assert_eq!(given.repositories.len(), 1);
    let copy = ground.at("layer/git");
    for name in ["refs/heads/link", "info/exclude", "MERGE_MSG", "packed-refs", "logs", "ORIG_HEAD"]
    {
        assert!(copy.join(name).symlink_metadata().is_err(), "{name}");
    }
}

#[test]
fn stores_elsewhere_are_not_borrowed() {
    let ground = Ground::new();
    ground.repository("theirs", &[]);
    ground.git("", &["clone", "-q", "--shared", "theirs", "ws"]);
    is_refused(&ground.give("ws"), "borrows objects");
    let alternates = "ws/.git/objects/info/alternates";
    for text in ["../../../../theirs/.git/objects\n", "\"/etc\"\n", "/etc\n"] {
        ground.write(alternates, text);
        is_refused(&ground.give("ws"), "borrows objects");
    }
    // In the workspace it is its own to show.
    ground.clear();
    fs::create_dir(ground.at("ws/vendor")).expect("make");
    fs::rename(ground.at("theirs"), ground.at("ws/vendor/theirs")).expect("move");
    ground.write(alternates, "../../vendor/theirs/.git/objects\n");
    let given = ground.give("ws");
    assert_eq!(given.repositories[0].stores.len(), 2);
    assert!(given.mounts.iter().any(|mount| mount.target.ends_with("objects/info/alternates")));
    // Stores that borrow from one another have an end.
    ground.write("ws/vendor/theirs/.git/objects/info/alternates", "../../../../.git/objects\n");
    ground.clear();
    assert_eq!(ground.give("ws").repositories[0].stores.len(), 2);
}

#[test]
fn the_repository_of_a_home_is_nobodys_worktree() {
    let ground = Ground::new();
    ground.repository("home", &[]);
    ground.git("home", &["worktree", "add", "-q", "../ws"]);
    let ours = Ours { home: Some(ground.at("home")), private: Vec::new() };
    let why = find(&ground.at("ws"), &ours).expect_err("refused").0;
    assert!(why.contains("a home folder"), "{why}");
    let found = find(&ground.at("ws"), &Ours::default()).expect("found").expect("one");
    assert_eq!(found.common, ground.at("home/.git"));
}

#[test]
fn a_store_that_is_exchanged_for_a_link_is_noticed() {
    let ground = Ground::new();
    ground.repository("ws", &[]);
    let given = ground.give("ws");
    assert!(given.is_as_it_was());
    fs::rename(ground.at("ws/.git/objects"), ground.at("kept")).expect("move");
    symlink(ground.at("kept"), ground.at("ws/.git/objects")).expect("link");
    assert!(!given.is_as_it_was());
    fs::remove_file(ground.at("ws/.git/objects")).expect("remove");
    fs::create_dir(ground.at("ws/.git/objects")).expect("make");
    assert!(!given.is_as_it_was());
}

#[test]
fn submodules_are_taken_from_the_repository_alone() {
    let ground = Ground::new();
    ground.repository("ws", &[]);
    ground.repository("theirs", &[]);
    fs::create_dir(ground.at("ws/.git/modules")).expect("make");
    symlink(ground.at("theirs/.git"), ground.at("ws/.git/modules/link")).expect("link");
    // One whose working tree is said to be elsewhere.
    ground.repository("ws/sub", &[]);
    fs::rename(ground.at("ws/sub/.git"), ground.at("ws/.git/modules/sub")).expect("move");
    ground.write("ws/sub/.git", "gitdir: ../.git/modules/sub\n");
    let theirs = ground.at("theirs");
    let config = "ws/.git/modules/sub/config";
    let text = fs::read_to_string(ground.at(config)).expect("read");
    ground.write(config, &format!("{text}[core]\n\tworktree = {}\n", theirs.display()));
    // And a chain of folders.
    let deep: PathBuf = (0..100).map(|_| "x").collect();
    fs::create_dir_all(ground.at("ws/.git/modules").join(deep)).expect("make");
    let given = ground.give("ws");
    assert_eq!(given.repositories.len(), 1, "{:?}", given.repositories);
    assert!(!ground.at("layer/git/modules/link").exists());
    let config = fs::read_to_string(ground.at("layer/git/modules/sub/config")).expect("read");
    assert!(!config.contains("theirs"), "{config}");
}

#[test]
fn what_is_huge_is_cut_or_ends_the_copying() {
    let ground = Ground::new();
    ground.repository("ws", &[]);
    ground.write("ws/.git/refs/heads/huge", &"0".repeat(1 << 20));
    let line = "0 0 t <t@example.com> 0 +0000\tline\n";
    ground.write("ws/.git/logs/HEAD", &line.repeat(100_000));
    fs::File::create(ground.at("ws/.git/MERGE_MSG")).expect("make").set_len(1 << 40).expect("long");
    let given = ground.give("ws");
    assert_eq!(given.repositories.len(), 1);
    let copy = ground.at("layer/git");
    assert!(!copy.join("refs/heads/huge").exists() && !copy.join("MERGE_MSG").exists());
    let log = fs::read_to_string(copy.join("logs/HEAD")).expect("read");
    assert!(log.len() <= 256 << 10 && log.starts_with(line) && log.ends_with(line));
    ground.clear();
    fs::File::create(ground.at("ws/.git/index")).expect("make").set_len(1 << 40).expect("long");
    let top = ground.at("ws");
    let who = super::Inside { uid: 1, gid: 1 };
    let layer = ground.at("layer");
    let given = super::give::give_for(&top, Path::new("/w"), who, &layer, (&Ours::default(), &[]));
    assert!(given.expect_err("too much").to_string().contains("1 GiB"));
}
