use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{FileType, Timespec, Timestamps};
use tempfile::TempDir;

use super::ChangeKind::{Added, Deleted, Modified};
use super::*;

/// A workspace on a temporary folder, and the changes that something makes in it.
struct Ground {
    folder: TempDir,
    workspace: WorkspacePath,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp");
        let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
        Self { folder, workspace }
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("make");
        fs::write(path, text).expect("write");
    }

    fn changes(&self, limits: Limits, work: impl FnOnce(&Self)) -> ChangeSummary {
        let baseline = Baseline::take(&self.workspace, limits);
        work(self);
        baseline.changes()
    }

    /// The changes under the usual limits, which must suffice.
    fn after(&self, work: impl FnOnce(&Self)) -> Vec<(String, ChangeKind)> {
        let summary = self.changes(Limits::default(), work);
        assert!(!summary.truncated);
        pairs(summary)
    }
}

fn pairs(summary: ChangeSummary) -> Vec<(String, ChangeKind)> {
    summary.files.into_iter().map(|change| (change.path, change.change)).collect()
}

fn list<const N: usize>(expected: [(&str, ChangeKind); N]) -> Vec<(String, ChangeKind)> {
    expected.map(|(path, change)| (path.to_owned(), change)).to_vec()
}

fn fifo(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, FileType::Fifo, Mode::RWXU, 0).expect("fifo");
}

