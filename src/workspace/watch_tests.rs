use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use super::*;
use crate::workspace::WorkspacePath;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

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

    fn at(&self, path: impl AsRef<Path>) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    fn fill(&self, path: &str, bytes: usize) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("make");
        let mut file = File::create(path).expect("make");
        file.write_all(&vec![1; bytes]).expect("write");
        if bytes > 0 {
            // Some file systems tell what is allocated only then.
            file.sync_all().expect("sync");
        }
    }

    fn watch(&self, bytes: u64, files: u64) -> Watch {
        Watch::start(self.workspace.path(), Bounds { bytes, files }).expect("starts")
    }
}

/// A look that is certainly due.
fn look(watch: &mut Watch) -> Option<Exceeded> {
    watch.last.took = Duration::ZERO;
    watch.look()
}

#[test]
fn growth_counts_against_the_start_and_everywhere() {
    let ground = Ground::new();
    ground.fill("old", 3 << 20);
    fs::write(ground.at(".gitignore"), "ignored\n").expect("write");
    let mut watch = ground.watch(MIB, 100);
    assert_eq!(look(&mut watch), None);
    ground.fill("ignored/deep/a", 600 << 10);
    assert_eq!(look(&mut watch), None);
    ground.fill(".git/objects/b", 600 << 10);
    let found = look(&mut watch).expect("too much");
    assert_eq!((found.what, found.allowed), (What::Bytes, MIB));
    assert!(found.grown > MIB);
    assert_eq!(found.to_string(), "the workspace grew by 1 MiB or more, allowed are 1 MiB");
    fs::remove_file(ground.at("old")).expect("remove");
    assert_eq!(look(&mut watch), None, "what was removed makes room");
}

#[test]
fn files_of_nothing_count_as_files() {
    let ground = Ground::new();
    for number in 0..50 {
        ground.fill(&format!("old/{number}"), 0);
    }
    let mut watch = ground.watch(GIB, 100);
    for number in 0..99 {
        ground.fill(&format!("new/{number}"), 0);
    }
    assert_eq!(look(&mut watch), None);
    ground.fill("new/more", 0);
    let found = look(&mut watch).expect("too many");
    assert_eq!((found.what, found.grown, found.allowed), (What::Files, 101, 100));
    // A thousand times as many are not counted to the end.
    for number in 0..3000 {
        ground.fill(&format!("new/x{number}"), 0);
    }
    assert_eq!(look(&mut watch), Some(found));
}

#[test]
fn holes_cost_nothing_and_further_names_of_a_file_no_bytes() {
    let ground = Ground::new();
    ground.fill("file", 900 << 10);
    let mut watch = ground.watch(MIB, 100);
    File::create(ground.at("huge")).expect("make").set_len(8 << 40).expect("sparse");
    for number in 0..50 {
        fs::hard_link(ground.at("file"), ground.at(format!("link{number}"))).expect("link");
    }
    assert_eq!(look(&mut watch), None);
    for number in 50..100 {
        fs::hard_link(ground.at("file"), ground.at(format!("link{number}"))).expect("link");
    }
    assert_eq!(look(&mut watch).expect("too many").what, What::Files);
}

#[test]
fn links_lead_nowhere_and_odd_files_block_nobody() {
    let ground = Ground::new();
    let mut watch = ground.watch(MIB, 100);
    std::os::unix::fs::symlink("/", ground.at("link")).expect("link");
    let fifo = ground.at("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("fifo");
    assert_eq!(look(&mut watch), None);
}

#[test]
fn what_is_too_deep_to_be_counted_is_too_much() {
    let ground = Ground::new();
    let chain = || {
        let mut at =
            rustix::fs::open(ground.folder.path(), OFlags::DIRECTORY, Mode::empty()).expect("open");
        for _ in 0..BOTTOM + 2 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("make");
            at = rustix::fs::openat(&at, "d", OFlags::DIRECTORY, Mode::empty()).expect("open");
        }
    };
    let mut watch = ground.watch(GIB, 10_000);
    chain();
    assert_eq!(look(&mut watch).expect("too deep").what, What::Depth);
    // What was there is not held against the run, and what it may hide is judged by the disk.
    let mut watch = ground.watch(GIB, 10_000);
    watch.space = None;
    assert_eq!(look(&mut watch), None);
    assert!(watch.last.blind);
}

