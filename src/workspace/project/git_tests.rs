//! Hostile repositories.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::tests::{Place, fifo};
use super::{Error, StatusReport};

impl Place {
    fn git(&self, arguments: &[&str]) {
        let done = Command::new("git")
            .args(["-c", "user.name=Ann", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"])
            .args(["-c", "commit.gpgSign=false"])
            .args(arguments)
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .expect("git");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    async fn status(&self) -> Result<StatusReport, Error> {
        let path = std::env::var_os("PATH").expect("a PATH");
        self.project().status_with(&path, self.folder.path()).await
    }
}

#[tokio::test]
async fn git_tells_of_branch_changes_and_commits() {
    let place = Place::new();
    place.git(&["init", "-q"]);
    let report = place.status().await.expect("a status");
    assert_eq!((report.branch.as_deref(), report.commit, report.clean), (Some("main"), None, true));
    place.write("kept", "1\n").write("changed", "1\n").write("ignored", "");
    place.write(".git/info/exclude", "ignored\n");
    place.git(&["add", "."]);
    place.git(&["commit", "-qm", "First \u{1b}[31mred"]);
    place.git(&["checkout", "-qb", "topic/x"]);
    let report = place.status().await.expect("a status");
    assert!(report.clean, "{report:?}");
    place.write("changed", "2\n").write("new name", "");
    let report = place.status().await.expect("a status");
    assert_eq!(report.branch.as_deref(), Some("topic/x"));
    let changed: Vec<_> =
        report.changed.iter().map(|entry| (entry.status.as_str(), entry.path.as_str())).collect();
    assert_eq!(changed, [(" M", "changed"), ("??", "new name")]);
    assert_eq!(report.commits.len(), 1);
    assert_eq!(
        (report.commits[0].subject.as_str(), report.commits[0].author.as_str()),
        ("First red", "Ann")
    );
    place.git(&["pack-refs", "--all"]);
    place.git(&["checkout", "-q", "--detach"]);
    let report = place.status().await.expect("a status");
    assert!(report.branch.is_none() && report.commit.is_some_and(|id| id.len() == 40));
    assert_eq!(fs::read_dir(place.folder.path()).expect("the place").count(), 1, "nothing is left");
}

#[tokio::test]
async fn settings_that_decide_what_is_changed_are_kept() {
    let place = Place::new();
    place.git(&["init", "-q", "--object-format=sha256"]);
    place.git(&["config", "core.autocrlf", "true"]);
    place.git(&["config", "core.fileMode", "false"]);
    place.write("file", "1\r\n");
    place.git(&["add", "."]);
    // Before a commit the index alone tells what kind of repository it is.
    let report = place.status().await.expect("a status");
    assert_eq!(report.changed[0].status, "A");
    place.git(&["commit", "-qm", "one"]);
    let path = place.path.join("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    place.write("file", "1\r\n");
    let report = place.status().await.expect("a status");
    assert!(report.clean && report.commit.is_some_and(|id| id.len() == 64));
}

#[tokio::test]
async fn no_program_that_a_repository_names_is_run() {
    let place = Place::new();
    let canary = place.folder.path().join("canary");
    let evil = place.folder.path().join("evil");
    fs::write(&evil, format!("#!/bin/sh\ntouch {}\ncat\n", canary.display())).expect("a script");
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).expect("chmod");
    let evil = evil.to_str().expect("a path");
    place.git(&["init", "-q"]);
    place.write("file", "1\n").write("sub/file", "1\n");
    place.git(&["-C", "sub", "init", "-q"]);
    place.git(&["-C", "sub", "add", "."]);
    place.git(&["-C", "sub", "commit", "-qm", "inner"]);
    place.git(&["add", "."]);
    place.git(&["commit", "-qm", "outer"]);
    let settings = format!(
        "[core]\n fsmonitor = {evil}\n hooksPath = {0}\n pager = {evil}\n sshCommand = {evil}\n \
         editor = {evil}\n askPass = {evil}\n alternateRefsCommand = {evil}\n worktree = {0}\n \
         attributesFile = {0}/attributes\n\
         [filter \"x\"]\n clean = {evil}\n smudge = {evil}\n process = {evil}\n required\n\
         [diff]\n external = {evil}\n ignoreSubmodules = none\n[diff \"x\"]\n textconv = {evil}\n command = {evil}\n\
         [pager]\n status = {evil}\n log = {evil}\n[alias]\n status = !{evil}\n log = !{evil}\n\
         [log]\n showSignature = true\n[gpg]\n program = {evil}\n[credential]\n helper = {evil}\n\
         [include]\n path = {0}/more\n[extensions]\n partialClone = origin\n\
         [remote \"origin\"]\n url = ext::{evil}\n promisor = true\n uploadpack = {evil}\n\
         [protocol \"ext\"]\n allow = always\n[status]\n submoduleSummary = true\n",
        place.folder.path().display()
    );
    fs::write(place.folder.path().join("more"), format!("[core]\nfsmonitor={evil}\n"))
        .expect("more");
    fs::write(place.folder.path().join("post-index-change"), "").expect("a hook");
    fs::copy(evil, place.folder.path().join("post-index-change")).expect("a hook");
    for config in [".git/config", "sub/.git/config"] {
        let path = place.path.join(config);
        let old = fs::read_to_string(&path).expect("settings");
        fs::write(&path, format!("{old}{settings}")).expect("settings");
    }
    place
        .write(".gitattributes", "* filter=x diff=x\n")
        .write("sub/.gitattributes", "* filter=x\n");
    place.write(".git/info/attributes", "* filter=x diff=x\n");
    place.write(".gitmodules", "[submodule \"sub\"]\n path = sub\n url = ./x\n ignore = none\n");
    for hook in ["post-index-change", "fsmonitor-watchman", "pre-commit"] {
        fs::copy(evil, place.path.join(".git/hooks").join(hook)).expect("a hook");
    }
    place.write("file", "2\n").write("sub/file", "2\n").write("new", "");

    let before = fs::read(place.path.join(".git/index")).expect("the index");
    let report = place.status().await.expect("a status");
    assert!(!canary.exists(), "a program of the repository was run");
    let changed: Vec<_> = report.changed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(changed, ["file", ".gitattributes", ".gitmodules", "new"]);
    assert_eq!(report.commits[0].subject, "outer");
    assert_eq!(fs::read(place.path.join(".git/index")).expect("the index"), before);

    // The trap is one: plain git falls into it.
    let _ = Command::new("git").arg("status").current_dir(&place.path).output().expect("git");
    let _ = Command::new("git")
        .args(["-c", "core.worktree=", "diff"])
        .current_dir(&place.path)
        .output();
    assert!(canary.exists(), "the test's trap does not work");
}

#[tokio::test]
async fn a_repository_that_leads_elsewhere_is_not_followed() {
    let elsewhere = Place::new();
    elsewhere.git(&["init", "-q"]);
    elsewhere.write("secret", "1");
    elsewhere.git(&["add", "."]);
    elsewhere.git(&["commit", "-qm", "private words"]);
    let git = elsewhere.path.join(".git");
    let shown = |git: &Path| git.display().to_string();

    let place = Place::new();
    let error = place.status().await.expect_err("no repository").to_string();
    assert!(error.starts_with("no repository begins in the workspace"), "{error}");
    place.write(".git", format!("gitdir: {}\n", shown(&git)));
    assert!(matches!(place.status().await, Err(Error::Unusual { .. })));
    fs::remove_file(place.path.join(".git")).expect("removed");
    symlink(&git, place.path.join(".git")).expect("a link");
    assert!(matches!(place.status().await, Err(Error::Unusual { .. })));
    fs::remove_file(place.path.join(".git")).expect("removed");
    fifo(&place.path.join(".git"));
    assert!(matches!(place.status().await, Err(Error::Unusual { .. })));
    fs::remove_file(place.path.join(".git")).expect("removed");

    // Objects, references or all of it from another repository.
    let commit = fs::read_to_string(git.join("refs/heads/main")).expect("a commit");
    place.git(&["init", "-q"]);
    place.write(".git/refs/heads/main", &commit);
    place.write(".git/objects/info/alternates", shown(&git.join("objects")));
    assert!(matches!(place.status().await, Err(Error::Unusual { .. })));
    fs::remove_dir_all(place.path.join(".git/objects")).expect("removed");
    symlink(git.join("objects"), place.path.join(".git/objects")).expect("a link");
    assert!(matches!(place.status().await, Err(Error::Unusual { .. })));
    fs::remove_file(place.path.join(".git/objects")).expect("removed");
    fs::create_dir(place.path.join(".git/objects")).expect("a folder");
    place.write(".git/commondir", shown(&git));
    let told = format!("{:?}", place.status().await);
    assert!(!told.contains("private words"), "{told}");
    fs::remove_file(place.path.join(".git/commondir")).expect("removed");
    fs::remove_file(place.path.join(".git/refs/heads/main")).expect("removed");
    symlink(git.join("refs/heads/main"), place.path.join(".git/refs/heads/main")).expect("a link");
    assert_eq!(place.status().await.expect("a status").commit, None);
    for head in ["ref: refs/heads/../../../x", "ref: /etc/passwd", "ref: refs/heads/-x", "junk", ""]
    {
        place.write(".git/HEAD", head);
        assert!(matches!(place.status().await, Err(Error::Unusual { .. })), "{head}");
    }
}

#[tokio::test]
async fn git_is_found_only_outside_of_the_project() {
    let place = Place::new();
    place.git(&["init", "-q"]);
    let canary = place.folder.path().join("canary");
    place.write("bin/git", format!("#!/bin/sh\ntouch {}\n", canary.display()));
    let program = place.path.join("bin/git");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink(place.path.join("bin"), place.folder.path().join("linked")).expect("a link");
    let linked = place.folder.path().join("linked");
    let folders =
        [Path::new("bin"), Path::new("."), Path::new(""), &place.path.join("bin"), &linked];
    let search = std::env::join_paths(folders).expect("a PATH");
    let error = place.project().status_with(&search, place.folder.path()).await.expect_err("none");
    assert!(matches!(error, Error::NoGit), "{error}");
    assert!(!canary.exists());
}

#[tokio::test]
async fn git_that_hangs_is_ended() {
    let place = Place::new();
    place.git(&["init", "-q"]);
    fifo(&place.path.join(".gitignore"));
    let started = std::time::Instant::now();
    let answer = place.status().await;
    assert!(started.elapsed() < std::time::Duration::from_secs(9));
    assert!(matches!(answer, Err(Error::Slow { seconds: 5 })), "{answer:?}");
}
