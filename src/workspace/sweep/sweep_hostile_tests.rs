//! What an agent may do to leave something behind, or to make the sweep do its work for it.

use std::os::unix::process::CommandExt;

use rustix::fs::{CWD, Mode, OFlags};

use super::*;

/// Settings that run programs, and a witness that is made if one ran.
fn evil(ground: &Ground) -> String {
    let witness = ground.at("witness");
    let witness = witness.display();
    format!(
        "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tfsmonitor = \"touch {witness};\"\n\
         \thooksPath = hooked\n\tpager = touch {witness}\n[filter \"x\"]\n\tclean = touch {witness}\n\
         [alias]\n\tst = !touch {witness}\n[include]\n\tpath = ../more\n[remote \"origin\"]\n\
         \turl = ext::touch {witness}\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
    )
}

fn git_directory(ground: &Ground, path: &str, config: &str) {
    for (name, text) in [("HEAD", "ref: refs/heads/main\n"), ("objects/x", ""), ("refs/x", "")] {
        ground.write(Path::new(path).join(name), text);
    }
    ground.write(Path::new(path).join("config"), config);
}

#[test]
fn settings_that_run_programs_are_dropped_and_the_repository_stays() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        ground.git("", &["init", "-q", "repo"]);
        fs::write(ground.at("repo/.git/config"), evil(ground)).expect("write");
        fs::write(ground.at("repo/.git/config.worktree"), evil(ground)).expect("write");
        ground.write("repo/.gitattributes", "* filter=x\n");
        ground.write("repo/file", "");
    });
    assert_eq!(paths(&swept), ["repo/.git/config", "repo/.git/config.worktree"]);
    let note = swept.moved[0].note.as_deref().expect("a note");
    assert_eq!(
        note,
        "dropped: core.fsmonitor, core.hookspath, core.pager, filter.clean, alias.st, \
         include.path, remote.url"
    );
    ground.git("repo", &["status"]);
    ground.git("repo", &["add", "-A"]);
    assert!(!ground.at("witness").exists());
    let kept = fs::read_to_string(ground.kept("repo/.git/config.swept")).expect("kept");
    assert_eq!(kept, evil(&ground));
    // They are no empty threat.
    let real = kept.replace("[include]\n\tpath = ../more\n", "");
    fs::write(ground.at("repo/.git/config"), real).expect("write");
    ground.git("repo", &["status"]);
    assert!(ground.at("witness").exists());
}

#[test]
fn other_spellings_of_git_are_git() {
    let ground = Ground::new();
    let names = [".GIT", ".g\u{200c}it", "git~1", ".git "];
    let swept = ground.after(|ground| {
        for name in names {
            git_directory(ground, name, &evil(ground));
            ground.write(Path::new(name).join("Hooks/pre-commit"), "x");
        }
    });
    assert_eq!(swept.moved.len(), names.len() * 2, "{swept:?}");
    for name in names {
        let config = fs::read_to_string(ground.at(name).join("config")).expect("there");
        assert!(!config.contains("touch"), "{config}");
        assert!(!ground.at(name).join("Hooks/pre-commit").exists());
    }
}