#[test]
fn space_that_is_lost_unseen_counts_when_there_is_little_left() {
    let ground = Ground::new();
    let mut watch = ground.watch(GIB, 10);
    let space = |free| Some(Space { free, all: 100 * GIB, free_files: 1000 });
    watch.space = space(50 * GIB);
    watch.last.grown = 10 * MIB;
    assert_eq!(watch.unseen(space(10 * GIB)), None, "others may have used it");
    let found = watch.unseen(space(100 * MIB)).expect("almost full");
    assert_eq!((found.what, found.allowed), (What::FreeSpace, GIB));
    // Of a small disk, little is not as much.
    let small = |free| Some(Space { free, all: 4 * GIB, free_files: 1000 });
    watch.space = small(3 * GIB);
    assert_eq!(watch.unseen(small(300 * MIB)), None);
    assert!(watch.unseen(small(200 * MIB)).is_some());
    // It was almost full before, and what is gone was seen.
    watch.space = space(400 * MIB);
    assert_eq!(watch.unseen(space(100 * MIB)), None);
    // Where there is something that cannot be seen, there need not be little left.
    watch.space = space(50 * GIB);
    watch.last.blind = true;
    assert_eq!(watch.unseen(space(49 * GIB)), None);
    assert!(watch.unseen(space(48 * GIB)).is_some());
    let files = Some(Space { free: 50 * GIB, all: 100 * GIB, free_files: 989 });
    assert_eq!(watch.unseen(files).expect("too many").what, What::Files);
}

#[test]
fn a_costly_look_is_not_repeated_at_once_unless_the_disk_says_so() {
    let ground = Ground::new();
    let mut watch = ground.watch(8 * MIB, 10);
    let space = |free| Some(Space { free, all: 100 * GIB, free_files: 1000 });
    watch.last = Last {
        ended: Instant::now(),
        took: Duration::from_secs(60),
        free: Some(GIB),
        ..watch.last
    };
    assert!(!watch.is_due(space(0)), "it has hardly ended");
    let ago = |seconds| Instant::now().checked_sub(Duration::from_secs(seconds)).expect("later");
    watch.last.took = Duration::from_millis(100);
    watch.last.ended = ago(0);
    assert!(!watch.is_due(space(GIB)));
    watch.last.took = Duration::from_millis(1);
    watch.last.ended = ago(1);
    assert!(watch.is_due(space(GIB)));
    watch.last.took = Duration::from_secs(10);
    watch.last.ended = ago(11);
    assert!(!watch.is_due(space(GIB - MIB)));
    assert!(watch.is_due(space(GIB - 2 * MIB)));
    for number in 0..20 {
        ground.fill(&number.to_string(), 0);
    }
    watch.space = None;
    watch.last.free = None;
    assert_eq!(watch.look(), None, "not due");
    assert_eq!(look(&mut watch).expect("due").what, What::Files);
}

#[test]
fn a_start_that_was_too_much_leaves_the_disk_to_judge() {
    let ground = Ground::new();
    let mut watch = ground.watch(0, 0);
    watch.start.whole = false;
    watch.space = space(watch.root.as_fd());
    watch.space = watch.space.map(|space| Space { free: u64::MAX, ..space });
    assert_eq!(look(&mut watch).expect("lost").what, What::FreeSpace);
}

#[test]
fn what_a_run_shuts_is_judged_by_the_disk() {
    const AS_NOBODY: &str = "SANDBOX_MCP_TEST_AS_NOBODY";
    let name = "workspace::watch::tests::what_a_run_shuts_is_judged_by_the_disk";
    if rustix::process::geteuid().is_root() && std::env::var_os(AS_NOBODY).is_none() {
        let mut again = std::process::Command::new(std::env::current_exe().expect("a binary"));
        again.args(["--exact", name]).env(AS_NOBODY, "1").current_dir("/");
        let output = again.uid(65534).gid(65534).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let ground = Ground::new();
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(ground.at(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    ground.fill("always/x", 0);
    mode("always", 0o000);
    let mut watch = ground.watch(MIB, 100);
    watch.space = None;
    assert_eq!(look(&mut watch), None);
    assert!(!watch.last.blind);
    for shut in [0o300, 0o400] {
        ground.fill("new/x", 0);
        mode("new", shut);
        assert_eq!(look(&mut watch), None);
        assert!(watch.last.blind, "{shut:o}");
        mode("new", 0o700);
    }
    mode("always", 0o700);
}

#[test]
fn a_workspace_that_is_gone_cannot_be_watched_and_one_that_goes_does_not_grow() {
    let ground = Ground::new();
    let mut watch = ground.watch(MIB, 10);
    fs::remove_dir(ground.folder.path()).expect("remove");
    assert_eq!(look(&mut watch), None);
    let refused = Watch::start(ground.workspace.path(), Bounds { bytes: 1, files: 1 });
    assert!(matches!(refused, Err(GuardError::Io { what: "open the workspace", .. })));
}
