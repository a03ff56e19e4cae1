use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::super::protected;
use super::*;

struct Ground {
    folder: TempDir,
    private: TempDir,
    workspace: WorkspacePath,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temp");
        let private = tempfile::tempdir().expect("temp");
        let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
        Self { folder, private, workspace }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn journal(&self) -> PathBuf {
        self.private.path().join("placeholders")
    }

    fn locks(&self) -> PathBuf {
        self.private.path().join("locks")
    }

    fn lock(&self) -> WriterLock {
        WriterLock::try_lock(&self.locks(), &self.workspace).expect("no trouble").expect("free")
    }

    fn make(&self, extra: &[&str]) -> Placeholders {
        let extra: Vec<_> = extra.iter().map(ToString::to_string).collect();
        Placeholders::make(&self.workspace, &extra, &self.journal(), &self.lock()).expect("made")
    }

    fn reap(&self) -> Reaped {
        Placeholders::remove_journaled(&self.journal(), &self.locks()).expect("reaped")
    }

    /// All that is in the workspace.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut queue = vec![self.folder.path().to_owned()];
        while let Some(folder) = queue.pop() {
            for entry in fs::read_dir(folder).expect("list") {
                let path = entry.expect("entry").path();
                let name = path.strip_prefix(self.folder.path()).expect("inside");
                names.push(name.to_str().expect("utf-8").to_owned());
                if path.symlink_metadata().expect("there").is_dir() {
                    queue.push(path);
                }
            }
        }
        names.sort();
        names
    }
}

#[test]
fn absent_places_are_made_protected_and_taken_away_again() {
    let ground = Ground::new();
    fs::create_dir(ground.at(".vscode")).expect("make");
    fs::write(ground.at(".vscode/tasks.json"), "{}").expect("write");
    let before = ground.names();
    let placeholders = ground.make(&["deploy/keys", "../out", "/etc/x", "."]);
    let expected = [
        ".claude",
        ".cursor",
        ".envrc",
        ".github",
        ".github/workflows",
        ".husky",
        ".idea",
        ".mcp.json",
        ".sandbox-mcp.toml",
        "deploy",
        "deploy/keys",
    ];
    let mut made: Vec<_> = placeholders.paths().filter_map(Path::to_str).collect();
    made.sort_unstable();
    assert_eq!(made, expected);
    for path in expected {
        let found = fs::symlink_metadata(ground.at(path)).expect("there");
        assert!(found.is_dir() && found.permissions().mode() & 0o7777 == 0o755, "{path}");
        assert_eq!(found.uid(), ground.workspace.owner().uid);
    }
    let found = protected(&ground.workspace, &["deploy/keys".to_owned()]);
    let places: Vec<_> =
        found.places.iter().filter_map(|place| place.relative().to_str()).collect();
    for path in expected.iter().filter(|path| **path != ".github" && **path != "deploy") {
        assert!(places.contains(path), "{path}: {places:?}");
    }
    assert!(found.anchors.iter().any(|anchor| anchor.relative() == Path::new(".github")));
    assert!(placeholders.remove().is_empty());
    assert_eq!(ground.names(), before);
    assert!(!ground.journal().exists());
}

