//! Hostile projects.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;

struct Place {
    folder: TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("sm-project-").tempdir_in("/tmp").expect("dir");
        let path = folder.path().canonicalize().expect("a path").join("work");
        fs::create_dir(&path).expect("a folder");
        Self { folder, path }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, content).expect("a file");
        self
    }

    fn project(&self) -> Project {
        let workspace = WorkspacePath::check(None, &self.path, &[]).expect("a workspace");
        Project::open(&workspace).expect("open")
    }

    fn read(&self, path: &str, start: u64, lines: Option<u64>) -> Result<Excerpt, Error> {
        self.project().read(path, Range { start, lines })
    }

    fn files(&self, selection: &Selection) -> Vec<String> {
        self.project().list(selection, None).expect("a listing").files
    }

    fn search(&self, pattern: &str) -> Query {
        Query {
            pattern: pattern.into(),
            case_sensitive: true,
            context: 0,
            most: 50,
            selection: Selection::default(),
        }
    }

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

fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("mkfifo");
    assert!(made.success());
}

#[test]
fn a_file_is_read_as_it_is_and_in_parts() {
    let place = Place::new();
    place.write("a/b.txt", "one\n\ttwo ü\n\nfour");
    let whole = place.read("a/b.txt", 1, None).expect("text");
    assert_eq!(whole.text, "one\n\ttwo ü\n\nfour");
    assert_eq!((whole.lines, whole.total_lines, whole.next_line), (4, Some(4), None));
    assert_eq!(whole.notes, ["the last line has no newline"]);
    let part = place.read("./a//b.txt", 2, Some(2)).expect("text");
    assert_eq!((part.text.as_str(), part.next_line), ("\ttwo ü\n\n", Some(4)));
    let error = place.read("a/b.txt", 5, None).expect_err("past the end").to_string();
    assert_eq!(error, "`start_line` is 5, but `a/b.txt` has 4 lines");
    place.write("empty", "");
    let empty = place.read("empty", 1, None).expect("text");
    assert_eq!((empty.lines, empty.total_lines, empty.text.as_str()), (0, Some(0), ""));
}

#[test]
fn a_long_file_is_told_in_bounded_parts_that_make_the_whole() {
    let place = Place::new();
    let whole: String =
        (0..5000).map(|n| format!("line {n} \"{}\"\n", "x".repeat(n % 90))).collect();
    place.write("long", &whole);
    let (mut together, mut next, mut parts) = (String::new(), Some(1), 0);
    while let Some(start) = next {
        let part = place.read("long", start, None).expect("text");
        assert!(serde_json::to_string(&part).expect("JSON").len() < 24 * 1024);
        assert_eq!(part.lines, part.text.lines().count() as u64);
        assert_eq!(part.total_lines, Some(5000));
        together.push_str(&part.text);
        next = part.next_line;
        parts += 1;
    }
    assert_eq!(together, whole);
    assert!(parts > 10, "{parts}");
}

#[test]
fn one_endless_line_is_cut_and_what_follows_is_reached() {
    let place = Place::new();
    place.write("wide", format!("{}\nafter\n", "ä".repeat(100_000)));
    let part = place.read("wide", 1, None).expect("text");
    assert!(part.text.len() < 24 * 1024 && part.text.len() > 20 * 1024, "{}", part.text.len());
    assert_eq!(part.notes[0], "line 1 is too long; only its beginning is shown");
    assert_eq!(part.next_line, Some(2));
    assert_eq!(place.read("wide", 2, None).expect("text").text, "after\n");
}

#[test]
fn what_steers_a_terminal_is_shown_as_what_it_is() {
    let place = Place::new();
    place.write("evil", b"\xef\xbb\xbfa\x1b]0;t\x07b\xe2\x80\xae\r\nc\xffd\re\n");
    let part = place.read("evil", 1, None).expect("text");
    assert_eq!(part.text, "a␛]0;t␇b\u{fffd}\nc\u{fffd}d␍e\n");
    assert_eq!(
        part.notes,
        [
            "lines end in CRLF in the file",
            "the file begins with a byte order mark",
            "5 control, invisible or invalid characters are shown as pictures or U+FFFD",
        ]
    );
}

