//! What is carried over looks as if the user had made it.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::XattrFlags;

use super::ground::{Ground, paths_of};

const ACCESS: &str = "system.posix_acl_access";

/// An access list that lets user 33 read and write, as the kernel's attribute has it.
fn list() -> Vec<u8> {
    let entry = |tag: u16, may: u16, id: u32| {
        [&tag.to_le_bytes()[..], &may.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let none = u32::MAX;
    [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 6, 33),
        entry(4, 4, none),
        entry(16, 6, none),
        entry(32, 4, none),
    ]
    .concat()
}

fn read(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let length = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty()).expect("an attribute");
}

#[test]
fn lists_attributes_groups_and_modes_are_those_of_the_place() {
    let before = [("d/kept", "1"), ("d/plain", "1"), ("s/x", "1")];
    let after =
        [("d/kept", "2"), ("d/plain", "2"), ("d/new", "n"), ("d/e/f/deep", "n"), ("s/x", "1")];
    let ground = Ground::new(&before, &[&after[..], &[("s/y", "n"), ("s/t/z", "n")]].concat());
    let root = ground.root().to_owned();
    let at = |path: &str| root.join(path);
    set(&at("d/kept"), ACCESS, &list());
    set(&at("d/kept"), "user.note", b"hello");
    set(&at("d"), "system.posix_acl_default", &list());
    fs::set_permissions(at("s"), fs::Permissions::from_mode(0o2755)).expect("chmod");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(at("s"), None, Some(12)).expect("chown");
        std::os::unix::fs::chown(at("d/plain"), Some(33), Some(12)).expect("chown");
    }
    let mode = |path: &str| at(path).metadata().expect("there").mode() & 0o7777;
    let old = at("d/plain").metadata().expect("there");
    // The list widens what the mode shows.
    let ground = ground.expecting("d/kept", mode("d/kept") & 0o777);
    ground.apply().expect("carried over");
    assert_eq!(read(&at("d/kept"), ACCESS), Some(list()));
    assert_eq!(read(&at("d/kept"), "user.note").as_deref(), Some(&b"hello"[..]));
    assert_eq!(read(&at("d/plain"), ACCESS), None, "it had none");
    let now = at("d/plain").metadata().expect("there");
    assert_eq!((now.uid(), now.gid()), (old.uid(), old.gid()));
    for new in ["d/new", "d/e", "d/e/f", "d/e/f/deep"] {
        let list = read(&at(new), ACCESS).expect(new);
        assert!(list.windows(2).any(|two| two == 33_u16.to_le_bytes()), "{new}: {list:?}");
    }
    assert_eq!(read(&at("d/e/f"), "system.posix_acl_default"), Some(list()));
    let group = at("s").metadata().expect("there").gid();
    for new in ["s/y", "s/t", "s/t/z"] {
        assert_eq!(at(new).metadata().expect("there").gid(), group, "{new}");
    }
    assert_eq!((mode("s/t"), mode("s/y")), (0o2755, 0o644));
}

#[test]
fn what_is_new_has_the_own_mask_unless_its_mode_was_set() {
    let names = ["plain", "tool", "set", "d/in"];
    let files = names.map(|name| (name, "x"));
    let ground = Ground::new(&[], &files)
        .expecting("plain", 0o640)
        .expecting("tool", 0o750)
        .expecting("set", 0o600)
        .expecting("d", 0o750)
        .expecting("d/in", 0o640);
    ground.apply().expect("carried over");
    // What the process makes by itself.
    let own = tempfile::tempdir().expect("temp");
    fs::write(own.path().join("plain"), "").expect("written");
    fs::create_dir(own.path().join("d")).expect("made");
    let mode = |path: std::path::PathBuf| path.metadata().expect("there").mode() & 0o777;
    let ours = |name: &str| mode(own.path().join(name));
    let theirs = |name: &str| mode(ground.root().join(name));
    assert_eq!((theirs("plain"), theirs("d/in")), (ours("plain"), ours("plain")));
    assert_eq!((theirs("d"), theirs("tool"), theirs("set")), (ours("d"), ours("d"), 0o600));
    let again = ground.apply().expect("again");
    assert!(again.changed.is_empty(), "{again:?}");
}

