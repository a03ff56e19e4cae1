//! The copy of a git directory, as git itself sees it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::super::refuse::Ours;
use super::give::{Given, give_for};
use super::inspect::Inside;
use super::start::noted;

/// A folder with repositories, and what was given of one of them.
pub(super) struct Ground {
    place: TempDir,
}

impl Ground {
    pub fn new() -> Self {
        let place = tempfile::Builder::new().prefix("sg-").tempdir_in("/tmp").expect("temp");
        fs::create_dir(place.path().join("layer")).expect("make");
        Self { place }
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.place.path().canonicalize().expect("real").join(name)
    }

    pub fn try_git(&self, folder: &str, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_") {
                command.env_remove(name);
            }
        }
        let output = command
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(self.at(folder))
            .env("HOME", self.at(""))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_EDITOR", "true")
            .output()
            .expect("git");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).trim().to_owned())
    }

    #[track_caller]
    pub fn git(&self, folder: &str, arguments: &[&str]) -> String {
        let (ok, said) = self.try_git(folder, arguments);
        assert!(ok, "git {arguments:?} in {folder}: {said}");
        said
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("make");
        fs::write(path, text).expect("write");
    }

    /// A repository with two commits, two files and a branch.
    pub fn repository(&self, name: &str, init: &[&str]) {
        fs::create_dir_all(self.at(name)).expect("make");
        self.git(name, &[&["init", "-q"], init].concat());
        self.write(&format!("{name}/a"), "one\n");
        self.write(&format!("{name}/d/b"), "b\n");
        self.git(name, &["add", "-A"]);
        self.git(name, &["commit", "-qm", "first"]);
        self.git(name, &["branch", "other"]);
        self.write(&format!("{name}/a"), "two\n");
        self.git(name, &["commit", "-qam", "second"]);
    }

    /// Empties the folder that copies go to.
    pub fn clear(&self) {
        fs::remove_dir_all(self.at("layer")).expect("remove");
        fs::create_dir(self.at("layer")).expect("make");
    }

    pub fn give(&self, workspace: &str) -> Given {
        self.give_at(workspace, &self.at(workspace))
    }

    pub fn give_at(&self, workspace: &str, inside: &Path) -> Given {
        let found = fs::metadata(self.at(workspace)).expect("a workspace");
        let who = Inside { uid: found.uid(), gid: found.gid() };
        give_for(&self.at(workspace), inside, who, &self.at("layer"), (&Ours::default(), &[]))
            .expect("given")
    }

    /// Does by renaming and links what the engine does by mounts. Returns what was there, and where
    /// it is meanwhile.
    fn mount(&self, given: &Given) -> Vec<(PathBuf, PathBuf)> {
        let mut moved: Vec<(PathBuf, PathBuf)> = Vec::new();
        let now = |path: &Path, moved: &[(PathBuf, PathBuf)]| {
            let mut found = path.to_owned();
            for (from, to) in moved {
                if let Ok(below) = path.strip_prefix(from) {
                    found = to.join(below);
                }
            }
            found
        };
        for mount in &given.mounts {
            let source = now(&mount.source, &moved);
            if !mount.read_only {
                let aside = self.at("layer").join(format!("aside-{}", moved.len()));
                if mount.target.exists() {
                    fs::rename(&mount.target, &aside).expect("aside");
                    moved.push((mount.target.clone(), aside));
                }
                fs::rename(&source, &mount.target).expect("in place");
            } else if mount.target.is_dir() {
                fs::remove_dir(&mount.target).expect("a place");
                symlink(source, &mount.target).expect("link");
            } else if mount.what == "way to the git directory" {
                fs::copy(source, &mount.target).expect("copy");
            }
        }
        moved
    }
}

