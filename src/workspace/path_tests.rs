use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

/// A folder with `project/src` in it, named without links.
fn ground() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temp");
    let path = folder.path().canonicalize().expect("real");
    fs::create_dir_all(path.join("project/src")).expect("make");
    (folder, path)
}

fn check(requested: &Path, cwd: &Path, roots: &[PathBuf]) -> Result<WorkspacePath, Error> {
    WorkspacePath::check_for(Some(requested), cwd, roots, &Ours::default())
}

#[test]
fn the_current_folder_and_what_is_below_are_allowed() {
    let (_keep, ground) = ground();
    let project = ground.join("project");
    let found = WorkspacePath::check(None, &project, &[]).expect("own folder");
    assert_eq!(found.path(), project);
    assert_eq!(found.owner().uid, fs::metadata(&project).expect("there").uid());
    assert!(found.is_writable());
    found.recheck().expect("still there");
    for requested in ["", ".", "src", "src/../src", "./src/."] {
        check(Path::new(requested), &project, &[]).expect(requested);
    }
    check(&project.join("src"), &project, &[]).expect("absolute");
}

#[test]
fn hosts_write_folders_in_their_own_ways() {
    let (_keep, ground) = ground();
    let project = ground.join("project");
    fs::create_dir(project.join("a #1 ü")).expect("make");
    let ours = Ours { home: Some(ground.clone()), private: Vec::new() };
    for requested in [
        format!("file://{}/a%20%231%20%C3%BC", project.display()),
        format!("file://localhost{}/a #1 ü/", project.display()),
        "~/project/a #1 ü".to_owned(),
    ] {
        let found = WorkspacePath::check_for(Some(Path::new(&requested)), &project, &[], &ours);
        assert_eq!(found.expect(&requested).path(), project.join("a #1 ü"));
    }
    // It is the same door: neither leads out.
    for requested in [format!("file://{}", ground.display()), "file:///etc".into(), "~".into()] {
        let refused = WorkspacePath::check_for(Some(Path::new(&requested)), &project, &[], &ours);
        let refused = refused.expect_err(&requested).to_string();
        assert!(refused.contains(&format!("`workspace` is `{requested}`")), "{refused}");
    }
    assert!(is_project(&project) && !is_project(Path::new("/")) && !is_project(Path::new("/tmp")));
}

#[test]
fn outside_is_refused_until_a_root_allows_it() {
    let (_keep, ground) = ground();
    let (_other, outside) = self::ground();
    let project = ground.join("project");
    for requested in [outside.as_path(), &ground, Path::new(".."), Path::new("../project2")] {
        let refused = check(requested, &project, &[]);
        assert!(matches!(refused, Err(Error::Outside { .. } | Error::Missing { .. })));
    }
    // A name that only begins like an allowed one is another folder.
    fs::create_dir(ground.join("project2")).expect("make");
    let message = check(Path::new("../project2"), &project, &[]).expect_err("outside").to_string();
    let expected = format!("allowed are `{}` and folders below", project.display());
    assert!(message.contains("`workspace` is `../project2`") && message.contains(&expected));

    let roots = [outside.join("missing"), outside.clone()];
    check(&outside.join("project"), &project, &roots).expect("below a root");
    check(&outside, &project, &roots).expect("a root");
}

#[test]
fn a_link_is_judged_by_where_it_leads() {
    let (_keep, ground) = ground();
    let (_other, outside) = self::ground();
    let project = ground.join("project");
    symlink(&outside, project.join("out")).expect("link");
    symlink("src", project.join("in")).expect("link");
    symlink("loop", project.join("loop")).expect("link");
    symlink("gone", project.join("dangling")).expect("link");
    let inside = check(Path::new("in"), &project, &[]).expect("stays inside");
    assert_eq!(inside.path(), project.join("src"));
    assert!(matches!(check(Path::new("out"), &project, &[]), Err(Error::Outside { .. })));
    assert!(matches!(check(Path::new("out/project"), &project, &[]), Err(Error::Outside { .. })));
    assert!(matches!(check(Path::new("loop"), &project, &[]), Err(Error::Loop { .. })));
    assert!(matches!(check(Path::new("dangling"), &project, &[]), Err(Error::Missing { .. })));
    // The root itself may be named through a link.
    symlink(&outside, ground.join("root")).expect("link");
    check(&outside.join("project"), &project, &[ground.join("root")]).expect("a linked root");
}

#[test]
fn what_is_no_folder_is_refused_clearly() {
    let (_keep, ground) = ground();
    fs::write(ground.join("file"), "").expect("write");
    assert!(matches!(check(Path::new("file"), &ground, &[]), Err(Error::NotAFolder { .. })));
    assert!(matches!(check(Path::new("file/x"), &ground, &[]), Err(Error::NotAFolder { .. })));
    assert!(matches!(check(Path::new("gone"), &ground, &[]), Err(Error::Missing { .. })));
    assert!(matches!(check(Path::new("a\0b"), &ground, &[]), Err(Error::Unreadable { .. })));
    let long = "x".repeat(5000);
    assert!(matches!(check(Path::new(&long), &ground, &[]), Err(Error::Unreadable { .. })));
    let latin = OsStr::from_bytes(b"caf\xe9");
    fs::create_dir(ground.join(latin)).expect("make");
    assert!(matches!(check(Path::new(latin), &ground, &[]), Err(Error::NotUnicode { .. })));
    let hostile = check(Path::new("\u{1b}[31mred\nline"), &ground, &[]).expect_err("missing");
    assert!(hostile.to_string().contains("`workspace` is `red line`, which does not exist"));
}

