//! What an agent may do to be overlooked, or to make the look fail.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{FileType, Timespec, Timestamps};

use super::super::super::ignores::{ALL_RULES, LONGEST_RULE};
use super::*;

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("fifo");
}

#[test]
fn a_change_that_hides_its_size_and_time_is_seen() {
    let ground = Ground::new();
    ground.write("file", "one");
    let before = fs::metadata(ground.at("file")).expect("there").modified().expect("a time");
    let changes = ground.after(|ground| {
        std::thread::sleep(Duration::from_millis(20));
        ground.write("file", "two");
        let since = before.duration_since(UNIX_EPOCH).expect("after the epoch");
        let seconds = i64::try_from(since.as_secs()).expect("fits");
        let time = Timespec { tv_sec: seconds, tv_nsec: since.subsec_nanos().into() };
        let times = Timestamps { last_access: time, last_modification: time };
        let no_follow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, ground.at("file"), &times, no_follow).expect("set");
        let now = fs::metadata(ground.at("file")).expect("there").modified().expect("a time");
        assert_eq!(now, before);
    });
    assert_eq!(changes, list([("file", Modified)]));
}

#[test]
fn links_are_listed_and_never_followed() {
    let ground = Ground::new();
    let (outside, inner) = (Ground::new(), Ground::new());
    outside.write("secret", "");
    ground.write("dir/file", "");
    symlink("dir", ground.at("link")).expect("link");
    symlink("/", ground.at("root")).expect("link");
    let changes = ground.after(|ground| {
        ground.write("dir/file", "changed");
        symlink(outside.folder.path(), ground.at("out")).expect("link");
        fs::remove_file(ground.at("link")).expect("remove");
        symlink(inner.folder.path(), ground.at("link")).expect("link");
        outside.write("secret", "changed");
    });
    assert_eq!(changes, list([("dir/file", Modified), ("link", Modified), ("out", Added)]));
    // A folder that becomes a link: what was in it is gone, whatever the link leads to.
    let changes = ground.after(|ground| {
        fs::rename(ground.at("dir"), outside.at("dir")).expect("move");
        symlink(outside.at("dir"), ground.at("dir")).expect("link");
    });
    assert_eq!(changes, list([("dir", Added), ("dir/file", Deleted)]));
}

#[test]
fn odd_files_are_listed_and_never_opened() {
    let ground = Ground::new();
    fifo(&ground.at(".gitignore"));
    let changes = ground.after(|ground| {
        fifo(&ground.at("pipe"));
        std::os::unix::net::UnixListener::bind(ground.at("socket")).expect("bind");
        fs::create_dir(ground.at("sub")).expect("make");
        symlink("/dev/zero", ground.at("sub/.gitignore")).expect("link");
        fs::create_dir(ground.at("sub2")).expect("make");
        fifo(&ground.at("sub2/.gitignore"));
    });
    let expected = ["pipe", "socket", "sub/.gitignore", "sub2/.gitignore"];
    assert_eq!(changes, list(expected.map(|path| (path, Added))));
}

#[test]
fn a_rule_that_the_run_writes_hides_nothing() {
    let ground = Ground::new();
    ground.write("src/main.rs", "1");
    ground.write("docs/a", "1");
    ground.write(".gitignore", "old\n");
    let changes = ground.after(|ground| {
        ground.write(".gitignore", "*\n");
        ground.write("src/main.rs", "2");
        ground.write("src/evil.rs", "");
        fs::remove_file(ground.at("docs/a")).expect("remove");
        ground.write("old", "ignored from the start");
        for number in 0..500 {
            ground.write(&format!("node_modules/p{number}/index.js"), "");
        }
    });
    assert_eq!(
        changes,
        list([
            (".gitignore", Modified),
            ("docs/a", Deleted),
            ("node_modules/", Added),
            ("src/evil.rs", Added),
            ("src/main.rs", Modified),
        ])
    );
    // Nor does a rule that the run takes away show what was ignored from the start.
    let changes = ground.after(|ground| {
        fs::remove_file(ground.at(".gitignore")).expect("remove");
        ground.write("src/evil.rs", "again");
    });
    assert_eq!(changes, list([(".gitignore", Deleted)]));
}

#[test]
fn rules_that_cost_too_much_hide_nothing() {
    let ground = Ground::new();
    ground.write(".gitignore", &format!("*.log\n{}\n", "*a".repeat(LONGEST_RULE)));
    ground.write("sub/.gitignore", &"*\n!seen\n".repeat(ALL_RULES / 8));
    let changes = ground.after(|ground| {
        ground.write("a.log", "");
        ground.write("sub/b.log", "");
    });
    assert_eq!(changes, list([("a.log", Added), ("sub/b.log", Added)]));
}