/// Everything below a folder. Without times: git touches an object that it would write again,
/// which a read-only mount refuses.
fn state(folder: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("read").flatten() {
            let meta = entry.metadata().expect("metadata");
            found.insert(entry.path(), (meta.ino(), meta.len()));
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found
}

/// Has a look at a copy from where the host sees it: in its own folder.
fn symlink_free_copy(ground: &Ground, given: &Given, look: impl FnOnce(&Path)) {
    let mount = given.mounts.iter().find(|mount| !mount.read_only).expect("a copy");
    fs::rename(&mount.target, &mount.source).expect("back");
    look(&ground.at("layer"));
    fs::rename(&mount.source, &mount.target).expect("in place");
}

/// Works in the repository of a workspace as an agent does, and looks that nothing of it reaches
/// the user's.
#[track_caller]
fn works(ground: &Ground, workspace: &str, given: &Given) {
    assert!(given.repositories[0].news(&ground.at("layer")).is_none());
    let users = ground.mount(given);
    assert!(!users.is_empty(), "{:?}", given.mounts);
    let before: Vec<_> = users.iter().map(|(_, aside)| state(aside)).collect();
    let git = |arguments: &[&str]| ground.git(workspace, arguments);
    assert_eq!(git(&["status", "--porcelain"]), "", "{workspace}");
    assert!(git(&["log", "--oneline"]).ends_with("first"));
    ground.write(&format!("{workspace}/new"), "new\n");
    git(&["add", "-A"]);
    git(&["commit", "-qm", "inside"]);
    // As the host is going to see it, where the copy lay.
    let layer = ground.at("layer");
    let kept = &given.repositories[0];
    assert_eq!(noted(&layer).repositories, given.repositories);
    symlink_free_copy(ground, given, |folder| assert!(kept.news(folder).is_some()));
    ground.write(&format!("{workspace}/a"), "stashed\n");
    git(&["stash"]);
    git(&["switch", "-qc", "topic"]);
    git(&["stash", "pop"]);
    git(&["commit", "-qam", "topic"]);
    git(&["branch", "-m", "topic", "renamed"]);
    git(&["switch", "-q", "-"]);
    git(&["rebase", "-q", "renamed"]);
    git(&["config", "user.name", "x"]);
    assert_eq!(git(&["status", "--porcelain"]), "");
    let log = git(&["log", "--format=%s"]);
    assert!(log.starts_with("topic\ninside"), "{log}");
    let (sound, said) = ground.try_git(workspace, &["fsck", "--no-dangling"]);
    assert!(sound && !said.contains("error"), "{said}");
    for ((_, aside), before) in users.iter().zip(before) {
        assert!(state(aside) == before, "{}", aside.display());
    }
}

#[test]
fn a_plain_repository_works_and_stays_the_users() {
    let ground = Ground::new();
    ground.repository("ws", &[]);
    ground.git("ws", &["tag", "-am", "v", "v1"]);
    ground.git("ws", &["pack-refs", "--all"]);
    ground.git("ws", &["config", "core.hooksPath", "/nowhere"]);
    ground.git("ws", &["config", "core.autocrlf", "input"]);
    let given = ground.give("ws");
    assert_eq!(given.remarks, [""; 0]);
    assert_eq!(given.covered, [Path::new(".git")]);
    let start = &given.repositories[0];
    assert_eq!(start.branch.as_deref(), Some("refs/heads/main"));
    assert_eq!(start.commit.as_deref(), Some(&*ground.git("ws", &["rev-parse", "HEAD"])));
    let names: Vec<_> = start.refs.keys().map(String::as_str).collect();
    assert_eq!(names, ["refs/heads/main", "refs/heads/other", "refs/tags/v1"]);
    assert_eq!(start.format, "sha1");
    let config = fs::read_to_string(ground.at("layer/git/config")).expect("config");
    assert!(config.contains("autocrlf") && !config.contains("hookspath"), "{config}");
    assert_eq!(fs::read_dir(ground.at("layer/git/hooks")).expect("read").count(), 0);
    works(&ground, "ws", &given);
}

#[test]
fn another_place_inside_is_written_wherever_a_place_is_named() {
    let ground = Ground::new();
    ground.repository("main", &[]);
    ground.git("main", &["worktree", "add", "-q", "../ws"]);
    let inside = Path::new("/workspace");
    let given = ground.give_at("ws", inside);
    let read = |name: &str| fs::read_to_string(ground.at("layer/git").join(name)).expect("read");
    assert_eq!(read("worktrees/ws/gitdir"), "/workspace/.git\n");
    assert_eq!(read("worktrees/ws/commondir"), "../..\n");
    let common = ground.at("main/.git");
    let alternates = format!("{}/borrowed/0/objects\n", common.display());
    assert_eq!(read("objects/info/alternates"), alternates);
    // The pointer is absolute, so it leads to the copy as it is.
    assert_eq!(given.covered, [""; 0].map(PathBuf::from));
    let targets: Vec<_> = given.mounts.iter().map(|mount| &mount.target).collect();
    assert_eq!(targets, [&common, &common.join("borrowed/0/objects")]);
    assert_eq!(given.mounts[1].source, common.join("objects"));
    assert!(given.mounts[1].read_only && !given.mounts[0].read_only);
    // A relative one would lead elsewhere.
    ground.clear();
    ground.write("ws/.git", "gitdir: ../main/.git/worktrees/ws\n");
    let given = ground.give_at("ws", inside);
    assert_eq!(given.covered, [Path::new(".git")]);
    let way = given.mounts.iter().find(|mount| mount.target == inside.join(".git"));
    let way = fs::read_to_string(&way.expect("a way").source).expect("read");
    assert_eq!(way, format!("gitdir: {}/worktrees/ws\n", common.display()));
}

#[test]
fn a_linked_worktree_works_and_others_are_not_told() {
    let ground = Ground::new();
    ground.repository("main", &[]);
    ground.git("main", &["worktree", "add", "-q", "../ws"]);
    ground.git("main", &["worktree", "add", "-q", "../secret"]);
    let given = ground.give("ws");
    let start = &given.repositories[0];
    assert_eq!(start.branch.as_deref(), Some("refs/heads/ws"));
    assert!(!ground.at("layer/git/worktrees/secret").exists());
    works(&ground, "ws", &given);
    assert!(!ground.git("ws", &["worktree", "list"]).contains("prunable"));
}

#[test]
fn submodules_work_also_in_a_linked_worktree() {
    let ground = Ground::new();
    ground.repository("library", &[]);
    ground.repository("ws", &[]);
    ground.git("ws", &["submodule", "--quiet", "add", "../library", "deep/sub"]);
    ground.git("ws", &["commit", "-qm", "first"]);
    ground.git("ws", &["worktree", "add", "-q", "../tree"]);
    ground.git("tree", &["submodule", "--quiet", "update", "--init"]);
    for workspace in ["ws", "tree"] {
        ground.clear();
        let given = ground.give(workspace);
        assert_eq!(given.remarks, [""; 0]);
        assert_eq!(given.repositories.len(), 2, "{workspace}");
        assert_eq!(given.repositories[1].place, Path::new("deep/sub"));
        let users = ground.mount(&given);
        let before: Vec<_> = users.iter().map(|(_, aside)| state(aside)).collect();
        let sub = format!("{workspace}/deep/sub");
        assert_eq!(ground.git(workspace, &["status", "--porcelain"]), "");
        ground.write(&format!("{sub}/a"), "inside\n");
        ground.git(&sub, &["commit", "-qam", "in the submodule"]);
        ground.git(workspace, &["submodule", "--quiet", "update", "--no-fetch", "--merge"]);
        ground.git(workspace, &["add", "deep/sub"]);
        ground.git(workspace, &["commit", "-qm", "take it"]);
        assert_eq!(ground.git(workspace, &["status", "--porcelain"]), "");
        for ((target, aside), before) in users.iter().zip(before) {
            assert!(state(aside) == before, "{}", aside.display());
            fs::remove_dir_all(target).expect("remove");
            fs::rename(aside, target).expect("back");
        }
        ground.git(&sub, &["reset", "-q", "--hard"]);
    }
}

#[test]
fn a_submodule_alone_and_a_separate_git_directory_work_when_they_name_the_folder() {
    let ground = Ground::new();
    ground.repository("library", &[]);
    ground.repository("ws", &[]);
    ground.git("ws", &["submodule", "--quiet", "add", "../library", "sub"]);
    let given = ground.give("ws/sub");
    assert_eq!(given.remarks, [""; 0]);
    works(&ground, "ws/sub", &given);

    let ground = Ground::new();
    let kept = ground.at("kept.git");
    ground.repository("ws", &["--separate-git-dir", kept.to_str().expect("UTF-8")]);
    let given = ground.give("ws");
    assert!(given.mounts.is_empty() && given.remarks[0].contains("core.worktree"), "{given:?}");
    let top = ground.at("ws");
    ground.git("ws", &["config", "core.worktree", top.to_str().expect("UTF-8")]);
    works(&ground, "ws", &ground.give("ws"));

    let ground = Ground::new();
    fs::create_dir(ground.at("ws")).expect("make");
    let kept = ground.at("ws/.bare");
    let kept = kept.to_str().expect("UTF-8");
    ground.git("ws", &["init", "-q", "--separate-git-dir", kept]);
    ground.write("ws/.bare/info/exclude", ".bare\n");
    ground.repository("ws", &[]);
    let given = ground.give("ws");
    assert_eq!(given.covered, [Path::new(".bare")]);
    works(&ground, "ws", &given);
}

#[test]
fn other_formats_and_parts_of_a_repository_work() {
    let ground = Ground::new();
    ground.repository("ws", &["--object-format=sha256"]);
    let given = ground.give("ws");
    assert_eq!(given.repositories[0].format, "sha256");
    works(&ground, "ws", &given);

    let ground = Ground::new();
    ground.repository("full", &[]);
    let url = format!("file://{}", ground.at("full").display());
    ground.git("", &["clone", "-q", "--depth=1", &url, "ws"]);
    let given = ground.give("ws");
    ground.mount(&given);
    assert_eq!(ground.git("ws", &["log", "--format=%s"]), "second");
    ground.write("ws/a", "three\n");
    ground.git("ws", &["commit", "-qam", "third"]);
    ground.git("ws", &["fsck"]);

    let ground = Ground::new();
    ground.repository("ws", &[]);
    ground.git("ws", &["sparse-checkout", "set", "d"]);
    ground.git("ws", &["sparse-checkout", "set", "--no-cone", "/d/", "/new"]);
    let given = ground.give("ws");
    ground.mount(&given);
    assert!(!ground.at("ws/a").exists());
    assert_eq!(ground.git("ws", &["status", "--porcelain"]), "");
    ground.write("ws/d/b", "inside\n");
    ground.git("ws", &["commit", "-qam", "inside"]);
    assert!(ground.git("ws", &["ls-tree", "--name-only", "HEAD"]).contains('a'));
}

#[test]
fn what_is_half_done_and_what_is_stashed_goes_on_inside() {
    let ground = Ground::new();
    ground.repository("ws", &[]);
    ground.write("ws/d/b", "stashed\n");
    ground.git("ws", &["stash"]);
    ground.git("ws", &["switch", "-q", "other"]);
    ground.write("ws/a", "theirs\n");
    ground.git("ws", &["commit", "-qam", "theirs"]);
    assert!(!ground.try_git("ws", &["rebase", "main"]).0);
    ground.write("ws/.git/index.lock", "");
    let given = ground.give("ws");
    assert!(!ground.at("layer/git/index.lock").exists());
    ground.mount(&given);
    assert!(ground.git("ws", &["status"]).contains("rebase in progress"));
    ground.write("ws/a", "both\n");
    ground.git("ws", &["add", "a"]);
    ground.git("ws", &["rebase", "--continue"]);
    assert_eq!(ground.git("ws", &["log", "--format=%s"]), "theirs\nsecond\nfirst");
    ground.git("ws", &["stash", "pop"]);
    assert_eq!(ground.git("ws", &["status", "--porcelain"]), "M d/b");
}