#[test]
fn a_git_directory_by_any_other_name_is_one() {
    let ground = Ground::new();
    // Made of what was there: the user's folder becomes one by what the run adds to it.
    ground.write("docs/config", &evil(&ground));
    ground.write("docs/hooks/pre-commit", "x");
    let swept = ground.after(|ground| {
        git_directory(ground, "bare", &evil(ground));
        git_directory(ground, "docs", &evil(ground));
        git_directory(ground, "app/.git/modules/deep/er", &evil(ground));
        // The gitdir is innocent, but not what it leads to.
        ground.write("notes/HEAD", "ref: refs/heads/main\n");
        ground.write("notes/commondir", "../common");
        ground.write("common/objects/x", "");
        ground.write("common/refs/x", "");
        ground.write("common/config", &evil(ground));
        // As a worktree's it would be right, but git would read settings that nobody sorted.
        ground.write("fake/worktrees/w/HEAD", "ref: refs/heads/main\n");
        ground.write("fake/worktrees/w/commondir", "../..\n");
        ground.write("fake/objects/x", "");
        ground.write("fake/refs/x", "");
        ground.write("fake/config", &evil(ground));
        ground.write("w/.git", "gitdir: ../fake/worktrees/w\n");
        ground.write("n/.git", "gitdir: ../notes\n");
    });
    assert_eq!(
        paths(&swept),
        [
            "app/.git/modules/deep/er/config",
            "bare/config",
            "docs/config",
            "docs/hooks/pre-commit",
            "fake/worktrees/w/commondir",
            "n/.git",
            "notes/commondir",
            "w/.git",
        ]
    );
    for folder in ["bare", "docs"] {
        let config = fs::read_to_string(ground.at(folder).join("config")).expect("there");
        assert!(!config.contains("touch"), "{config}");
    }
}

#[test]
fn git_files_that_lead_anywhere_else_are_swept() {
    let ground = Ground::new();
    let outside = Ground::new();
    git_directory(&outside, ".git/modules/m", &evil(&outside));
    let swept = ground.after(|ground| {
        git_directory(ground, "a/.git/modules/m", "[core]\n\tbare = false\n");
        git_directory(ground, "innocent", "");
        let absolute = outside.at(".git/modules/m");
        for (name, text) in [
            ("absolute", format!("gitdir: {}\n", absolute.display())),
            ("innocent-looking", "gitdir: ../innocent\n".to_owned()),
            ("missing", "gitdir: ../a/.git/modules/none\n".to_owned()),
            ("up", format!("gitdir: ..{}\n", absolute.display())),
            ("up2", "gitdir: ../../.git/modules/m\n".to_owned()),
            ("lines", "gitdir: ../a/.git/modules/m\nx\n".to_owned()),
            ("long", format!("gitdir: ..{}/a/.git/modules/m", "/.".repeat(4096))),
            ("empty", String::new()),
            ("right", "gitdir: ../a/.git/modules/m\n".to_owned()),
        ] {
            ground.write(Path::new(name).join(".git"), &text);
        }
        // Right by its letters, but the folder is a link.
        symlink(outside.folder.path(), ground.at("link")).expect("link");
        ground.write("via/.git", "gitdir: ../link/.git/modules/m\n");
    });
    let expected =
        ["absolute", "empty", "innocent-looking", "lines", "long", "missing", "up", "up2", "via"];
    assert_eq!(paths(&swept), expected.map(|name| format!("{name}/.git")));
    assert!(ground.at("right/.git").exists());
    assert!(outside.at(".git/modules/m/config").exists());
}

#[test]
fn links_are_swept_and_never_followed() {
    let ground = Ground::new();
    let outside = Ground::new();
    for file in ["tasks.json", "workflows/ci.yml", "config", "HEAD", "hooks/x", ".envrc"] {
        outside.write(file, "theirs");
    }
    let to = |path: &str| symlink(outside.folder.path(), ground.at(path)).expect("link");
    let swept = ground.after(|ground| {
        for folder in ["a", "b/.git/x", "c/.git", "d"] {
            fs::create_dir_all(ground.at(folder)).expect("make");
        }
        for path in ["a/.vscode", "a/.GIT", "a/.github", "b/.git/hooks", "b/.git/modules", "plain"]
        {
            to(path);
        }
        symlink(outside.at("config"), ground.at("c/.git/config")).expect("link");
        symlink("nowhere", ground.at("d/.envrc")).expect("link");
        ground.write("e/.idea/x", "");
        to("e/.idea/link");
    });
    assert_eq!(
        paths(&swept),
        [
            "a/.GIT",
            "a/.github",
            "a/.vscode",
            "b/.git/hooks",
            "b/.git/modules",
            "c/.git/config",
            "d/.envrc",
            "e/.idea/",
        ]
    );
    for file in ["tasks.json", "workflows/ci.yml", "config", "HEAD", "hooks/x", ".envrc"] {
        assert_eq!(fs::read_to_string(outside.at(file)).expect("there"), "theirs");
    }
    assert!(ground.at("plain").symlink_metadata().is_ok());
    let text = fs::read_to_string(ground.kept("e/.idea/link.swept")).expect("kept");
    assert!(text.starts_with("a symbolic link to /"), "{text}");
}

