//! What is left out where not all can be carried over, and what goes with it.

use std::fs;
use std::os::unix::fs::symlink;

use super::Carried;
use super::fault::{AT, Fault};
use super::ground::Ground;

fn partial(before: &[(&str, &str)], after: &[(&str, &str)]) -> Ground {
    let mut ground = Ground::new(before, after);
    ground.partial = true;
    ground
}

fn apply(ground: &Ground) -> Carried {
    ground.ask(&[], false, false).expect("the rest")
}

fn names<T: ToString>(paths: &[T]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

#[test]
fn what_conflicts_or_needs_a_yes_is_named_and_the_rest_is_applied() {
    let ground = partial(
        &[("edit", "1"), ("mine", "1"), ("gone", "1")],
        &[("edit", "2"), ("mine", "2"), (".envrc", "x"), ("AGENTS.md", "do"), ("new/f", "3")],
    );
    fs::write(ground.root().join("mine"), "edited by a person").expect("written");
    let carried = apply(&ground);
    assert_eq!(names(&carried.changed), ["AGENTS.md", "edit", "gone", "new", "new/f"]);
    assert_eq!(names(&carried.pending), [".envrc", "mine"]);
    assert_eq!(carried.protected.len(), 1);
    assert_eq!(carried.protected[0].path, ".envrc");
    assert_eq!(carried.conflicts.len(), 1);
    assert_eq!(carried.conflicts[0].path, "mine");
    assert_eq!(carried.obeyed.len(), 1);
    assert_eq!(carried.obeyed[0].path, "AGENTS.md");
    let text = |name: &str| fs::read_to_string(ground.root().join(name)).expect("there");
    assert_eq!((text("edit"), text("mine")), ("2".into(), "edited by a person".into()));
    assert!(!ground.root().join(".envrc").exists());
    // Once more changes nothing, and a yes takes what it is for.
    let again = apply(&ground);
    assert!(again.changed.is_empty() && again.pending.len() == 2, "{again:?}");
    let with_yes = ground.ask(&[], true, false).expect("the rest");
    assert_eq!(names(&with_yes.changed), [".envrc"]);
    assert_eq!(names(&with_yes.pending), ["mine"]);
}

#[test]
fn what_belongs_together_stays_together() {
    let ground = partial(
        &[("old", "whole\n"), ("d/x", "1"), ("d/y", "1"), ("t/in", "1"), ("f", "1"), ("ok", "1")],
        &[("to", "whole\n"), ("t", "file"), ("f/in/deep", "2"), ("ok", "2"), (".husky/x", "3")],
    );
    for name in ["old", "d/y", "t/in", "f"] {
        fs::write(ground.root().join(name), "edited by a person").expect("written");
    }
    let carried = apply(&ground);
    assert_eq!(names(&carried.changed), ["d/x", "ok"]);
    assert_eq!(
        names(&carried.pending),
        [".husky", ".husky/x", "d", "d/y", "f", "f/in", "f/in/deep", "old", "t", "t/in", "to"]
    );
    assert!(carried.kept_folders.is_empty());
    assert!(ground.root().join("old").exists() && !ground.root().join("to").exists());
}

#[test]
fn a_new_folder_of_which_nothing_is_taken_is_not_made() {
    let ground = partial(&[], &[(".github/workflows/ci.yml", "on: push"), ("a", "1")]);
    let carried = apply(&ground);
    assert_eq!(names(&carried.changed), ["a"]);
    assert!(!ground.root().join(".github").exists());
}

#[test]
fn one_paths_trouble_is_one_paths_trouble() {
    let ground = partial(
        &[("a", "1"), ("d/x", "1")],
        &[("a", "2"), ("b", "fresh"), ("d/x", "2"), ("pipe", "2")],
    );
    rustix::fs::mkfifoat(rustix::fs::CWD, ground.root().join("pipe"), 0o600.into()).expect("made");
    fs::rename(ground.root().join("d"), ground.root().join("real")).expect("moved");
    symlink("real", ground.root().join("d")).expect("link");
    ground.damage("fresh");
    let carried = apply(&ground);
    assert_eq!(names(&carried.changed), ["a"]);
    assert_eq!(names(&carried.pending), ["b", "d/x", "pipe"]);
    let found: Vec<_> = carried.conflicts.iter().map(|one| one.found.as_str()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|found| found.contains("not what it was when the run ended")));
    assert!(found.contains(&"neither a file nor a folder"), "{found:?}");
}

#[test]
fn a_failure_at_any_step_costs_one_path_and_no_more() {
    for at in 0..400 {
        let ground = partial(
            &[("a", "1"), ("gone", "1"), ("d/x", "1")],
            &[("a", "2"), ("n/new", "3"), ("d/x", "2")],
        );
        AT.set(Some((at, Fault::Fail)));
        let done = ground.ask(&[], false, false);
        if AT.take().is_some() {
            assert!(at > 10);
            return;
        }
        // Where it fails for all of them, nothing is done.
        let Ok(carried) = done else {
            ground.assert_untouched();
            continue;
        };
        assert!(carried.pending.len() <= 2, "{at}: {carried:?}");
        let mut all = [carried.changed, carried.pending].concat();
        all.sort();
        assert_eq!(names(&all), ["a", "d/x", "gone", "n", "n/new"], "{at}");
        assert!(ground.ask(&[], false, false).expect("the rest").pending.is_empty());
        assert_eq!(ground.now(), ground.after);
    }
    panic!("it never ended");
}
