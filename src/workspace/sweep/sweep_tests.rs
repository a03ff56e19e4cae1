use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A workspace on a temporary folder, and a run's record.
pub(super) struct Ground {
    folder: TempDir,
    record: TempDir,
    pub workspace: WorkspacePath,
}

impl Ground {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp");
        let record = tempfile::tempdir().expect("temp");
        let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
        Self { folder, record, workspace }
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn kept(&self, path: impl AsRef<Path>) -> PathBuf {
        self.record.path().join("swept").join(path)
    }

    pub fn write(&self, path: impl AsRef<Path>, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("parent")).expect("make");
        fs::write(path, text).expect("write");
    }

    pub fn sweep(&self, limits: SweepLimits, work: impl FnOnce(&Self)) -> Swept {
        let before = Before::take(&self.workspace, &["deploy/Keys".to_owned()], limits.walk);
        work(self);
        before.sweep(&self.kept(""), limits)
    }

    /// A sweep under the usual limits, which must suffice.
    pub fn after(&self, work: impl FnOnce(&Self)) -> Swept {
        let swept = self.sweep(SweepLimits::default(), work);
        assert!(swept.complete && swept.unlisted == 0, "{swept:?}");
        assert!(swept.moved.iter().all(|item| !item.still_there));
        swept
    }

    /// Real git in the workspace, without anybody's own settings.
    pub fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.at(folder))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .args(["-c", "protocol.file.allow=always", "-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{folder} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("utf-8")
    }
}

pub(super) fn paths(swept: &Swept) -> Vec<&str> {
    let mut paths: Vec<_> = swept.moved.iter().map(|item| item.path.as_str()).collect();
    paths.sort_unstable();
    paths
}

#[path = "sweep_hostile_tests.rs"]
mod hostile;