#[test]
fn additions_changes_and_deletions_are_told() {
    let ground = Ground::new();
    for path in ["kept", "edited", "gone", "dir/a", "dir/b/c", "tool"] {
        ground.write(path, "1");
    }
    let changes = ground.after(|ground| {
        ground.write("edited", "2");
        ground.write("new/deep/file", "");
        fs::remove_file(ground.at("gone")).expect("remove");
        fs::remove_dir_all(ground.at("dir")).expect("remove");
        fs::set_permissions(ground.at("tool"), Permissions::from_mode(0o755)).expect("chmod");
        fs::create_dir(ground.at("empty")).expect("make");
    });
    assert_eq!(
        changes,
        list([
            ("dir/a", Deleted),
            ("dir/b/c", Deleted),
            ("edited", Modified),
            ("gone", Deleted),
            ("new/deep/file", Added),
            ("tool", Modified),
        ])
    );
    assert!(ground.after(|_| {}).is_empty());
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
fn ignored_paths_and_the_inside_of_git_are_left_out() {
    let ground = Ground::new();
    ground.write(".gitignore", "target/\n*.log\n!keep.log\n/only-here\n");
    ground.write("sub/.gitignore", "made\n!x.log\n");
    ground.write(".git/info/exclude", "private\n");
    ground.write("target/old", "");
    let changes = ground.after(|ground| {
        for path in ["target/new", "deep/target/x", "a.log", "keep.log", "private", "only-here"] {
            ground.write(path, "");
        }
        for path in ["sub/made", "sub/x.log", "sub/only-here", ".git/HEAD", "nested/.git/HEAD"] {
            ground.write(path, "");
        }
    });
    let expected = ["keep.log", "nested/.git/", "sub/only-here", "sub/x.log"];
    assert_eq!(changes, list(expected.map(|path| (path, Added))));
    let changes = ground.after(|ground| {
        fs::remove_dir_all(ground.at("nested/.git")).expect("remove");
    });
    assert_eq!(changes, list([("nested/.git", Deleted)]));
}

#[test]
fn rules_above_a_workspace_hold_up_to_its_repository() {
    let ground = Ground::new();
    ground.write(".gitignore", "beyond\n");
    ground.write("repo/.git/HEAD", "");
    ground.write("repo/.gitignore", "node_modules\n/web/dist\n");
    ground.write("repo/web/app.js", "");
    let web = ground.at("repo/web");
    let workspace = WorkspacePath::check(Some(&web), &web, &[]).expect("a workspace");
    let baseline = Baseline::take(&workspace, Limits::default());
    for path in ["node_modules/a", "dist/b", "beyond", "other"] {
        ground.write(&format!("repo/web/{path}"), "");
    }
    assert_eq!(pairs(baseline.changes()), list([("beyond", Added), ("other", Added)]));
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
fn ten_thousand_files_are_quick_and_a_long_list_is_cut() {
    let ground = Ground::new();
    for number in 0..10_000 {
        ground.write(&format!("d{}/f{number}", number % 100), "");
    }
    let started = Instant::now();
    let summary = ground.changes(Limits::default(), |ground| {
        ground.write("d7/f7", "changed");
    });
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(pairs(summary), list([("d7/f7", Modified)]));
    let summary = ground.changes(Limits::default(), |ground| {
        fs::remove_dir_all(ground.at("d1")).expect("remove");
        fs::remove_dir_all(ground.at("d2")).expect("remove");
        fs::remove_dir_all(ground.at("d3")).expect("remove");
    });
    assert_eq!(summary.files.len(), LISTED);
    assert!(summary.truncated);
    assert!(summary.files.iter().all(|change| change.change == Deleted));
}

#[test]
fn what_exceeds_the_limits_is_said_and_never_made_up() {
    let ground = Ground::new();
    for number in 0..50 {
        ground.write(&format!("d{number}/deep/file"), "1");
    }
    ground.write("top", "1");
    std::thread::sleep(Duration::from_millis(50));
    let limits = Limits { entries: 60, ..Limits::default() };
    let summary = ground.changes(limits, |ground| {
        ground.write("top", "2");
        ground.write("d0/deep/file", "2");
        fs::remove_dir_all(ground.at("d1")).expect("remove");
        ground.write("d2/deep/new", "");
    });
    assert!(summary.truncated);
    let changes = pairs(summary);
    assert!(changes.contains(&("top".into(), Modified)), "{changes:?}");
    assert!(changes.iter().all(|(path, _)| !path.contains("d4")), "{changes:?}");
    // The second look was cut as well, and what it did not reach is not called deleted.
    assert!(changes.iter().all(|(_, change)| *change != Deleted), "{changes:?}");

    let limits = Limits { time: Duration::ZERO, ..Limits::default() };
    let summary = ground.changes(limits, |ground| ground.write("top", "3"));
    assert_eq!(summary, ChangeSummary { files: Vec::new(), truncated: true });
}

#[test]
fn a_first_look_that_was_cut_calls_old_files_neither_new_nor_changed() {
    let ground = Ground::new();
    for number in 0..50 {
        ground.write(&format!("d{number}/file"), "1");
    }
    std::thread::sleep(Duration::from_millis(50));
    let few = Limits { entries: 60, ..Limits::default() };
    let mut baseline = Baseline::take(&ground.workspace, few);
    baseline.limits = Limits::default();
    for number in 0..50 {
        if number % 10 == 0 {
            ground.write(&format!("d{number}/file"), "2");
        }
    }
    ground.write("made/file", "");
    let summary = baseline.changes();
    assert!(summary.truncated);
    let mut expected: Vec<_> =
        ["d0", "d10", "d20", "d30", "d40"].map(|dir| (format!("{dir}/file"), Modified)).to_vec();
    expected.push(("made/file".into(), Added));
    assert_eq!(pairs(summary), expected);
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
    assert_eq!(gone.changes(), ChangeSummary { files: Vec::new(), truncated: true });
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

/// Root reads everything, so this test runs itself again as nobody.
#[test]
fn folders_that_cannot_be_read_are_told_when_the_run_shut_them() {
    const AS_NOBODY: &str = "SANDBOX_MCP_TEST_AS_NOBODY";
    let name =
        "workspace::changes::tests::folders_that_cannot_be_read_are_told_when_the_run_shut_them";
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

#[test]
fn old_records_can_be_read() {
    let read = |text| serde_json::from_str::<ChangeSummary>(text).expect(text);
    assert_eq!(read("{}"), ChangeSummary::default());
    let record = r#"{"files":[{"path":"a","change":"added"}],"truncated":false,"later":1}"#;
    assert_eq!(pairs(read(record)), list([("a", Added)]));
}