#[test]
fn git_works_with_placeholders_and_sees_none_of_them() {
    let ground = Ground::new();
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .current_dir(ground.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .args(["-c", "user.name=a", "-c", "user.email=a@b"])
            .args(arguments)
            .output()
            .expect("git runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("utf-8")
    };
    git(&["init", "-q"]);
    git(&["config", "extensions.worktreeConfig", "true"]);
    fs::remove_dir_all(ground.at(".git/hooks")).expect("remove");
    let before = ground.names();
    let placeholders = ground.make(&[]);
    let made: Vec<_> = placeholders.paths().filter_map(Path::to_str).collect();
    for path in [".git/config.worktree", ".git/hooks", ".git/modules", ".git/worktrees"] {
        assert!(made.contains(&path), "{made:?}");
    }
    assert!(ground.at(".git/config.worktree").is_file());
    git(&["commit", "-q", "--allow-empty", "-m", "x"]);
    git(&["add", "-A"]);
    assert_eq!(git(&["status", "--porcelain", "--ignored"]), "");
    assert!(placeholders.remove().is_empty());
    assert!(!ground.names().iter().any(|name| name.ends_with("config.worktree")));
    assert!(before.iter().all(|name| ground.at(name).exists()));
    // A folder of hooks that the settings name is a place like any other.
    git(&["config", "core.hooksPath", "tools/hooks"]);
    let placeholders = ground.make(&[]);
    assert!(ground.at("tools/hooks").is_dir());
    assert!(placeholders.remove().is_empty() && !ground.at("tools").exists());
    // The same where git's own settings are gone, which it takes as if they were empty.
    fs::remove_file(ground.at(".git/config")).expect("remove");
    let placeholders = ground.make(&[]);
    assert!(ground.at(".git/config").is_file());
    git(&["status"]);
    assert!(placeholders.remove().is_empty() && !ground.at(".git/config").exists());
}

#[test]
fn nothing_is_made_in_a_git_folder_that_is_not_there_or_is_a_file_or_link() {
    for kind in ["none", "file", "link"] {
        let ground = Ground::new();
        let outside = Ground::new();
        match kind {
            "file" => fs::write(ground.at(".git"), "gitdir: x").expect("write"),
            "link" => symlink(outside.folder.path(), ground.at(".git")).expect("link"),
            _ => {}
        }
        let placeholders = ground.make(&[".git/x", ".GIT/y"]);
        assert!(placeholders.paths().all(|path| !path.starts_with(".git")), "{kind}");
        assert_eq!(ground.at(".git").symlink_metadata().is_ok(), kind != "none");
        assert!(outside.names().is_empty());
        drop(placeholders);
    }
}

#[test]
fn links_on_the_way_are_never_followed() {
    let ground = Ground::new();
    let outside = Ground::new();
    symlink(outside.folder.path(), ground.at(".github")).expect("link");
    symlink(outside.folder.path(), ground.at("deploy")).expect("link");
    symlink("nowhere", ground.at(".envrc")).expect("link");
    let placeholders = ground.make(&["deploy/keys"]);
    assert!(outside.names().is_empty());
    // A parent that becomes a link later leads the removal nowhere either.
    fs::create_dir_all(outside.at("workflows")).expect("make");
    assert!(placeholders.remove().is_empty());
    assert_eq!(outside.names(), ["workflows"]);
    assert_eq!(ground.names(), [".envrc", ".github", "deploy"]);

    let ground = Ground::new();
    let placeholders = ground.make(&[]);
    fs::rename(ground.at(".github"), ground.at("moved")).expect("rename");
    symlink(outside.folder.path(), ground.at(".github")).expect("link");
    let left = placeholders.remove();
    assert_eq!(outside.names(), ["workflows"]);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].path, Path::new(".github"));
}

#[test]
fn what_is_no_longer_ours_or_empty_stays_and_is_told() {
    let ground = Ground::new();
    let placeholders = ground.make(&[]);
    fs::write(ground.at(".vscode/settings.json"), "by an editor").expect("write");
    fs::remove_dir(ground.at(".idea")).expect("remove");
    // Made before the other one goes, so that it cannot get its inode.
    fs::create_dir(ground.at("other")).expect("make");
    fs::remove_dir(ground.at(".husky")).expect("remove");
    fs::rename(ground.at("other"), ground.at(".husky")).expect("rename");
    let left = placeholders.remove();
    let told: Vec<_> =
        left.iter().map(|left| (left.path.to_str().expect("utf-8"), left.why.as_str())).collect();
    assert_eq!(
        told,
        [(".vscode", "it is not empty any more"), (".husky", "something else has taken its place")]
    );
    assert_eq!(ground.names(), [".husky", ".vscode", ".vscode/settings.json"]);
}

#[test]
fn dropping_is_the_last_resort_and_leaving_is_for_the_reaper() {
    let ground = Ground::new();
    drop(ground.make(&[]));
    assert!(ground.names().is_empty() && !ground.journal().exists());
    ground.make(&[]).leave();
    assert!(!ground.names().is_empty());
    assert_eq!(ground.reap(), Reaped::Done(Vec::new()));
    assert!(ground.names().is_empty() && !ground.journal().exists());
    assert_eq!(ground.reap(), Reaped::Done(Vec::new()), "no journal is no work");
}