#[test]
fn what_was_there_stays_and_ordinary_work_is_not_touched() {
    let ground = Ground::new();
    ground.write(".vscode/tasks.json", "{}");
    ground.write("a/.envrc", "x");
    ground.write(".gitignore", "ignored\n");
    ground.write("ignored/.mcp.json", "x");
    ground.git("", &["init", "-q"]);
    ground.git("", &["config", "core.fsmonitor", "the user's own"]);
    ground.write(".git/hooks/pre-commit", "the user's own");
    let swept = ground.after(|ground| {
        ground.write("src/main.rs", "x");
        ground.write("workflows/x", "x");
        ground.write(".github/CODEOWNERS", "x");
        ground.write(".gitattributes", "* filter=x");
        ground.write(".gitmodules", "[submodule \"x\"]\n\tupdate = !x\n");
        ground.write("config", "x");
        ground.write("hooks/x", "x");
        ground.git("", &["add", "-A"]);
        ground.git(
            "",
            &["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "commit", "-qm", "x"],
        );
    });
    assert_eq!(swept, Swept { complete: true, ..Swept::default() });
    assert!(!ground.kept("").exists());
    assert!(fs::read_to_string(ground.at(".git/config")).expect("there").contains("fsmonitor"));
}

#[test]
fn trusted_places_are_swept_at_any_depth_in_any_spelling() {
    let ground = Ground::new();
    ground.write(".gitignore", "ignored\n");
    let places = [
        ".Envrc",
        "a/.ENVRC",
        "a/b/.vs\u{200d}code/tasks.json",
        "a/.github/Workflows/ci.yml",
        "ignored/.claude/settings.json",
        "node_modules/p/.husky/pre-commit",
        ".mcp.json",
        "x/.cursor/mcp.json",
        "x/.idea /workspace.xml",
        "x/.sandbox-mcp.toml",
        "deploy/keys/id",
    ];
    let swept = ground.after(|ground| {
        for place in places {
            ground.write(place, place);
        }
        ground.write("deploy/other", "x");
    });
    assert_eq!(
        paths(&swept),
        [
            ".Envrc",
            ".mcp.json",
            "a/.ENVRC",
            "a/.github/Workflows/",
            // Told as it is seen.
            "a/b/.vscode/",
            "deploy/keys/",
            "ignored/.claude/",
            "node_modules/p/.husky/",
            "x/.cursor/",
            "x/.idea /",
            "x/.sandbox-mcp.toml",
        ]
    );
    for place in places {
        assert!(!ground.at(place).exists(), "{place}");
    }
    assert!(ground.at("deploy/other").exists() && ground.at("a/.github").is_dir());
    // Kept, but as nothing that anybody would execute or trust.
    let at = ground.kept("node_modules/p/.husky/pre-commit.swept");
    assert_eq!(fs::read_to_string(&at).expect("kept"), "node_modules/p/.husky/pre-commit");
    assert_eq!(at.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    let vscode = swept.moved.iter().find(|item| item.path.starts_with("a/b/.vs")).expect("told");
    assert_eq!(vscode.kept_as.as_deref(), Some("a/b/.vs_code"));
    assert!(ground.kept("a/b/.vs_code/tasks.json.swept").is_file());
}

#[test]
fn changes_in_places_that_were_there_are_swept_one_by_one() {
    let ground = Ground::new();
    for file in ["kept", "changed", "replaced", "gone", "sub/kept", "sub/changed"] {
        ground.write(Path::new("a/.vscode").join(file), "old");
    }
    let swept = ground.after(|ground| {
        std::thread::sleep(Duration::from_millis(30));
        fs::write(ground.at("a/.vscode/changed"), "new").expect("write");
        ground.write("a/.vscode/new", "new");
        fs::rename(ground.at("a/.vscode/new"), ground.at("a/.vscode/replaced")).expect("rename");
        fs::remove_file(ground.at("a/.vscode/gone")).expect("remove");
        fs::write(ground.at("a/.vscode/sub/changed"), "new").expect("write");
        ground.write("a/.vscode/added/x", "new");
    });
    let expected =
        ["a/.vscode/added/", "a/.vscode/changed", "a/.vscode/replaced", "a/.vscode/sub/changed"];
    assert_eq!(paths(&swept), expected);
    for item in &swept.moved {
        let known = item.path != "a/.vscode/added/";
        assert_eq!(item.note.is_some(), known, "{item:?}");
    }
    assert!(ground.at("a/.vscode/kept").exists() && ground.at("a/.vscode/sub/kept").exists());
}

#[test]
fn repositories_that_a_run_makes_are_unremarkable_and_work() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        fs::create_dir(ground.at("one")).expect("make");
        ground.git("one", &["init", "-q", "-b", "main"]);
        ground.git("one", &["config", "user.name", "Ann \"A\" #1"]);
        ground.git("one", &["commit", "-q", "--allow-empty", "-m", "x"]);
        ground.git("", &["clone", "-q", "one", "two"]);
        ground.git("", &["clone", "-q", "--bare", "one", "three.git"]);
        ground.git("", &["init", "-q", "--object-format=sha256", "four"]);
        ground.git("two", &["remote", "add", "other", "https://host.invalid/a.git"]);
        ground.git("", &["init", "-q"]);
    });
    assert_eq!(swept, Swept { complete: true, ..Swept::default() });
    assert_eq!(ground.git("two", &["status", "--porcelain"]), "");
    ground.git("two", &["fetch", "-q", "origin"]);
    ground.git("three.git", &["log", "-1"]);
    ground.git("four", &["status"]);
    assert_eq!(ground.git("one", &["config", "--local", "user.name"]), "Ann \"A\" #1\n");
    assert_eq!(ground.git("two", &["config", "branch.main.merge"]), "refs/heads/main\n");
    assert_eq!(ground.git("two", &["remote", "get-url", "other"]), "https://host.invalid/a.git\n");
    assert!(ground.at("one/.git/hooks/pre-commit.sample").exists());
}