#[test]
fn nothing_outside_is_reached_by_any_path() {
    let place = Place::new();
    fs::write(place.folder.path().join("secret"), "hidden").expect("a file");
    place.write("in", "x").write("sub/in", "x").write(".git/config", "[core]");
    symlink("../secret", place.path.join("link")).expect("a link");
    symlink(place.folder.path(), place.path.join("out")).expect("a link");
    symlink("in", place.path.join("near")).expect("a link");
    let refused = |path: &str| place.read(path, 1, None).expect_err(path);
    assert!(matches!(refused("../secret"), Error::Upwards { .. }));
    assert!(matches!(refused("sub/../../secret"), Error::Upwards { .. }));
    assert!(matches!(refused("/etc/passwd"), Error::Absolute { .. }));
    assert!(matches!(refused("in\0"), Error::Nul));
    assert!(matches!(refused(""), Error::Empty));
    assert!(matches!(refused("."), Error::Folder { .. }));
    assert!(matches!(refused("sub"), Error::Folder { .. }));
    assert!(matches!(refused("none"), Error::Missing { .. }));
    assert!(matches!(refused("in/x"), Error::Blocked { .. }));
    for link in ["link", "near"] {
        assert!(matches!(refused(link), Error::Link { .. }), "{link}");
    }
    assert!(matches!(refused("out/secret"), Error::Blocked { .. }));
    for git in [".git/config", ".GIT/config", "sub/.git", ".git", "git~1/config"] {
        assert!(matches!(refused(git), Error::Git { .. }), "{git}");
    }
    for path in ["..", "/", "out", ".git", "link"] {
        let selection = Selection { path: path.into(), hidden: true, ..Selection::default() };
        assert!(place.project().list(&selection, None).is_err(), "{path}");
        let query = Query { selection, ..place.search("hidden") };
        assert!(place.project().search(&query).is_err(), "{path}");
    }
    let all = Selection { hidden: true, ..Selection::default() };
    let listing = place.project().list(&all, None).expect("a listing");
    assert_eq!((listing.files, listing.links), (vec!["in".into(), "sub/in".into()], 3));
    assert!(place.project().search(&place.search("hidden")).expect("hits").matches.is_empty());
}

#[test]
fn pipes_sockets_and_binaries_neither_block_nor_show() {
    let place = Place::new();
    fifo(&place.path.join("pipe"));
    fifo(&place.path.join(".gitignore"));
    let _socket = UnixListener::bind(place.path.join("socket")).expect("a socket");
    place.write("blob", b"needle\0\x01\x02").write("text", "needle\n");
    for special in ["pipe", "socket", ".gitignore"] {
        let error = place.read(special, 1, None).expect_err(special);
        assert!(matches!(error, Error::Special { .. }), "{error}");
    }
    let error = place.read("blob", 1, None).expect_err("binary").to_string();
    assert_eq!(error, "`path` is `blob`, a binary file of 9 bytes; only text is shown");
    assert_eq!(place.files(&Selection::default()), ["blob", "text"]);
    let hits = place.project().search(&place.search("needle")).expect("hits");
    let paths: Vec<_> = hits.matches.iter().map(|hit| hit.path.as_str()).collect();
    assert_eq!(paths, ["text"]);
    assert!(hits.complete);
}

#[test]
fn another_folder_under_the_name_is_noticed() {
    let place = Place::new();
    let workspace = WorkspacePath::check(None, &place.path, &[]).expect("a workspace");
    fs::rename(&place.path, place.folder.path().join("old")).expect("a rename");
    fs::create_dir(&place.path).expect("a folder");
    assert!(matches!(Project::open(&workspace), Err(Error::Replaced { .. })));
}

