use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::super::Alteration;
use super::super::testing::{Dice, Item, changed, random};
use super::fault::Fault;
use super::ground::*;
use super::*;
use crate::workspace::git::Waiting;

#[test]
fn any_result_is_carried_over_exactly_and_twice_is_once() {
    for round in 0..120 {
        let mut dice = Dice(0x1234_5678_9abc ^ (round << 24));
        let before = random(&mut dice);
        let after = changed(&before, &mut dice);
        let ground = Ground::of(before, after);
        let dry = ground.ask(&[], true, true).expect("possible");
        assert_eq!(ground.now(), ground.before, "a dry run changes nothing");
        let carried = ground.apply().unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(dry, carried);
        assert_eq!(ground.now(), ground.after, "round {round}");
        assert!(Place::all(&ground.journals()).is_empty());
        let again = ground.apply().expect("again");
        assert!(again.changed.is_empty(), "{again:?}");
        assert_eq!(again.already.len(), ground.manifest.changes.len());
        assert_eq!(ground.now(), ground.after);
    }
}

fn of_all_kinds() -> Ground {
    let mut before = tree(&[
        ("same", "1"),
        ("edit", "old\n"),
        ("dir/gone", "x"),
        ("dir/deep/gone", "y"),
        ("becomes-dir", "file"),
        ("becomes-file/in", "z"),
        ("link", "-> same"),
        ("moved", "whole\n"),
        ("mode", "m"),
        ("shut/in", "s"),
    ]);
    let mut after = tree(&[
        ("same", "1"),
        ("edit", "new\n"),
        ("new/deep/file", "n"),
        ("becomes-dir/in", "q"),
        ("becomes-file", "w"),
        ("link", "-> edit"),
        ("to", "whole\n"),
        ("mode", "m"),
        ("shut/in", "t"),
        ("empty/", ""),
    ]);
    before.insert("shut".into(), Item::Folder(0o555));
    after.insert("shut".into(), Item::Folder(0o500));
    after.insert("mode".into(), Item::File(b"m".to_vec(), 0o755));
    after.insert("new/deep".into(), Item::Folder(0o500));
    Ground::of(before, after)
}

#[test]
fn a_crash_at_any_step_leaves_all_or_nothing() {
    let (mut undone, mut done) = (0, 0);
    for at in 0.. {
        let ground = of_all_kinds();
        let reached = crash(&ground, at);
        if !reached {
            assert_eq!(ground.now(), ground.after);
            break;
        }
        // The recovery can be killed as well, as often as it likes.
        for again in 0..3 {
            with_fault(again, Fault::Crash, || drop(ground.recover()));
        }
        let recovered = ground.recover();
        assert!(recovered.pending.is_empty(), "step {at}: {recovered:?}");
        let now = ground.now();
        assert!(now == ground.before || now == ground.after, "step {at}: {now:#?}");
        if now == ground.before {
            undone += 1;
        } else {
            done += 1;
        }
        assert!(
            Place::all(&ground.journals()).is_empty()
                && !is_unsettled(&ground.journals(), ground.root())
        );
        ground.apply().expect("then it works");
        assert_eq!(ground.now(), ground.after, "step {at}");
    }
    assert!(undone > 30 && done > 3, "{undone} undone, {done} done");
}

#[test]
fn branches_follow_the_files_whatever_crashes() {
    let (mut undone, mut done) = (0, 0);
    for at in 0.. {
        let mut ground = Ground::new(&[("a", "1"), ("gone", "1")], &[("a", "2"), ("new/b", "2")]);
        let repositories = Waiting::new(&["one", "two"]);
        ground.commits = Some(repositories.list.clone());
        let reached = crash(&ground, at);
        let recovered = ground.recover();
        assert!(recovered.pending.is_empty(), "step {at}: {recovered:?}");
        let now = ground.now();
        let subject = if now == ground.after { "second" } else { "first" };
        assert!(now == ground.before || now == ground.after, "step {at}: {now:#?}");
        for name in ["one", "two"] {
            let subjects = (subject.to_owned(), subject.to_owned());
            assert_eq!(repositories.state(name), subjects, "step {at}");
        }
        if !reached {
            assert_eq!(now, ground.after);
            break;
        }
        *(if subject == "first" { &mut undone } else { &mut done }) += 1;
    }
    assert!(undone > 5 && done > 2, "{undone} undone, {done} done");
}