#[test]
fn hostile_names_are_shown_on_one_plain_line() {
    let ground = Ground::new();
    let changes = ground.after(|ground| {
        for name in ["a\nb", "tab\tx", "\u{1b}[31mred", "bidi\u{202e}x", "grün", "two  spaces"] {
            fs::write(ground.at(name), "").expect("write");
        }
        fs::write(ground.at(OsStr::from_bytes(b"latin-\xe9")), "").expect("write");
        let long = vec!["x".repeat(200); 4].join("/");
        ground.write(&format!("{long}/y"), "");
    });
    let names: Vec<_> = changes.iter().map(|(path, _)| path.as_str()).collect();
    for expected in ["a\\nb", "tab\\tx", "red", "bidix", "grün", "two  spaces", "latin-\u{fffd}"] {
        assert!(names.contains(&expected), "{expected}: {names:?}");
    }
    assert!(names.iter().all(|name| name.len() < 520 && !name.contains('\n')), "{names:?}");
    assert!(names.iter().any(|name| name.ends_with('…')));
}

#[test]
fn a_bottomless_chain_ends_the_walk_and_not_us() {
    let ground = Ground::new();
    let summary = ground.changes(Limits::default(), |ground| {
        let mut at =
            rustix::fs::open(ground.folder.path(), OFlags::DIRECTORY, Mode::empty()).expect("open");
        // Far beyond the longest path that can be named.
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("make");
            at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).expect("open");
        }
        ground.write("file", "");
    });
    assert!(summary.truncated);
    assert_eq!(pairs(summary), list([("file", Added)]));
}

#[test]
fn a_workspace_that_vanishes_is_no_error() {
    let ground = Ground::new();
    ground.write("a/b", "");
    let summary = ground.changes(Limits::default(), |ground| {
        fs::remove_dir_all(ground.folder.path()).expect("remove");
    });
    assert_eq!(pairs(summary), list([("a/b", Deleted)]));
    let gone = Baseline::take(&ground.workspace, Limits::default());
    assert_eq!(gone.changes(), ChangeSummary { truncated: true, ..ChangeSummary::default() });
}

#[test]
fn a_workspace_that_changes_while_it_is_walked_is_no_error() {
    let ground = Ground::new();
    for number in 0..2000 {
        ground.write(&format!("d{}/f{number}", number % 50), "");
    }
    let baseline = Baseline::take(&ground.workspace, Limits::default());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..50 {
                let _ = fs::remove_dir_all(ground.at(format!("d{number}")));
                let _ = symlink("/", ground.at(format!("d{number}")));
            }
        });
        for _ in 0..5 {
            let changes = pairs(baseline.changes());
            assert!(changes.iter().all(|(path, _)| path.starts_with('d')), "{changes:?}");
        }
    });
}

#[test]
fn folders_that_cannot_be_read_are_told_when_the_run_shut_them() {
    const AS_NOBODY: &str = "SANDBOX_MCP_TEST_AS_NOBODY";
    let name = "workspace::changes::tests::hostile::folders_that_cannot_be_read_are_told_when_the_run_shut_them";
    if rustix::process::geteuid().is_root() && std::env::var_os(AS_NOBODY).is_none() {
        let binary = std::env::current_exe().expect("a binary");
        let mut again = Command::new(binary);
        again.args(["--exact", name]).env(AS_NOBODY, "1").current_dir("/");
        let output = again.uid(65534).gid(65534).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let ground = Ground::new();
    let shut = |path: &str| {
        fs::set_permissions(ground.at(path), Permissions::from_mode(0o000)).expect("chmod");
    };
    let open = |path: &str| {
        fs::set_permissions(ground.at(path), Permissions::from_mode(0o755)).expect("chmod");
    };
    for path in ["always/x", "later/x", "opened/x"] {
        ground.write(path, "");
    }
    shut("always");
    shut("opened");
    std::thread::sleep(Duration::from_millis(50));
    let summary = ground.changes(Limits::default(), |ground| {
        ground.write("new/x", "");
        shut("new");
        shut("later");
        open("opened");
    });
    assert!(summary.truncated);
    let changes = pairs(summary);
    for path in ["always", "new", "later"] {
        open(path);
    }
    assert_eq!(changes, list([("later/", Modified), ("new/", Added)]));
}
