use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

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

#[path = "changes_hostile_tests.rs"]
mod hostile;

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
fn ten_thousand_files_are_quick_and_a_long_list_is_cut() {
    let ground = Ground::new();
    for number in 0..10_000 {
        ground.write(&format!("d{}/f{number}", number % 100), "");
    }
    let started = Instant::now();
    let summary = ground.changes(Limits::default(), |ground| {
        ground.write("d7/f7", "changed");
    });
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
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
    assert_eq!(summary, ChangeSummary { truncated: true, ..ChangeSummary::default() });
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

/// Root reads everything, so this test runs itself again as nobody.

#[test]
fn old_records_can_be_read() {
    let read = |text| serde_json::from_str::<ChangeSummary>(text).expect(text);
    assert_eq!(read("{}"), ChangeSummary::default());
    let record = r#"{"files":[{"path":"a","change":"added"}],"truncated":false,"later":1}"#;
    assert_eq!(pairs(read(record)), list([("a", Added)]));
}
