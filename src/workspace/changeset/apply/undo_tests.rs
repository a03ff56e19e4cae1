//! Putting back what was applied.

use std::fs;

use super::super::testing::{Dice, changed, random};
use super::fault::Fault;
use super::ground::{Ground, crash, with_fault};
use super::{ApplyError, forget_all, reversed};

#[test]
fn any_application_can_be_undone_and_done_again() {
    for round in 0..60 {
        let mut dice = Dice(0x0abc_def1_2345 ^ (round << 24));
        let before = random(&mut dice);
        let after = changed(&before, &mut dice);
        let ground = Ground::of(before, after);
        if ground.apply().expect("applied").changed.is_empty() {
            continue;
        }
        ground.undo().unwrap_or_else(|error| panic!("round {round}: {error}"));
        ground.assert_untouched();
        assert!(ground.undo().expect("twice is once").changed.is_empty());
        forget_all(&ground.kept()).expect("removed");
        ground.apply().expect("again");
        assert_eq!(ground.now(), ground.after, "round {round}");
    }
}

#[test]
fn what_has_changed_since_is_not_undone() {
    let ground = Ground::new(&[("a", "1"), ("gone", "2")], &[("a", "3"), ("new", "4")]);
    ground.apply().expect("applied");
    fs::write(ground.root().join("new"), "edited by a person").expect("written");
    let now = ground.now();
    assert!(matches!(ground.undo(), Err(ApplyError::Conflicts(one)) if one.len() == 1));
    assert_eq!(ground.now(), now);
    fs::write(ground.root().join("new"), "4").expect("written");
    ground.undo().expect("undone");
    ground.assert_untouched();
}

#[test]
fn parts_are_undone_together() {
    let ground = Ground::new(&[("a", "1"), ("b", "2")], &[("a", "3"), ("b", "4"), ("d/x", "5")]);
    ground.ask(&["a"], true, false).expect("applied");
    ground.ask(&[], true, false).expect("applied");
    ground.undo().expect("undone");
    ground.assert_untouched();
}

#[test]
fn what_is_too_much_is_said_beforehand() {
    let mut ground = Ground::new(&[("big", "0123456789"), ("s", "1")], &[("s", "2")]);
    ground.bytes = 5;
    let names = |carried: super::Carried| {
        carried.beyond.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names(ground.ask(&[], true, true).expect("possible")), ["big"]);
    assert_eq!(names(ground.apply().expect("applied")), ["big"]);
    let (_, lost) = reversed(&ground.kept()).expect("read").expect("something");
    assert_eq!(lost.len(), 1);
}

#[test]
fn a_crash_of_either_leaves_all_or_nothing() {
    for at in 0.. {
        let ground = Ground::new(&[("a", "1"), ("d/gone", "2")], &[("a", "3"), ("n/new", "4")]);
        let reached = crash(&ground, at);
        ground.recover();
        if ground.now() == ground.before {
            assert!(reversed(&ground.kept()).expect("read").is_none(), "{at}: nothing was done");
            continue;
        }
        assert_eq!(ground.now(), ground.after, "{at}");
        ground.undo().expect("undone");
        ground.assert_untouched();
        if !reached {
            break;
        }
    }
    for at in 0.. {
        let ground = Ground::new(&[("a", "1"), ("d/gone", "2")], &[("a", "3"), ("n/new", "4")]);
        ground.apply().expect("applied");
        let reached = with_fault(at, Fault::Crash, || drop(ground.undo()));
        ground.recover();
        let now = ground.now();
        assert!(now == ground.before || now == ground.after, "{at}");
        ground.undo().expect("undone");
        ground.assert_untouched();
        if !reached {
            break;
        }
    }
}
