use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::file::{Error, Settings, Visibility};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}

#[test]
fn links_are_followed_and_mode_and_owner_stay() {
    let base = tempfile::tempdir().expect("temp");
    let dotfiles = base.path().join("dotfiles");
    fs::create_dir(&dotfiles).expect("made");
    let (real, link) = (dotfiles.join("real.json"), base.path().join("link.json"));
    fs::write(&real, "old").expect("written");
    fs::set_permissions(&real, Permissions::from_mode(0o640)).expect("chmod");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&real, Some(12_345), Some(12_346)).expect("chown");
    }
    let before = fs::metadata(&real).expect("there");
    symlink("dotfiles/real.json", &link).expect("link");

    let settings = Settings::read(&link).expect("read");
    assert_eq!(settings.bytes(), Some(b"old".as_slice()));
    let backup = settings.back_up(true).expect("kept").expect("made");
    settings.replace(b"new", Visibility::Private).expect("written");

    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    assert_eq!(text(&link), "new");
    assert_eq!(text(&backup), "old");
    for path in [&real, &backup] {
        let now = fs::metadata(path).expect("there");
        assert_eq!((now.mode(), now.uid(), now.gid()), (before.mode(), before.uid(), before.gid()));
    }
    assert_eq!(names(&dotfiles), ["real.json", "real.json.sandbox-mcp.bak"]);
}

#[test]
fn a_file_that_changes_meanwhile_is_left_as_somebody_else_wrote_it() {
    let base = tempfile::tempdir().expect("temp");
    let path = base.path().join("a.json");
    fs::write(&path, "old").expect("written");
    let settings = Settings::read(&path).expect("read");
    fs::write(&path, "theirs").expect("written");
    let refused = settings.replace(b"new", Visibility::Private).expect_err("refused");
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
    assert_eq!(text(&path), "theirs");

    let missing = Settings::read(&base.path().join("b.json")).expect("not there");
    fs::write(base.path().join("b.json"), "theirs").expect("written");
    let refused = missing.replace(b"new", Visibility::Private).expect_err("refused");
    assert!(matches!(refused, Error::Changed { .. }), "{refused}");
    assert_eq!(text(&base.path().join("b.json")), "theirs");
    assert_eq!(names(base.path()), ["a.json", "b.json"]);
}

/// A client that writes all the time: nothing it wrote is ever lost to an edit that took place.
#[test]
fn a_race_is_lost_by_us() {
    let base = tempfile::tempdir().expect("temp");
    let path = base.path().join("a.json");
    fs::write(&path, "0").expect("written");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (mut done, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // As the clients do it, by renaming; it counts on what it finds.
            let partial = base.path().join("theirs");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let number: u64 = text(&path).trim_end_matches('+').parse().expect("a number");
                fs::write(&partial, (number + 1).to_string()).expect("written");
                fs::rename(&partial, &path).expect("renamed");
            }
        });
        let mut last = 0;
        for _ in 0..500 {
            let Ok(settings) = Settings::read(&path) else { continue };
            let seen = String::from_utf8(settings.bytes().expect("there").to_vec()).expect("text");
            let number: u64 = seen.trim_end_matches('+').parse().expect("whole, never half");
            assert!(number >= last, "{number} after {last}");
            last = number;
            match settings.replace(format!("{number}+").as_bytes(), Visibility::Private) {
                Ok(()) => done += 1,
                Err(Error::Changed { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(done + refused, 500);
    assert!(refused > 0, "nobody was in the way");
    assert_eq!(names(base.path()).iter().filter(|name| name.starts_with(".sandbox")).count(), 0);
}

#[test]
fn what_is_no_plain_file_of_ones_own_is_refused() {
    let base = tempfile::tempdir().expect("temp");
    let refused = |path: &Path| match Settings::read(path) {
        Err(error) => error.to_string(),
        Ok(settings) => panic!("{settings:?}"),
    };
    let fifo = base.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("made");
    assert!(refused(&fifo).contains("not a file"));
    assert!(refused(base.path()).contains("not a file"));
    let dangling = base.path().join("dangling");
    symlink("nowhere", &dangling).expect("link");
    assert!(refused(&dangling).contains("leads nowhere"));
    let one = base.path().join("one");
    fs::write(&one, "{}").expect("written");
    fs::hard_link(&one, base.path().join("two")).expect("link");
    assert!(refused(&one).contains("several names"));
    let large = base.path().join("large");
    fs::File::create(&large).expect("made").set_len(1 << 40).expect("sparse");
    assert!(refused(&large).contains("too large"));

    let locked = base.path().join("locked");
    fs::write(&locked, "{}").expect("written");
    fs::set_permissions(&locked, Permissions::from_mode(0o444)).expect("chmod");
    let settings = Settings::read(&locked).expect("read");
    let refused = settings.replace(b"new", Visibility::Private).expect_err("refused").to_string();
    assert!(refused.contains("read-only"), "{refused}");
    assert_eq!(text(&locked), "{}");
}

#[test]
fn new_files_are_private_at_home_and_shared_in_a_project() {
    let base = tempfile::tempdir().expect("temp");
    for (name, visibility, expected) in
        [("a/b/c.json", Visibility::Private, 0o600), ("p/c.json", Visibility::Shared, 0o644)]
    {
        let path = base.path().join(name);
        let settings = Settings::read(&path).expect("not there");
        assert_eq!(settings.bytes(), None);
        assert_eq!(settings.back_up(true).expect("nothing to keep"), None);
        settings.replace(b"{}", visibility).expect("written");
        let mode = fs::metadata(&path).expect("there").mode() & 0o777;
        // The umask of whoever tests this may take more.
        assert_eq!(mode & !expected, 0, "{mode:o}");
        assert_eq!(mode & 0o600, 0o600);
    }
}

#[test]
fn an_earlier_backup_stays_unless_this_is_worth_more() {
    let base = tempfile::tempdir().expect("temp");
    let path = base.path().join("a.json");
    fs::write(&path, "first").expect("written");
    let settings = Settings::read(&path).expect("read");
    assert!(settings.back_up(false).expect("kept").is_some());
    fs::write(&path, "second").expect("written");
    let settings = Settings::read(&path).expect("read");
    assert_eq!(settings.back_up(false).expect("left"), None);
    assert_eq!(text(&settings.backup_path()), "first");
    assert!(settings.back_up(true).expect("kept").is_some());
    assert_eq!(text(&settings.backup_path()), "second");
}

#[test]
fn a_projects_links_must_not_lead_out_of_it() {
    let base = tempfile::tempdir().expect("temp");
    let (project, home) = (base.path().join("project"), base.path().join("home"));
    fs::create_dir_all(&home).expect("made");
    fs::create_dir_all(&project).expect("made");
    fs::write(home.join("secret.json"), "{}").expect("written");
    symlink(home.join("secret.json"), project.join(".mcp.json")).expect("link");
    symlink(&home, project.join(".cursor")).expect("link");
    for file in [".mcp.json", ".cursor/mcp.json", "../home/secret.json"] {
        let refused = Settings::read_within(&project.join(file), &project).expect_err("refused");
        assert!(refused.to_string().contains("out of the project"), "{refused}");
    }
    fs::create_dir(project.join("real")).expect("made");
    symlink("real", project.join(".vscode")).expect("link");
    Settings::read_within(&project.join(".vscode/mcp.json"), &project).expect("inside");
}