#[test]
fn files_are_as_old_as_in_the_view_and_keep_their_holes() {
    let zeros = "\0".repeat(1 << 20);
    let mut ground = Ground::new(&[], &[("a.o", "made"), ("z.c", "source"), ("holes", &zeros)]);
    ground.written("z.c", 1_700_000_000_000_000_001);
    ground.written("a.o", 1_700_000_000_000_000_002);
    ground.written("holes", i64::MAX);
    ground.apply().expect("carried over");
    let modified = |path: &str| {
        let found = ground.root().join(path).metadata().expect("there");
        found.modified().expect("a time").duration_since(UNIX_EPOCH).expect("after it")
    };
    assert_eq!(modified("z.c"), Duration::from_nanos(1_700_000_000_000_000_001));
    assert!(modified("a.o") > modified("z.c"), "what was made of it is not out of date");
    assert!(modified("holes") <= UNIX_EPOCH.elapsed().expect("after it"), "not from the future");
    let holes = ground.root().join("holes").metadata().expect("there");
    assert_eq!((holes.len(), holes.blocks()), (1 << 20, 0));
}

#[test]
fn what_another_process_writes_to_is_a_conflict() {
    let ground = Ground::new(&[("log", "1"), ("read", "1")], &[("log", "2"), ("read", "2")]);
    let holding = |how: &str, path: &str| {
        let script = format!("exec 5{how}{path}; echo open; read line");
        let mut child = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(ground.root())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("starts");
        let mut told = [0; 5];
        let out = child.stdout.as_mut().expect("piped");
        std::io::Read::read_exact(out, &mut told).expect("it is open");
        child
    };
    let (mut writer, mut reader) = (holding(">>", "log"), holding("<", "read"));
    let conflicts = ground.conflicts();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert_eq!(conflicts[0].0, "log");
    assert!(conflicts[0].1.contains("open for writing"), "{conflicts:?}");
    drop(writer.stdin.take());
    writer.wait().expect("ended");
    ground.apply().expect("carried over");
    drop(reader.stdin.take());
    reader.wait().expect("ended");
    assert_eq!(ground.now(), ground.after);
}

#[test]
fn further_names_of_a_file_are_told() {
    let before = [("a", "1"), ("b", "1"), ("gone", "1")];
    let ground = Ground::new(&before, &[("a", "2"), ("b", "1")]);
    let store = tempfile::tempdir_in(ground.root().parent().expect("above")).expect("temp");
    for name in ["a", "gone"] {
        fs::hard_link(ground.root().join(name), store.path().join(name)).expect("linked");
    }
    let carried = ground.apply().expect("carried over");
    assert_eq!(carried.linked.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a"]);
    assert_eq!(fs::read_to_string(store.path().join("a")).expect("there"), "1");
}

#[test]
fn any_name_can_be_asked_for() {
    let ground = Ground::named(&[b"d/\xff.txt", b"d/\xfe.txt", b"new\nline", b"100%", b"plain"]);
    let asked = |only: &str| ground.ask(&[only], false, true);
    for (only, count) in [
        ("d/%FF.txt", 1),
        ("d", 2),
        ("new\\nline", 1),
        ("new\nline", 1),
        ("100%", 1),
        ("100%25", 1),
    ] {
        let found = paths_of(&asked(only));
        let files = found.iter().filter(|path| *path != "d").count();
        assert_eq!(files, count, "{only}: {found:?}");
    }
    let told = asked("d/\u{fffd}.txt").expect_err("two").to_string();
    assert!(told.contains("name it as `d/%FE.txt`"), "{told}");
    assert!(std::ffi::OsString::from_vec(b"d/\xff.txt".to_vec()).to_str().is_none());
}