#[test]
fn a_part_of_the_files_moves_no_branch() {
    let mut ground = Ground::new(&[("a", "1"), ("b", "1")], &[("a", "2"), ("b", "2")]);
    let repositories = Waiting::new(&["one"]);
    ground.commits = Some(repositories.list.clone());
    ground.ask(&["a"], true, false).expect("a part");
    assert_eq!(repositories.state("one").0, "first");
}

#[test]
fn the_next_application_settles_what_a_crash_left() {
    for at in [5, 25, 40] {
        let ground = of_all_kinds();
        assert!(crash(&ground, at));
        assert!(is_unsettled(&ground.journals(), ground.root()));
        ground.apply().expect("it works");
        assert_eq!(ground.now(), ground.after);
        assert!(Place::all(&ground.journals()).is_empty());
    }
}

#[test]
fn a_failure_at_any_step_undoes_everything() {
    let mut failed = 0;
    for at in 0.. {
        let ground = of_all_kinds();
        let mut result = None;
        let reached = with_fault(at, Fault::Fail, || result = Some(ground.apply()));
        if !reached {
            break;
        }
        match result.expect("it returned") {
            Err(error) => {
                assert!(error.to_string().contains("a failure that a test asked for"), "{error}");
                ground.assert_untouched();
                failed += 1;
            }
            // A point that only crashes.
            Ok(_) => assert_eq!(ground.now(), ground.after),
        }
    }
    assert!(failed > 30, "{failed}");
}

#[test]
fn while_somebody_writes_nothing_is_recovered() {
    let ground = of_all_kinds();
    assert!(crash(&ground, 30));
    let half = ground.now();
    let workspace = WorkspacePath::check(None, ground.root(), &[]).expect("checked");
    let lock = FolderLock::try_lock(&workspace).expect("ok").expect("free");
    let recovered = ground.recover();
    assert_eq!(recovered.pending, [ground.root()]);
    assert_eq!(ground.now(), half);
    drop(lock);
    let recovered = ground.recover();
    assert!(recovered.told[0].contains("was interrupted; it was undone"), "{recovered:?}");
    ground.assert_untouched();
}

#[test]
fn edits_between_a_crash_and_the_recovery_are_kept() {
    let ground = Ground::new(&[("a", "old")], &[("a", "new"), ("b", "added")]);
    let mut at = 0;
    // Until both are in their places and nothing is committed.
    while !(ground.root().join("b").exists() && ground.root().join(staging(&ground.run)).exists()) {
        drop(ground.recover());
        assert!(crash(&ground, at), "never there");
        at += 1;
    }
    fs::write(ground.root().join("b"), "edited by a person").expect("written");
    // However often the recovery is killed.
    for again in 0..8 {
        with_fault(again, Fault::Crash, || drop(ground.recover()));
        if Place::all(&ground.journals()).is_empty() {
            break;
        }
    }
    ground.recover();
    assert!(Place::all(&ground.journals()).is_empty());
    assert_eq!(fs::read_to_string(ground.root().join("a")).expect("there"), "old");
    let kept = ground.root().join(format!("{KEPT}{}", ground.run));
    let texts: Vec<_> = fs::read_dir(kept)
        .expect("kept")
        .map(|entry| fs::read_to_string(entry.expect("entry").path()).expect("text"))
        .collect();
    assert!(texts.contains(&"edited by a person".to_owned()), "{texts:?}");
}