#[test]
fn submodules_and_worktrees_that_a_run_makes_stay_as_far_as_they_lead_inside() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        ground.git("", &["init", "-q", "-b", "main", "lib"]);
        ground.git("lib", &["commit", "-q", "--allow-empty", "-m", "x"]);
        ground.git("", &["init", "-q", "-b", "main", "app"]);
        ground.git("app", &["submodule", "--quiet", "add", "../lib", "lib"]);
        ground.git("app", &["commit", "-qm", "x"]);
        ground.git("app", &["worktree", "add", "-q", "../tree"]);
    });
    // Git itself names the worktree of a submodule and the full path of a linked worktree, which
    // is another one outside of the sandbox.
    assert_eq!(paths(&swept), ["app/.git/modules/lib/config", "tree/.git"]);
    assert_eq!(swept.moved[0].note.is_some(), swept.moved[0].path.ends_with("config"));
    assert_eq!(ground.git("app/lib", &["status", "--porcelain"]), "");
    assert_eq!(ground.git("app", &["status", "--porcelain"]), "");
    assert!(ground.at("app/.git/worktrees/tree/commondir").exists());
    fs::write(ground.at("tree/.git"), "gitdir: ../app/.git/worktrees/tree\n").expect("write");
    let swept = Ground::after(&ground, |_| {});
    assert!(swept.moved.is_empty());
    ground.git("tree", &["status"]);
}

#[test]
fn a_relative_link_to_a_worktree_stays() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        ground.git("", &["init", "-q", "-b", "main", "app"]);
        ground.git("app", &["commit", "-q", "--allow-empty", "-m", "x"]);
        ground.git("app", &["worktree", "add", "-q", "../tree"]);
        fs::write(ground.at("tree/.git"), "gitdir: ../app/.git/worktrees/tree\n").expect("write");
    });
    assert!(swept.moved.is_empty(), "{swept:?}");
    ground.git("tree", &["status"]);
}

#[test]
fn hooks_of_a_run_are_swept_and_samples_are_not() {
    let ground = Ground::new();
    ground.git("", &["init", "-q"]);
    ground.git("", &["init", "-q", "--bare", "b"]);
    let swept = ground.after(|ground| {
        ground.write(".git/hooks/pre-commit", "x");
        ground.write(".git/hooks/new.sample", "x");
        ground.write(".git/hooks/lib/x", "x");
        symlink("/bin/sh", ground.at(".git/hooks/post-merge.sample")).expect("link");
        ground.write("b/hooks/PRE-push", "x");
    });
    assert_eq!(
        paths(&swept),
        [
            ".git/hooks/lib/",
            ".git/hooks/post-merge.sample",
            ".git/hooks/pre-commit",
            "b/hooks/PRE-push"
        ]
    );
    assert!(ground.at(".git/hooks/new.sample").exists());
    assert!(ground.at(".git/hooks/pre-commit.sample").exists());
    let text = fs::read_to_string(ground.kept(".git/hooks/post-merge.sample.swept")).expect("kept");
    assert_eq!(text, "a symbolic link to /bin/sh\n");
}