#[test]
fn what_is_too_much_to_keep_is_removed_all_the_same() {
    let ground = Ground::new();
    let limits = SweepLimits { kept_bytes: 100, kept_entries: 8, ..SweepLimits::default() };
    let swept = ground.sweep(limits, |ground| {
        ground.write("a/.vscode/x", "small");
        let huge = fs::File::create(ground.at("a/.vscode/huge")).expect("make");
        huge.set_len(8 << 40).expect("sparse");
        let fifo = ground.at("a/.vscode/pipe");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).expect("fifo");
        fs::create_dir_all(ground.at("c/.git")).expect("make");
        let huge = fs::File::create(ground.at("c/.git/config")).expect("make");
        huge.set_len(8 << 40).expect("sparse");
    });
    assert!(swept.complete);
    assert_eq!(paths(&swept), ["a/.vscode/", "c/.git/config"]);
    for item in &swept.moved {
        let note = item.note.as_deref().expect("a note");
        assert!(note.contains("too much"), "{item:?}");
    }
    assert!(ground.kept("a/.vscode/x.swept").exists());
    assert!(!ground.kept("a/.vscode/huge.swept").exists());
    assert!(!ground.at("a/.vscode").exists());
    let swept = ground.sweep(limits, |ground| {
        for number in 0..3000 {
            ground.write(format!("b/.idea/{number}"), "");
        }
    });
    assert!(swept.moved[0].note.as_deref().is_some_and(|note| note.contains("too much")));
    assert_eq!(fs::read_dir(ground.kept("b/.idea")).expect("list").count(), 7);
    assert!(swept.complete && !ground.at("b/.idea").exists());
    assert_eq!(fs::read_to_string(ground.at("c/.git/config")).expect("there"), "");
}

/// A link leads to any depth in one step, and git works there.
#[test]
fn what_lies_deeper_than_anybody_looks_is_swept() {
    let ground = Ground::new();
    let far = "d/".repeat(BOTTOM + 3);
    ground.write(Path::new("own").join(&far).join("file"), "");
    let swept = ground.sweep(SweepLimits::default(), |ground| {
        git_directory(ground, &format!("{far}.git"), &evil(ground));
        ground.write(Path::new(&far).join("file"), "");
        symlink(&far, ground.at("docs")).expect("link");
        ground.git("docs", &["status"]);
        assert!(ground.at("witness").exists(), "this test would not notice");
        fs::remove_file(ground.at("witness")).expect("remove");
    });
    let found: Vec<_> = swept.moved.iter().filter(|item| item.path != "witness").collect();
    assert_eq!(found.len(), 1, "{swept:?}");
    assert!(found[0].path.starts_with("d/") && !found[0].still_there, "{found:?}");
    assert!(!ground.at("docs").exists(), "the link leads nowhere");
    assert!(ground.at("own").join(&far).join("file").exists(), "the user's own stays");
    assert!(!swept.complete, "which nobody has looked into");
    // Without anything of the user's down there, everything has been looked at.
    let ground = Ground::new();
    let swept = ground.after(|ground| ground.write(Path::new(&far).join("file"), ""));
    assert_eq!(swept.moved.len(), 1, "{swept:?}");
}

#[test]
fn a_bottomless_place_is_removed() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        fs::create_dir(ground.at(".vscode")).expect("make");
        let mut at =
            rustix::fs::open(ground.at(".vscode"), OFlags::DIRECTORY, Mode::empty()).expect("open");
        // Far beyond the longest path that can be named, and the most open files.
        for number in 0..2100 {
            let name = if number % 40 == 0 { "1" } else { "d" };
            rustix::fs::mkdirat(&at, name, Mode::RWXU).expect("make");
            at = rustix::fs::openat(&at, name, OFlags::DIRECTORY, Mode::empty()).expect("open");
        }
    });
    assert_eq!(paths(&swept), [".vscode/"]);
    assert!(!ground.at(".vscode").exists());
}