#[test]
fn listings_follow_the_rules_of_the_project() {
    let place = Place::new();
    fs::create_dir(place.path.join(".git")).expect("a folder");
    place.write(".gitignore", "*.log\n/target\n").write("target/x", "").write("a.log", "");
    place.write("src/.gitignore", "!keep.log\n").write("src/keep.log", "").write("src/m.rs", "");
    place.write(".env", "").write("src/deep/n.rs", "").write("z.rs", "");
    place.write("bad\u{202e}name", "");
    let of = |path: &str, glob: Option<&str>, hidden| {
        place.files(&Selection { path: path.into(), glob: glob.map(Into::into), hidden })
    };
    assert_eq!(of("", None, false), ["z.rs", "src/keep.log", "src/m.rs", "src/deep/n.rs"]);
    assert_eq!(of("src/deep", None, false), ["src/deep/n.rs"]);
    assert_eq!(of("", Some("*.rs"), false), ["z.rs", "src/m.rs", "src/deep/n.rs"]);
    assert_eq!(of("", Some("src/*.rs"), false), ["src/m.rs"]);
    assert_eq!(of("", Some("!src/**"), false), ["z.rs"]);
    assert_eq!(of("a.log", None, false), ["a.log"]);
    assert!(of("", None, true).contains(&".env".to_owned()));
    let listing = place.project().list(&Selection::default(), None).expect("a listing");
    assert_eq!((listing.unnameable, listing.total), (1, 4));
    let wrong = Selection { glob: Some("a[".into()), ..Selection::default() };
    let error = place.project().list(&wrong, None).expect_err("no glob").to_string();
    assert!(error.starts_with("`glob` is `a[`, which is no glob: "), "{error}");
}

#[test]
fn pages_together_are_everything_once() {
    let place = Place::new();
    let mut all: Vec<String> = (0..900).map(|n| format!("folder{}/file{n}.txt", n % 3)).collect();
    all.push("top".into());
    for name in &all {
        place.write(name, "");
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = place.project().list(&Selection::default(), cursor.as_deref()).expect("a page");
        assert!(serde_json::to_string(&page).expect("JSON").len() < 8 * 1024);
        assert_eq!(page.total, 901);
        seen.extend(page.files);
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert!(pages > 2, "{pages}");
    assert_eq!(seen[0], "top");
    seen.sort();
    all.sort();
    assert_eq!(seen, all);
}

#[test]
fn searching_shows_lines_with_their_surroundings() {
    let place = Place::new();
    place.write("a.txt", "one\ntwo Needle\nthree\nfour\n").write("b.rs", "needle(1)\r\nx\n");
    let search = |query: Query| place.project().search(&query).expect("hits");
    let hits = search(Query { case_sensitive: false, context: 1, ..place.search("needle") });
    assert_eq!(hits.matches.len(), 2);
    let first = &hits.matches[0];
    assert_eq!((first.path.as_str(), first.line, first.text.as_str()), ("a.txt", 2, "two Needle"));
    assert_eq!((&first.before[..], &first.after[..]), (&["one".into()][..], &["three".into()][..]));
    assert_eq!(hits.matches[1].text, "needle(1)");
    assert!(hits.matches[1].before.is_empty() && hits.complete);
    assert_eq!(search(place.search("needle")).matches.len(), 1);
    let most = search(Query { most: 1, case_sensitive: false, ..place.search("needle") });
    assert_eq!((most.matches.len(), most.stopped_by), (1, Some("`max_results`")));
    let one = Selection { path: "b.rs".into(), ..Selection::default() };
    let one = search(Query { selection: one, case_sensitive: false, ..place.search("n") });
    assert!(one.matches.iter().all(|hit| hit.path == "b.rs") && !one.matches.is_empty());
}

#[test]
fn a_search_is_bounded_whatever_is_searched() {
    let place = Place::new();
    place.write("many", "match me\n".repeat(10_000));
    place.write("wide", format!("{}needle{}", "x".repeat(500_000), "y".repeat(5000)));
    let hits = place
        .project()
        .search(&Query { most: 200, context: 10, ..place.search("match|needle") })
        .expect("hits");
    assert!(!hits.complete);
    assert!(serde_json::to_string(&hits).expect("JSON").len() < 16 * 1024);
    let hits = place.project().search(&place.search("needle")).expect("hits");
    let text = &hits.matches[0].text;
    assert!(
        text.contains("needle") && text.starts_with('…') && text.chars().count() < 250,
        "{text}"
    );
    for (pattern, part) in [
        ("", "`pattern` is empty"),
        ("a(", "no regular expression"),
        ("a\nb", "no regular expression"),
        ("((((x{100}){100}){100}){100})", "no regular expression"),
        (&"x".repeat(1001), "has 1001 bytes; give at most 1000"),
    ] {
        let error = place.project().search(&place.search(pattern)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
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
    assert!(matches!(answer, Err(Error::Slow { seconds: 5 }) | Ok(_)), "{answer:?}");
}