#[test]
fn odd_things_are_told_and_left() {
    let ground = Ground::new();
    let setuid = |path: &str, mode: u32| {
        ground.write(path, "");
        fs::set_permissions(ground.at(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    setuid("old", 0o4755);
    std::thread::sleep(Duration::from_millis(50));
    let swept = ground.after(|ground| {
        setuid("new", 0o4755);
        setuid("d/group", 0o2755);
        let fifo = ground.at("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("fifo");
        std::os::unix::net::UnixListener::bind(ground.at("socket")).expect("bind");
        fs::create_dir(ground.at("setgid")).expect("make");
        let shared = fs::Permissions::from_mode(0o2755);
        fs::set_permissions(ground.at("setgid"), shared).expect("chmod");
    });
    let mut odd: Vec<_> =
        swept.odd.iter().map(|odd| (odd.path.as_str(), odd.what.as_str())).collect();
    odd.sort_unstable();
    assert_eq!(
        odd,
        [("d/group", "setgid"), ("new", "setuid"), ("pipe", "fifo"), ("socket", "socket"),]
    );
    assert!(swept.moved.is_empty() && ground.at("pipe").exists());
}

#[test]
fn nothing_to_look_at_is_told_and_the_report_can_be_stored() {
    let ground = Ground::new();
    fs::remove_dir(ground.folder.path()).expect("remove");
    let swept = ground.sweep(SweepLimits::default(), |_| {});
    assert_eq!(swept, Swept::default());
    assert!(!swept.complete);
    let json = serde_json::to_string(&swept).expect("json");
    assert_eq!(serde_json::from_str::<Swept>(&json).expect("own form"), swept);
    assert_eq!(serde_json::from_str::<Swept>("{}").expect("of an older record"), swept);
}

/// `git push -u` on the host, in the middle of a run, writes to the settings.
#[test]
fn what_the_user_had_set_outlives_a_change_of_the_file() {
    let ground = Ground::new();
    ground.git("", &["init", "-q", "."]);
    ground.git("", &["config", "credential.helper", "mine"]);
    fs::write(
        ground.at(".git/config"),
        fs::read_to_string(ground.at(".git/config")).expect("read") + "# why\n",
    )
    .expect("write");
    let swept = ground.after(|ground| {
        ground.git("", &["config", "branch.main.remote", "origin"]);
        ground.git("", &["config", "core.fsmonitor", "touch x"]);
    });
    assert_eq!(paths(&swept), [".git/config"]);
    let note = swept.moved[0].note.as_deref().expect("a note");
    assert_eq!(note, "dropped: core.fsmonitor; it was there before and was changed");
    assert_eq!(ground.git("", &["config", "credential.helper"]).trim(), "mine");
    assert_eq!(ground.git("", &["config", "branch.main.remote"]).trim(), "origin");
    let swept = ground.after(|ground| {
        ground.git("", &["config", "branch.main.merge", "refs/heads/main"]);
    });
    let note = swept.moved[0].note.as_deref().expect("a note");
    assert!(note.starts_with("written anew, nothing dropped"), "{note}");
    assert!(ground.kept(".git/config.swept").exists(), "its comments are in the record");
}

#[test]
fn what_git_would_go_on_with_goes_unless_it_was_there_before() {
    let ground = Ground::new();
    let stop = |repository: &str, todo: &str| {
        let editor = format!("sequence.editor=printf '{todo}' >");
        ground.git(repository, &["-c", &editor, "rebase", "-qi", "HEAD~1"]);
    };
    for repository in ["mine", "changed", "rebased", "merged", "searched"] {
        ground.git("", &["init", "-q", "-b", "main", repository]);
        for message in ["one", "two"] {
            ground.git(repository, &["commit", "-q", "--allow-empty", "-m", message]);
        }
        ground.git(repository, &["branch", "other", "HEAD~1"]);
    }
    stop("mine", "break\n");
    stop("changed", "break\n");
    let swept = ground.after(|ground| {
        ground.write("changed/.git/rebase-merge/git-rebase-todo", "exec touch ../witness\n");
        stop("rebased", "break\\nexec touch ../witness\\n");
        ground.git("merged", &["switch", "-q", "other"]);
        ground.git("merged", &["commit", "-q", "--allow-empty", "-m", "three"]);
        ground.git("merged", &["merge", "-q", "--no-commit", "--no-ff", "main"]);
        ground.git("searched", &["bisect", "start"]);
        // No state of git's: nothing there is a repository.
        ground.write("notes/rebase-merge/git-rebase-todo", "exec x\n");
    });
    let mut found = paths(&swept);
    found.retain(|path| !path.contains("/.git/BISECT_"));
    assert_eq!(
        found,
        [
            "changed/.git/rebase-merge/git-rebase-todo",
            "merged/.git/MERGE_HEAD",
            "merged/.git/MERGE_MODE",
            "rebased/.git/rebase-merge/",
        ]
    );
    assert!(swept.moved.iter().all(|item| item.why == "git on the host would go on with it"));
    let todo = ground.kept("rebased/.git/rebase-merge/git-rebase-todo.swept");
    assert!(fs::read_to_string(todo).expect("kept").contains("exec touch"));
    ground.git("mine", &["rebase", "--continue"]);
    for repository in ["rebased", "merged", "searched"] {
        let told = ground.git(repository, &["status"]);
        assert!(!told.contains("rebas") && !told.contains("merg") && !told.contains("bisect"));
    }
}
