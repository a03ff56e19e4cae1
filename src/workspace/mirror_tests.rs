use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::SystemTime;

use super::*;

/// A copy as it was sent, and the other side's words.
struct Both {
    home: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let both = Self { home };
        fs::create_dir_all(both.path("copy/sub")).expect("folders");
        fs::write(both.path("copy/same"), "same").expect("a file");
        fs::write(both.path("copy/sub/old"), "old").expect("a file");
        for name in ["copy/same", "copy/sub/old"] {
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            let file = fs::File::options().write(true).open(both.path(name)).expect("a file");
            file.set_modified(written).expect("a time");
        }
        fs::write(both.path("outside"), "outside").expect("a file");
        both
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Has the copy take what the other side says: a list and an archive. Returns the names that it
    /// asked for.
    fn take(&self, list: &[&str], archive: Vec<u8>) -> io::Result<Vec<String>> {
        let user = rustix::process::geteuid().as_raw();
        let coming = Coming {
            roots: [("0".to_owned(), self.path("copy"))].into(),
            since: 1_000_000_000_000,
            owner: (user, rustix::process::getegid().as_raw()),
            most: 1000,
        };
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let list: Vec<u8> = list.iter().flat_map(|one| [one.as_bytes(), b"\0"].concat()).collect();
        let other = thread::spawn(move || {
            let mut theirs = theirs;
            // Fails where our side has given up.
            let _ = theirs.write_all(&list).and_then(|()| theirs.write_all(&archive));
            let _ = theirs.shutdown(Shutdown::Write);
            let mut asked = Vec::new();
            let _ = theirs.read_to_end(&mut asked);
            asked
        });
        let taken = take(&coming, ours);
        let asked = other.join().expect("the other side");
        let asked = asked.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let asked = asked.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        taken.map(|()| asked)
    }
}

const SAME: [&str; 4] = [
    "d 755 1.5 0 1 0",
    "f 644 1.5 4 1.0 0/same",
    "d 755 1.5 0 1 0/sub",
    "f 644 1.5 3 1.0 0/sub/old",
];

fn list<'a>(all: &[&'a str]) -> Vec<&'a str> {
    [all, &[""]].concat()
}

fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o777);
        header.set_mtime(7);
        // Set as bytes, because the crate refuses to write what a hostile side would.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == EntryType::Regular {
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).expect("an entry");
        } else {
            header.set_size(0);
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            header.set_cksum();
            builder.append(&header, io::empty()).expect("an entry");
        }
    }
    builder.into_inner().expect("an archive")
}

#[test]
fn what_is_the_same_is_not_asked_for_and_stays_as_it_is() {
    let both = Both::new();
    let before = both.path("copy/same").metadata().expect("there");
    let asked = both.take(&list(&SAME), archive(&[])).expect("taken");
    assert!(asked.is_empty(), "{asked:?}");
    let after = both.path("copy/same").metadata().expect("there");
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
}

#[test]
fn a_clock_that_was_set_back_hides_no_change() {
    for changed in ["f 644 1.5 5 1.0 0/same", "f 644 1.5 4 1.000000001 0/same"] {
        let both = Both::new();
        let all = [SAME[0], changed, SAME[2], SAME[3]];
        let sent = archive(&[("0/same", EntryType::Regular, "other")]);
        assert_eq!(both.take(&list(&all), sent).expect("taken"), ["0/same"]);
        assert_eq!(fs::read_to_string(both.path("copy/same")).expect("there"), "other");
    }
}

#[test]
fn a_folder_that_was_shut_once_can_be_changed_and_removed() {
    let both = Both::new();
    fs::create_dir_all(both.path("copy/shut/in")).expect("folders");
    for name in ["copy/shut/in", "copy/shut", "copy/sub"] {
        fs::set_permissions(both.path(name), fs::Permissions::from_mode(0o0)).expect("a mode");
    }
    let all = [SAME[0], SAME[1], SAME[2], "f 644 1.5 3 1.0 0/sub/new"];
    let sent = archive(&[("0/sub/new", EntryType::Regular, "new")]);
    both.take(&list(&all), sent).expect("taken");
    assert!(!both.path("copy/shut").exists() && !both.path("copy/sub/old").exists());
    assert_eq!(fs::read_to_string(both.path("copy/sub/new")).expect("there"), "new");
}

