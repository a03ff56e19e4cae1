//! Folders that are swapped for links or moved away and back, all the time, while results are
//! carried over.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};

use super::super::testing::Dice;
use super::ground::Ground;
use super::*;

/// Swaps or moves `d` until it is told to stop; then `d` is in its place again.
fn disturb(root: &Path, by_link: bool, pause: u64, stop: &AtomicBool) -> u64 {
    let (here, there) = (root.join("d"), root.join("d.elsewhere"));
    let mut dice = Dice(0x9e37_79b9 + pause);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) || count % 2 == 1 {
        let flags = if by_link { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
        let (from, to) = if by_link || count % 2 == 0 { (&here, &there) } else { (&there, &here) };
        rustix::fs::renameat_with(CWD, from, CWD, to, flags).expect("moved");
        count += 1;
        let pause = dice.roll(usize::try_from(pause).unwrap_or(1) + 1);
        std::thread::sleep(Duration::from_micros(pause as u64));
    }
    count
}

/// One application under the disturbance; whether it came through.
fn round(number: usize) -> bool {
    let names: Vec<_> = (0..30).map(|number| format!("d/e/f{number}")).collect();
    let mut before = vec![("a", "x"), ("d/old", "old"), ("d/gone", "g"), ("d/e/keep", "k")];
    before.extend([("d/empty/x", "1"), ("sub/keep", "k")]);
    let mut after = vec![("a", "y"), ("d/old", "new"), ("d/e/keep", "k"), ("new/deep", "n")];
    after.extend([("d/made/x", "m"), ("sub/keep", "l")]);
    after.extend(names.iter().map(|name| (name.as_str(), "new")));
    let ground = Ground::new(&before, &after);
    let outside = tempfile::tempdir().expect("temp");
    for name in ["old", "gone", "f1"] {
        fs::write(outside.path().join(name), "canary").expect("written");
    }
    let canary = super::super::testing::read(outside.path());
    let root = ground.root().to_owned();
    let by_link = number % 3 != 2;
    if by_link {
        symlink(outside.path(), root.join("d.elsewhere")).expect("link");
    }
    let stop = AtomicBool::new(false);
    let pause = [50, 500, 4_000, 20_000][number % 4];
    let result = std::thread::scope(|scope| {
        let disturbing = scope.spawn(|| disturb(&root, by_link, pause, &stop));
        std::thread::sleep(Duration::from_micros(200 * (number as u64 % 9)));
        let result = ground.apply();
        stop.store(true, Ordering::Relaxed);
        assert!(disturbing.join().expect("swapped") > 0);
        result
    });
    if by_link {
        fs::remove_file(root.join("d.elsewhere")).expect("removed");
    }
    let (now, told) = (ground.now(), format!("round {number}: {result:?}"));
    match &result {
        Ok(_) => assert_eq!(now, ground.after, "{told}"),
        Err(_) => ground.assert_untouched(),
    }
    assert_eq!(super::super::testing::read(outside.path()), canary, "{told}");
    ground.apply().unwrap_or_else(|error| panic!("{told}, then {error}"));
    assert_eq!(ground.now(), ground.after, "{told}");
    result.is_ok()
}

/// `SANDBOX_MCP_TEST_ROUNDS` asks for more of them.
#[test]
fn all_or_nothing_holds_while_folders_are_swapped() {
    let rounds = std::env::var("SANDBOX_MCP_TEST_ROUNDS").ok().and_then(|text| text.parse().ok());
    let rounds: usize = rounds.unwrap_or(48);
    let through = (0..rounds).filter(|number| round(*number)).count();
    assert!(through > 0 && through < rounds, "{through} of {rounds} came through: no race");
}

/// A crash in the middle of replacing `d/x`.
fn crashed() -> Ground {
    for at in 0.. {
        let ground = Ground::new(&[("d/x", "old"), ("e/y", "1")], &[("d/x", "new"), ("e/y", "2")]);
        super::ground::crash(&ground, at);
        let moved = ground.root().join(staging(&ground.run)).join("old-1").exists();
        if moved && fs::read_to_string(ground.root().join("d/x")).is_ok() {
            return ground;
        }
    }
    unreachable!("it replaces the file at some time")
}

#[test]
fn an_undoing_that_finds_its_folder_gone_says_so_and_keeps_what_it_staged() {
    for link in [false, true] {
        let ground = crashed();
        let root = ground.root().to_owned();
        let outside = tempfile::tempdir().expect("temp");
        fs::rename(root.join("d"), outside.path().join("away")).expect("moved");
        if link {
            fs::write(outside.path().join("x"), "canary").expect("written");
            symlink(outside.path(), root.join("d")).expect("link");
        }
        let recovered = ground.recover();
        let told = recovered.told.join(" ");
        assert!(told.contains("the folder of `d/x` is gone"), "{told}");
        let kept = root.join(format!("{KEPT}{}", ground.run));
        assert!(told.contains(&kept.file_name().expect("a name").to_string_lossy().into_owned()));
        assert_eq!(fs::read_to_string(kept.join("old-1")).expect("kept"), "old");
        assert_eq!(fs::read_to_string(root.join("e/y")).expect("there"), "1");
        if link {
            let canary = fs::read_to_string(outside.path().join("x"));
            assert_eq!(canary.expect("there"), "canary");
        }
        assert!(recovered.pending.is_empty() && ground.recover().told.is_empty());
    }
}

#[test]
fn a_folder_that_comes_back_soon_is_waited_for() {
    let ground = crashed();
    let root = ground.root().to_owned();
    fs::rename(root.join("d"), root.join("away")).expect("moved");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            fs::rename(root.join("away"), root.join("d")).expect("moved back");
        });
        let told = ground.recover().told.join(" ");
        assert!(told.ends_with("it was undone"), "{told}");
    });
    ground.assert_untouched();
}

#[test]
fn a_staging_folder_that_somebody_removed_is_told_once() {
    let ground = crashed();
    fs::remove_dir_all(ground.root().join(staging(&ground.run))).expect("removed");
    let told = ground.recover().told.join(" ");
    assert!(told.contains("is gone, so what had been replaced could not be put back"), "{told}");
    assert!(ground.recover().told.is_empty());
}