#[test]
fn a_flood_hides_nothing_and_is_counted() {
    let ground = Ground::new();
    let many = 500;
    let mut before = Before::take(&ground.workspace, &[], Limits::default());
    before.portion = 70;
    for number in 0..many {
        ground.write(format!("d{number}/.envrc"), "");
        ground.write(format!("d{number}/.git/config"), "[core]\n\tbare = false\n");
    }
    ground.write("z/z/z/z/.git/hooks/pre-commit", "x");
    let swept = before.sweep(&ground.kept(""), SweepLimits::default());
    assert!(swept.complete);
    assert_eq!(swept.moved.len(), LISTED);
    assert_eq!(swept.unlisted, u64::try_from(many + 1 - LISTED).expect("fits"));
    assert!(!ground.at("z/z/z/z/.git/hooks/pre-commit").exists());
    assert!((0..many).all(|number| !ground.at(format!("d{number}/.envrc")).exists()));
}

#[test]
fn what_was_not_seen_before_goes_by_the_kernels_clock() {
    let ground = Ground::new();
    ground.write("old/.envrc", "x");
    ground.write("old/.vscode/x", "x");
    ground.write("moved", "x");
    std::thread::sleep(Duration::from_millis(50));
    let blind = Limits { entries: 0, ..SweepLimits::default().walk };
    let before = Before::take(&ground.workspace, &[], blind);
    ground.write("new/.envrc", "x");
    fs::rename(ground.at("moved"), ground.at("new/.mcp.json")).expect("rename");
    let swept = before.sweep(&ground.kept(""), SweepLimits::default());
    assert_eq!(paths(&swept), ["new/.envrc", "new/.mcp.json"]);
    // And a sweep that cannot see all says so.
    let blind = SweepLimits { walk: blind, ..SweepLimits::default() };
    assert!(!ground.sweep(blind, |_| {}).complete);
}

#[test]
fn a_folder_that_becomes_a_trusted_place_is_new_there() {
    let ground = Ground::new();
    ground.write("vendor/innocent/tasks.json", "x");
    ground.write("vendor/repo/config", &evil(&ground));
    let swept = ground.after(|ground| {
        fs::rename(ground.at("vendor/innocent"), ground.at("vendor/.vscode")).expect("rename");
        fs::create_dir(ground.at("src")).expect("make");
        fs::rename(ground.at("vendor/repo"), ground.at("src/.git")).expect("rename");
    });
    assert_eq!(paths(&swept), ["src/.git/config", "vendor/.vscode/"]);
}

#[test]
fn names_are_told_and_kept_as_plain_text() {
    let ground = Ground::new();
    let swept = ground.after(|ground| {
        ground.write("\u{1b}[31mx\n/.envrc", "one");
        ground.write("_[31mx_/.envrc", "two");
        ground.write(Path::new(&"x".repeat(255)).join(".envrc"), "three");
    });
    assert_eq!(swept.moved.len(), 3);
    for item in &swept.moved {
        assert!(!item.path.contains(['\u{1b}', '\n']), "{item:?}");
        let kept = item.kept_as.as_deref().expect("kept");
        assert!(ground.kept(kept).is_file() && !kept.contains(['\u{1b}', '\n']), "{kept:?}");
    }
    let mut names: Vec<_> = fs::read_dir(ground.kept("__31mx_")).expect("list").flatten().collect();
    names.sort_by_key(std::fs::DirEntry::file_name);
    assert_eq!(names.len(), 2);
    assert_eq!(names[0].file_name(), ".envrc.1.swept");
}