#[test]
fn the_reaper_waits_while_another_run_relies_on_what_was_left() {
    let ground = Ground::new();
    ground.make(&[]).leave();
    let all = ground.names();
    let next = ground.lock();
    assert_eq!(ground.reap(), Reaped::Busy);
    assert_eq!(ground.names(), all);
    assert!(ground.journal().exists());
    drop(next);
    assert_eq!(ground.reap(), Reaped::Done(Vec::new()));
    assert!(ground.names().is_empty());
}

#[test]
fn a_lock_of_another_workspace_is_none() {
    let (ground, other) = (Ground::new(), Ground::new());
    let refused = Placeholders::make(&ground.workspace, &[], &ground.journal(), &other.lock());
    assert!(matches!(refused, Err(GuardError::NotLocked)));
    assert!(ground.names().is_empty());
}

#[test]
fn a_kill_at_any_byte_of_the_journal_leaves_nothing_behind() {
    let ground = Ground::new();
    let mut further = 0;
    loop {
        ground.make(&[]).leave();
        let whole = fs::read(ground.journal()).expect("read");
        let made = whole.windows(8).position(|at| at == b"\"made\",\"").expect("made");
        let planned = whole[..made].iter().rposition(|byte| *byte == b'\n').expect("line") + 1;
        let cut = planned + further;
        fs::write(ground.journal(), &whole[..cut.min(whole.len())]).expect("write");
        assert_eq!(ground.reap(), Reaped::Done(Vec::new()), "{cut}");
        assert!(ground.names().is_empty(), "{cut}: {:?}", ground.names());
        assert!(!ground.journal().exists());
        if cut >= whole.len() {
            break;
        }
        further += 37;
    }
    // Before that, nothing had been made.
    fs::write(ground.journal(), "{\"entry\":").expect("write");
    assert_eq!(ground.reap(), Reaped::Done(Vec::new()));
}

#[test]
fn a_journal_of_nonsense_is_an_error_and_removes_nothing() {
    let ground = Ground::new();
    fs::create_dir(ground.at(".vscode")).expect("make");
    for text in ["{}\n", "{\"entry\":\"planned\",\"path\":\".vscode\",\"file\":false}\n", "x\ny\n"]
    {
        fs::write(ground.journal(), text).expect("write");
        let refused = Placeholders::remove_journaled(&ground.journal(), &ground.locks());
        assert!(matches!(refused, Err(GuardError::Journal { line: 1, .. })), "{text}");
    }
    assert_eq!(ground.names(), [".vscode"]);
}

#[test]
fn a_workspace_that_was_replaced_is_left_alone() {
    let ground = Ground::new();
    ground.make(&[]).leave();
    let moved = ground.private.path().join("moved");
    fs::rename(ground.folder.path(), &moved).expect("move");
    fs::create_dir_all(ground.at(".vscode")).expect("make");
    assert_eq!(ground.reap(), Reaped::Done(Vec::new()));
    assert_eq!(ground.names(), [".vscode"]);
}

#[test]
fn what_cannot_be_made_is_an_error_and_nothing_stays() {
    let ground = Ground::new();
    let long = "x".repeat(300);
    let extra = [long.clone()];
    let refused = Placeholders::make(&ground.workspace, &extra, &ground.journal(), &ground.lock());
    let said = refused.expect_err("too long").to_string();
    assert!(said.starts_with("make a placeholder for `xxx"), "{said}");
    assert!(ground.names().is_empty() && !ground.journal().exists());
    // A journal of an earlier run is not written over.
    fs::write(ground.journal(), "theirs").expect("write");
    let refused = Placeholders::make(&ground.workspace, &[], &ground.journal(), &ground.lock());
    assert!(matches!(refused, Err(GuardError::Io { what: "make the journal", .. })));
    assert!(ground.names().is_empty());
}

#[test]
fn root_makes_them_for_the_owner() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("temp");
    std::os::unix::fs::chown(folder.path(), Some(12345), Some(23456)).expect("chown");
    let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
    let ground = Ground { folder, private: tempfile::tempdir().expect("temp"), workspace };
    let placeholders = ground.make(&[]);
    for path in placeholders.paths() {
        let found = fs::symlink_metadata(ground.folder.path().join(path)).expect("there");
        assert_eq!((found.uid(), found.gid()), (12345, 23456));
    }
    assert!(placeholders.remove().is_empty());
}