#[test]
fn each_conflict_is_told_and_nothing_is_touched() {
    let ground = Ground::new(
        &[("edit", "1"), ("gone", "2"), ("d/x", "3"), ("l", "-> a"), ("ok", "4")],
        &[("edit", "one"), ("d/x", "three"), ("l", "-> b"), ("ok", "four"), ("new", "n")],
    );
    let root = ground.root().to_owned();
    fs::write(root.join("edit"), "9").expect("written");
    fs::write(root.join("gone"), "other").expect("written");
    fs::remove_file(root.join("l")).expect("removed");
    fs::create_dir(root.join("new")).expect("made");
    fs::rename(root.join("d"), root.join("real")).expect("moved");
    symlink("real", root.join("d")).expect("link");
    let before = ground.now();
    let conflicts = ground.conflicts();
    let paths: Vec<_> = conflicts.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["d/x", "edit", "gone", "l", "new"]);
    assert!(conflicts[0].1.contains("a link or a file in the place of a folder"));
    assert!(conflicts[1].1.starts_with("a file of 1 bytes, mode 644, SHA-256 "), "{conflicts:?}");
    assert_eq!(conflicts[2].1, "another file, of 5 bytes");
    assert_eq!(
        (conflicts[3].1.as_str(), conflicts[4].1.as_str()),
        ("nothing", "a folder, mode 755")
    );
    assert_eq!(ground.now(), before);
    assert!(Place::all(&ground.journals()).is_empty());
    // What is asked for has none.
    assert_eq!(paths_of(&ground.ask(&["ok"], false, false)), ["ok"]);
}

#[test]
fn a_mode_or_a_moved_base_or_something_special_conflicts_too() {
    let mut ground = Ground::new(&[("a", "1"), ("b", "1"), ("c", "1")], &[("a", "2"), ("b", "2")]);
    fs::set_permissions(ground.root().join("a"), fs::Permissions::from_mode(0o600)).expect("chmod");
    ground.manifest.changes[1].base_moved = true;
    fs::remove_file(ground.root().join("c")).expect("removed");
    let _socket = std::os::unix::net::UnixListener::bind(ground.root().join("c")).expect("bound");
    let found: Vec<_> = ground.conflicts().into_iter().map(|(_, found)| found).collect();
    assert!(found[0].contains("mode 600") && found[1].contains("somebody else"), "{found:?}");
    assert_eq!(found[2], "neither a file nor a folder");
}

#[test]
fn an_addition_needs_only_that_nothing_is_there() {
    let mut ground = Ground::new(&[], &[("new", "1")]);
    ground.manifest.changes[0].base_moved = true;
    assert_eq!(paths_of(&ground.ask(&[], false, false)), ["new"]);
    let mut ground = Ground::new(&[], &[("new", "1")]);
    ground.manifest.changes[0].base_moved = true;
    fs::write(ground.root().join("new"), "somebody's").expect("written");
    assert_eq!(ground.conflicts().len(), 1);
}

#[test]
fn only_what_is_asked_for_comes_with_what_belongs_to_it() {
    let before = [("old", "whole\n"), ("f/in", "1"), ("a", "1"), ("b/x", "1")];
    let after = [("n/d/new", "whole\n"), ("f", "file"), ("a", "2"), ("b/x", "2"), ("n/other", "3")];
    let ground = Ground::new(&before, &after);
    let asked = |only: &[&str]| paths_of(&ground.ask(only, false, true));
    assert_eq!(asked(&["a"]), ["a"]);
    assert_eq!(asked(&["./b/"]), ["b/x"]);
    assert_eq!(asked(&[ground.root().join("a").to_str().expect("utf-8")]), ["a"]);
    assert_eq!(asked(&["n/d"]), ["n", "n/d", "n/d/new", "old"], "both ends, and the way");
    assert_eq!(asked(&["old"]), ["n", "n/d", "n/d/new", "old"]);
    assert_eq!(asked(&["f"]), ["f", "f/in"]);
    for wrong in ["bx", "", ".", "..", "/etc", "b/x/y"] {
        let error = ground.ask(&[wrong], false, true).expect_err(wrong).to_string();
        assert!(error.contains("the run changed no such path; the nearest is `"), "{error}");
    }
    assert_eq!(ground.now(), ground.before);
    ground.ask(&["a", "n/d"], false, false).expect("carried over");
    ground.ask(&[], false, false).expect("and the rest");
    assert_eq!(ground.now(), ground.after);
}