#[test]
fn an_early_failure_ends_both_sides() {
    let both = Both::new();
    let many: Vec<String> = (0..200_000).map(|n| format!("f 644 1.5 1 1.0 0/{n:0>60}")).collect();
    let all: Vec<&str> = [SAME[0]].into_iter().chain(many.iter().map(String::as_str)).collect();
    // The first file is already too large, and nobody reads the names.
    let large = "x".repeat(4 << 20);
    let sent = archive(&[(&format!("0/{:0>60}", 0), EntryType::Regular, &large)]);
    let error = both.take(&list(&all), sent).expect_err("too much").to_string();
    assert!(error.contains("limits.disk"), "{error}");
}

#[test]
fn changes_of_every_kind_are_brought_over() {
    let both = Both::new();
    let all = [
        "d 755 1.5 0 1 0",
        "f 600 1000.000000001 0 1 0/same",
        "d 700 1.5 0 1 0/new",
        "f 755 1.5 0 1 0/new/tool",
        "l 777 1.5 0 1 0/sub",
    ];
    let sent = archive(&[
        ("0/same", EntryType::Regular, "changed"),
        ("0/new/tool", EntryType::Regular, "tool"),
        ("0/sub", EntryType::Symlink, "../outside"),
    ]);
    let mut asked = both.take(&list(&all), sent).expect("taken");
    asked.sort();
    assert_eq!(asked, ["0/new/tool", "0/same", "0/sub"]);
    assert_eq!(fs::read_to_string(both.path("copy/same")).expect("there"), "changed");
    let mode =
        |name: &str| both.path(name).metadata().expect("there").permissions().mode() & 0o7777;
    assert_eq!((mode("copy/same"), mode("copy/new"), mode("copy/new/tool")), (0o600, 0o700, 0o755));
    assert_eq!(both.path("copy/same").metadata().expect("there").mtime(), 7);
    assert_eq!(fs::read_link(both.path("copy/sub")).expect("a link"), Path::new("../outside"));
}

#[test]
fn a_link_that_came_before_is_not_followed() {
    let both = Both::new();
    fs::remove_dir_all(both.path("copy/sub")).expect("gone");
    symlink(both.path(""), both.path("copy/sub")).expect("a link");
    let all = [
        "d 755 1.5 0 1 0",
        "f 644 1.5 4 1.0 0/same",
        "d 755 1.5 0 1 0/sub",
        "f 644 1.5 0 1 0/sub/outside",
    ];
    let sent = archive(&[("0/sub/outside", EntryType::Regular, "inside")]);
    both.take(&list(&all), sent).expect("taken");
    assert_eq!(fs::read_to_string(both.path("outside")).expect("there"), "outside");
    assert_eq!(fs::read_to_string(both.path("copy/sub/outside")).expect("there"), "inside");
}

#[test]
fn a_hostile_side_writes_nothing_outside() {
    let wanted = [&SAME[..], &["f 644 1.5 0 1 0/x"]].concat();
    let hostile: [(&[&str], Vec<u8>, &str); 11] = [
        (&["d 755 1.5 0 1 0", "f 644 1.5 0 1 0/../outside", ""], Vec::new(), "no sense"),
        (&["d 755 1.5 0 1 0", "f 644 1.5 0 1 0//outside/..", ""], Vec::new(), "no sense"),
        (&["d 755 1.5 0 1 1", ""], Vec::new(), "another folder"),
        (&["d 755 1.5 0 1 0", "f 644 1.5 0 1 /etc/x", ""], Vec::new(), "another folder"),
        (&["f 644 1.5 4 1.0 0/same", ""], Vec::new(), "missing in the list"),
        (&SAME, Vec::new(), "ends early"),
        (&["nonsense", ""], Vec::new(), "no sense"),
        (&list(&SAME), archive(&[("0/same", EntryType::Regular, "x")]), "not asked for"),
        (&list(&wanted), archive(&[("0/../../outside", EntryType::Regular, "x")]), "not asked for"),
        (&list(&wanted), archive(&[("0/x", EntryType::Symlink, "/etc/passwd")]), "another kind"),
        (&list(&wanted), archive(&[]), "does not come"),
    ];
    for (list, archive, why) in hostile {
        let both = Both::new();
        let error = both.take(list, archive).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(fs::read_to_string(both.path("outside")).expect("there"), "outside");
    }
    let both = Both::new();
    let large = "x".repeat(2000);
    let sent = archive(&[("0/x", EntryType::Regular, &large)]);
    let error = both.take(&list(&wanted), sent).expect_err("too much").to_string();
    assert!(error.contains("limits.disk"), "{error}");
}