#[test]
fn a_user_who_is_not_root_can_sweep_what_a_run_has_shut() {
    const AS_NOBODY: &str = "SANDBOX_MCP_TEST_AS_NOBODY";
    let name =
        "workspace::sweep::tests::hostile::a_user_who_is_not_root_can_sweep_what_a_run_has_shut";
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
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(ground.at(path), fs::Permissions::from_mode(mode)).expect("chmod");
    };
    ground.write("always/.envrc", "the user's own");
    mode("always", 0o000);
    std::thread::sleep(Duration::from_millis(50));
    let swept = ground.after(|ground| {
        ground.write("unlisted/.envrc", "x");
        ground.write("unlisted/inner/.git/hooks/x", "x");
        mode("unlisted/inner", 0o100);
        mode("unlisted", 0o300);
        ground.write("flat/.mcp.json", "x");
        mode("flat/.mcp.json", 0o000);
        mode("flat", 0o500);
        ground.write("listed/.mcp.json", "x");
        mode("listed", 0o400);
        ground.write("tree/.vscode/deep/x", "x");
        mode("tree/.vscode/deep", 0o000);
        mode("tree/.vscode", 0o100);
    });
    assert_eq!(
        paths(&swept),
        [
            "flat/.mcp.json",
            "listed/.mcp.json",
            "tree/.vscode/",
            "unlisted/.envrc",
            "unlisted/inner/.git/hooks/x"
        ]
    );
    assert!(swept.moved.iter().all(|item| item.kept_as.is_some() && item.note.is_none()));
    assert!(swept.odd.iter().any(|odd| odd.path == "unlisted/" && odd.what == "closed folder"));
    mode("always", 0o700);
    assert!(ground.at("always/.envrc").exists());
}

#[test]
fn places_that_change_while_they_are_swept_lead_nowhere() {
    let ground = Ground::new();
    let outside = Ground::new();
    for file in ["x", "deep/y", "config", "HEAD", "hooks/pre-commit"] {
        outside.write(file, "theirs");
    }
    let names = ["a/.vscode", "b/.git", "c/.claude/sub", "d/.git/hooks"];
    let done = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each of these may fail: the sweep takes things away in between.
            while !done.load(relaxed) {
                for name in names {
                    let place = ground.at(name);
                    let _ = fs::create_dir_all(place.join("deep"));
                    let _ = fs::write(place.join("config"), "[core]\nfsmonitor = x\n");
                    let _ = fs::write(place.join("deep/y"), "ours");
                    let _ = fs::rename(&place, ground.at("aside"));
                    let _ = symlink(outside.folder.path(), &place);
                    let _ = fs::remove_file(&place);
                    let _ = fs::rename(ground.at("aside"), &place);
                }
            }
        });
        for _ in 0..60 {
            let before = Before::take(&ground.workspace, &[], Limits::default());
            let _ = fs::create_dir_all(ground.at("a/.vscode/deep"));
            before.sweep(&ground.kept(""), SweepLimits::default());
        }
        done.store(true, relaxed);
    });
    for file in ["x", "deep/y", "config", "HEAD", "hooks/pre-commit"] {
        assert_eq!(fs::read_to_string(outside.at(file)).expect("there"), "theirs");
    }
    let mut theirs: Vec<_> = fs::read_dir(outside.folder.path()).expect("list").flatten().collect();
    theirs.sort_by_key(std::fs::DirEntry::file_name);
    assert_eq!(theirs.len(), 5, "{theirs:?}");
}

#[test]
fn settings_that_the_users_own_include_are_swept_when_the_run_makes_them() {
    let ground = Ground::new();
    ground.git("", &["init", "-q"]);
    ground.git("", &["config", "include.path", "../shared.gitconfig"]);
    ground.git("", &["config", "core.hooksPath", "tools/hooks"]);
    let swept = ground.after(|ground| {
        ground.write("shared.gitconfig", "[core]\nfsmonitor = x\n");
        ground.write("tools/hooks/pre-commit", "x");
        ground.write("tools/other", "x");
    });
    assert_eq!(paths(&swept), ["shared.gitconfig", "tools/hooks/"]);
}
