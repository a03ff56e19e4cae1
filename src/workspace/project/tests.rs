//! Hostile projects.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::*;

pub(super) struct Place {
    pub folder: TempDir,
    pub path: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let folder =
            tempfile::Builder::new().prefix("sm-project-").tempdir_in("/tmp").expect("dir");
        let path = folder.path().canonicalize().expect("a path").join("work");
        fs::create_dir(&path).expect("a folder");
        Self { folder, path }
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, content).expect("a file");
        self
    }

    pub fn project(&self) -> Project {
        let workspace = WorkspacePath::check(None, &self.path, &[]).expect("a workspace");
        Project::open(&workspace).expect("open")
    }

    fn read(&self, path: &str, start: u64, lines: Option<u64>) -> Result<Excerpt, Error> {
        self.project().read(path, Range { start, lines })
    }

    fn files(&self, selection: &Selection) -> Vec<String> {
        self.project().list(selection, None).expect("a listing").files
    }
}

fn query(pattern: &str) -> Query {
    Query {
        pattern: pattern.into(),
        case_sensitive: true,
        context: 0,
        most: 50,
        selection: Selection::default(),
    }
}

pub(super) fn fifo(path: &Path) {
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
        (0..5000).map(|n| ["line \"", &"x".repeat(n % 90), "\"\n"].concat()).collect();
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
        let asked = Query { selection, ..query("hidden") };
        assert!(place.project().search(&asked).is_err(), "{path}");
    }
    let all = Selection { hidden: true, ..Selection::default() };
    let listing = place.project().list(&all, None).expect("a listing");
    assert_eq!((listing.files, listing.links), (vec!["in".into(), "sub/in".into()], 3));
    assert!(place.project().search(&query("hidden")).expect("hits").matches.is_empty());
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
    let hits = place.project().search(&query("needle")).expect("hits");
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
    let search = |asked: Query| place.project().search(&asked).expect("hits");
    let hits = search(Query { case_sensitive: false, context: 1, ..query("needle") });
    assert_eq!(hits.matches.len(), 2);
    let first = &hits.matches[0];
    assert_eq!((first.path.as_str(), first.line, first.text.as_str()), ("a.txt", 2, "two Needle"));
    assert_eq!((&first.before[..], &first.after[..]), (&["one".into()][..], &["three".into()][..]));
    assert_eq!(hits.matches[1].text, "needle(1)");
    assert!(hits.matches[1].before.is_empty() && hits.complete);
    assert_eq!(search(query("needle")).matches.len(), 1);
    let most = search(Query { most: 1, case_sensitive: false, ..query("needle") });
    assert_eq!((most.matches.len(), most.stopped_by), (1, Some("`max_results`")));
    let one = Selection { path: "b.rs".into(), ..Selection::default() };
    let one = search(Query { selection: one, case_sensitive: false, ..query("n") });
    assert!(one.matches.iter().all(|hit| hit.path == "b.rs") && !one.matches.is_empty());
}

#[test]
fn a_search_is_bounded_whatever_is_searched() {
    let place = Place::new();
    place.write("many", "match me\n".repeat(10_000));
    place.write("wide", format!("{}needle{}", "x".repeat(500_000), "y".repeat(5000)));
    let hits = place
        .project()
        .search(&Query { most: 200, context: 10, ..query("match|needle") })
        .expect("hits");
    assert!(!hits.complete);
    assert!(serde_json::to_string(&hits).expect("JSON").len() < 16 * 1024);
    let hits = place.project().search(&query("needle")).expect("hits");
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
        let error = place.project().search(&query(pattern)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
}