#[test]
fn folders_that_no_agent_gets() {
    let ours = Ours {
        home: Some("/home/me".into()),
        private: vec!["/home/me/.local/state/sandbox-mcp".into(), "/tmp/sandbox-mcp-1".into()],
    };
    let refused = |path: &str| refusal(Path::new(path), Path::new("/home/me"), &ours).is_some();
    for path in [
        "/",
        "/home",
        "/home/me",
        "/home/you",
        "/root",
        "/Users",
        "/Users/me",
        "/var/home/me",
        "/etc",
        "/etc/ssh",
        "/usr",
        "/usr/lib/x",
        "/bin",
        "/sbin",
        "/lib",
        "/lib64",
        "/libx32/y",
        "/boot",
        "/dev",
        "/dev/shm",
        "/proc",
        "/proc/self/cwd",
        "/sys",
        "/run",
        "/run/user/1000",
        "/run/media",
        "/var",
        "/var/lib/docker/volumes",
        "/var/run",
        "/var/tmp",
        "/opt",
        "/tmp",
        "/srv",
        "/mnt",
        "/media",
        "/home/me/.local/state/sandbox-mcp/runs",
        "/home/me/.local",
        "/tmp/sandbox-mcp-1/x",
        "/home/me/.ssh",
        "/home/me/.ssh/keys",
        "/home/me/.config/gh",
        "/home/me/.config",
        "/home/me/p/.git",
        "/home/me/p/.git/hooks",
        "/home/me/p/.GIT/x",
        "/home/me/.vscode",
        "/home/me/p/.vscode/x",
        "/home/me/p/.github/workflows",
        "/home/me/p/.claude/worktrees",
        "/home/me/p/.claude/worktrees/w/.husky",
    ] {
        assert!(refused(path), "{path}");
    }
    for path in [
        "/home/me/p",
        "/home/me/.config/nvim",
        "/home/me/.cache/x",
        "/home/me/p/.github",
        "/home/me/p/.claude/worktrees/w",
        "/home/me/p/.claude/worktrees/w/src",
        "/opt/p",
        "/root/p",
        "/Users/me/p",
        "/var/home/me/p",
        "/var/tmp/p",
        "/dev/shm/p",
        "/tmp/p",
        "/srv/p",
        "/mnt/disk",
        "/run/media/me/disk",
        "/library",
        "/work",
        "/home/you/p",
        "/var/www/site",
    ] {
        assert!(!refused(path), "{path}");
    }
    let service = Ours { home: Some("/var/lib/ci".into()), private: Vec::new() };
    let root = Path::new("/var/lib/ci");
    assert!(refusal(root, root, &service).is_some());
    assert!(refusal(Path::new("/var/lib/ci/job"), root, &service).is_none());
    assert!(refusal(Path::new("/var/lib/other"), root, &service).is_some());
}

#[test]
fn a_start_in_the_root_folder_allows_nothing() {
    let (_keep, ground) = ground();
    let message = check(&ground, Path::new("/"), &[]).expect_err("no root").to_string();
    assert!(message.contains("none is allowed: start in a project folder"), "{message}");
    let refused = check(Path::new(""), Path::new("/"), &[]).expect_err("the root").to_string();
    assert!(refused.contains("the whole file system"), "{refused}");
    check(&ground, Path::new("/"), std::slice::from_ref(&ground)).expect("by configuration");
    let refused = check(Path::new("/etc"), &ground, &[]).expect_err("system").to_string();
    assert!(refused.contains("`workspace` is `/etc`, a folder of the system"), "{refused}");
}

#[test]
fn our_own_records_are_no_workspace_and_in_none() {
    let (_keep, ground) = ground();
    let ours = Ours { home: None, private: vec![ground.join("project/state")] };
    fs::create_dir(ground.join("project/state")).expect("make");
    for requested in ["project/state", "project"] {
        let found = WorkspacePath::check_for(Some(Path::new(requested)), &ground, &[], &ours);
        assert!(matches!(found, Err(Error::Refused { .. })), "{requested}");
    }
    WorkspacePath::check_for(Some(Path::new("project/src")), &ground, &[], &ours).expect("beside");
}

#[test]
fn another_folder_under_the_same_name_is_noticed() {
    let (_keep, ground) = ground();
    let project = ground.join("project");
    let found = check(&project, &ground, &[]).expect("a folder");
    fs::rename(&project, ground.join("moved")).expect("move");
    assert!(found.recheck().is_err());
    symlink("moved", &project).expect("link");
    assert!(matches!(found.recheck(), Err(Error::Replaced { .. })));
}