#[test]
fn a_folder_with_something_new_in_it_stays() {
    let ground = Ground::new(&[("d/e/x", "1"), ("f/x", "1")], &[("f", "file")]);
    fs::write(ground.root().join("d/mine"), "new").expect("written");
    fs::write(ground.root().join("f/mine"), "new").expect("written");
    assert_eq!(
        ground.conflicts(),
        [("f".to_owned(), "a folder with something else in it".to_owned())]
    );
    let carried = ground.ask(&["d"], false, false).expect("carried over");
    assert_eq!(paths(&carried.changed), ["d/e", "d/e/x"]);
    assert_eq!(paths(&carried.kept_folders), ["d"]);
    assert!(ground.root().join("d/mine").exists() && !ground.root().join("d/e").exists());
}

#[test]
fn a_missing_folder_on_the_way_is_made_again() {
    let ground = Ground::new(&[("d/x", "1")], &[("d/x", "1"), ("d/e/new", "2")]);
    fs::remove_dir_all(ground.root().join("d")).expect("removed");
    ground.apply().expect("carried over");
    assert_eq!(fs::read_to_string(ground.root().join("d/e/new")).expect("there"), "2");
}

#[test]
fn damaged_contents_and_half_lists_and_strangers_are_refused() {
    let mut ground = Ground::new(&[("a", "1")], &[("a", "2"), ("b", "3")]);
    for entry in fs::read_dir(ground.keep.path().join("blobs")).expect("blobs") {
        fs::write(entry.expect("entry").path(), "?").expect("damaged");
    }
    let damaged = ground.apply().expect_err("damaged").to_string();
    assert!(damaged.contains("it is not what it was when the run ended"), "{damaged}");
    ground.assert_untouched();
    ground.manifest.complete = false;
    assert!(matches!(ground.apply(), Err(ApplyError::Incomplete)));
    ground.manifest.complete = true;
    // Somebody else's folder by our name is nobody's to write to or to remove.
    let squat = ground.root().join(staging(&ground.run));
    fs::create_dir(&squat).expect("made");
    fs::write(squat.join("old-1"), "theirs").expect("written");
    let refused = ground.apply().expect_err("in the way").to_string();
    assert!(refused.contains("move it away"), "{refused}");
    assert!(squat.join("old-1").exists() && Place::all(&ground.journals()).is_empty());
}

#[test]
fn a_recovery_that_keeps_something_says_where() {
    let ground = Ground::new(&[("a", "old")], &[("a", "new"), ("b", "added")]);
    let mut at = 0;
    while !(ground.root().join("b").exists() && ground.root().join(staging(&ground.run)).exists()) {
        drop(ground.recover());
        assert!(crash(&ground, at), "never there");
        at += 1;
    }
    fs::write(ground.root().join("b"), "edited by a person").expect("written");
    let recovered = ground.recover();
    assert!(recovered.told[0].contains("edited or moved meanwhile"), "{recovered:?}");
}

#[test]
fn a_shared_folder_stays_shared_whatever_becomes_of_its_mode() {
    let mode = |ground: &Ground, name: &str| {
        ground.root().join(name).metadata().expect("there").permissions().mode() & 0o7777
    };
    for at in 0..12 {
        let mut ground = Ground::new(&[("d/x", "1"), ("e/y", "1")], &[("d/x", "2")]);
        let changed = &mut ground.manifest.changes;
        let folder = |mode| Some(crate::workspace::changeset::Node::Folder { mode });
        let path = RelPath::new("d").expect("a path");
        let (before, after) = (folder(0o755), folder(0o700));
        changed.insert(
            0,
            Alteration { path, before, after, from: None, base_moved: false, written: None },
        );
        for name in ["d", "e"] {
            let shared = fs::Permissions::from_mode(0o2755);
            fs::set_permissions(ground.root().join(name), shared).expect("chmod");
        }
        let mut result = None;
        with_fault(at, Fault::Fail, || result = Some(ground.apply()));
        if result.expect("returned").is_err() {
            assert_eq!((mode(&ground, "d"), mode(&ground, "e")), (0o2755, 0o2755), "{at}");
        } else {
            assert_eq!(mode(&ground, "d"), 0o2700);
            assert!(!ground.root().join("e").exists());
        }
    }
}
