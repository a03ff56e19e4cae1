use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::Mode;
use tempfile::TempDir;

use super::super::scan::MOST_REPOSITORIES;
use super::*;

fn workspace() -> (TempDir, WorkspacePath) {
    let folder = tempfile::tempdir().expect("temp");
    let workspace = WorkspacePath::check(None, folder.path(), &[]).expect("a workspace");
    (folder, workspace)
}

fn make(workspace: &WorkspacePath, paths: &[&str]) {
    for path in paths {
        let path = workspace.path().join(path.trim_end_matches('/'));
        fs::create_dir_all(path.parent().expect("parent")).expect("make");
        fs::write(path, "").expect("write");
    }
}

fn names(places: &[Protected]) -> Vec<&str> {
    places.iter().filter_map(|place| place.relative().to_str()).collect()
}

#[test]
fn only_what_exists_is_listed_sorted_and_without_children() {
    let (_keep, workspace) = workspace();
    assert!(protected(&workspace, &[]).places.is_empty());
    make(
        &workspace,
        &[
            ".git/hooks/x",
            ".git/config",
            ".git/modules/m/config",
            ".envrc",
            ".vscode/tasks.json",
            ".github/workflows/ci.yml",
            ".mcp.json",
            "src/main.rs",
            "deploy/keys/k",
        ],
    );
    let extra = [
        "deploy",
        "deploy/keys",
        ".vscode/tasks.json",
        "absent",
        "../out",
        "/etc",
        "./src//main.rs",
    ]
    .map(String::from);
    let found = protected(&workspace, &extra);
    assert_eq!(
        names(&found.places),
        [
            ".envrc",
            ".git/config",
            ".git/hooks",
            ".git/modules",
            ".github/workflows",
            ".mcp.json",
            ".vscode",
            "deploy",
            "src/main.rs"
        ]
    );
    assert_eq!(names(&found.anchors), [".git", ".github"]);
    assert_eq!(found.places[0].kind(), Kind::File);
    assert_eq!(found.places[2].kind(), Kind::Dir);
    assert!(found.obstacles.is_empty() && found.complete);
    let source = found.places[0].source(&workspace).expect("unchanged");
    assert_eq!(source, workspace.path().join(".envrc"));
}

#[test]
fn repositories_below_and_worktree_files_are_protected_too() {
    let (_keep, workspace) = workspace();
    make(
        &workspace,
        &[".git", "a/.git/hooks/x", "a/.git/config", "a/b/.git", "a/.git/c/.git/config"],
    );
    let found = protected(&workspace, &[]);
    assert_eq!(names(&found.places), [".git", "a/.git/config", "a/.git/hooks", "a/b/.git"]);
    assert_eq!(names(&found.anchors), ["a/.git"]);
    assert_eq!(found.places[0].kind(), Kind::File);
}

#[test]
fn a_link_in_a_protected_place_is_never_mountable() {
    let (_keep, workspace) = workspace();
    let (_other, outside) = self::workspace();
    make(&workspace, &["real/config", "sub/x"]);
    symlink(outside.path(), workspace.path().join(".vscode")).expect("link");
    symlink("real", workspace.path().join(".git")).expect("link");
    symlink("real", workspace.path().join("sub/.git")).expect("link");
    symlink("nowhere", workspace.path().join(".envrc")).expect("link");
    let found = protected(&workspace, &[".vscode/tasks.json".into(), "sub".into()]);
    assert_eq!(names(&found.places), ["sub"]);
    let obstacles: Vec<_> =
        found.obstacles.iter().map(|o| (o.relative.to_str().expect("utf-8"), o.nested)).collect();
    assert_eq!(
        obstacles,
        [(".envrc", false), (".git", false), (".vscode", false), ("sub/.git", true)]
    );
    let said = found.obstacles[0].to_string();
    assert!(said.starts_with("`.envrc` in the workspace is a symbolic link, so"), "{said}");
}

#[test]
fn a_place_that_is_exchanged_gives_no_source() {
    let (_keep, workspace) = workspace();
    make(&workspace, &[".git/hooks/x", ".envrc", "other/x"]);
    let found = protected(&workspace, &[]);
    let [envrc, hooks] = found.places.as_slice() else { panic!("{found:?}") };
    fs::remove_file(workspace.path().join(".envrc")).expect("remove");
    assert!(envrc.source(&workspace).is_err());
    symlink("other/x", workspace.path().join(".envrc")).expect("link");
    assert!(envrc.source(&workspace).is_err());
    // A parent that became a link is as bad, even where the same folder is found behind it.
    fs::rename(workspace.path().join(".git"), workspace.path().join("moved")).expect("move");
    symlink("moved", workspace.path().join(".git")).expect("link");
    assert!(hooks.source(&workspace).is_err());
}

#[test]
fn odd_files_and_crowds_are_told() {
    let (_keep, workspace) = workspace();
    let fifo = workspace.path().join(".envrc");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RWXU, 0)
        .expect("fifo");
    for number in 0..=MOST_REPOSITORIES {
        make(&workspace, &[&format!("r{number}/.git/config")]);
    }
    let found = protected(&workspace, &[]);
    assert_eq!(found.obstacles[0].what, "neither a file nor a folder");
    assert_eq!(found.places.len(), MOST_REPOSITORIES);
    assert!(!found.complete);
}

#[test]
fn what_tools_trust_in_folders_below_is_protected_in_any_spelling() {
    let (_keep, workspace) = workspace();
    make(
        &workspace,
        &[
            "a/.envrc",
            "a/b/.vscode/tasks.json",
            "a/b/.mcp.json",
            "a/.github/workflows/ci.yml",
            "a/.github/CODEOWNERS",
            "workflows/x",
            ".VSCODE/x",
            "c/.GIT/config",
            "c/.GIT/hooks/x",
            "node_modules/p/.vscode/x",
            "node_modules/p/.git/config",
            "target/.idea/x",
        ],
    );
    let found = protected(&workspace, &[]);
    assert_eq!(
        names(&found.places),
        [
            ".VSCODE",
            "a/.envrc",
            "a/.github/workflows",
            "a/b/.mcp.json",
            "a/b/.vscode",
            "c/.GIT/config",
            "c/.GIT/hooks",
            "node_modules/p/.git/config",
        ]
    );
    assert_eq!(names(&found.anchors), ["a/.github", "c/.GIT", "node_modules/p/.git"]);
    assert!(found.complete && found.linked.is_empty() && found.obstacles.is_empty());
}

#[test]
fn bare_repositories_are_protected_too() {
    let (_keep, workspace) = workspace();
    make(&workspace, &["x/HEAD", "x/objects/a", "x/refs/a", "x/config", "x/hooks/a", "x/src/a"]);
    make(&workspace, &["linked/HEAD", "linked/commondir", "linked/config.worktree"]);
    make(&workspace, &["none/HEAD", "none/objects/a", "none/config"]);
    let found = protected(&workspace, &[]);
    assert_eq!(names(&found.places), ["linked/config.worktree", "x/config", "x/hooks"]);
    assert!(found.anchors.is_empty());
    // The workspace itself can be one.
    make(&workspace, &["HEAD", "objects/a", "refs/a", "config"]);
    assert!(names(&protected(&workspace, &[]).places).contains(&"config"));
}

#[test]
fn a_crowd_of_places_is_cut_and_told_and_costs_no_repository_its_protection() {
    let (_keep, workspace) = workspace();
    for number in 0..MOST_PLACES + 5 {
        make(&workspace, &[&format!("d{number}/.envrc")]);
    }
    make(&workspace, &["z/.git/config", ".idea/x"]);
    let found = protected(&workspace, &[]);
    assert_eq!(found.places.len(), MOST_PLACES);
    assert!(!found.complete);
    let places = names(&found.places);
    assert!(places.contains(&"z/.git/config") && places.contains(&".idea"));
    for number in 0..30 {
        symlink("x", workspace.path().join(format!("d{number}/.vscode"))).expect("link");
    }
    let found = protected(&workspace, &[]);
    assert_eq!(found.obstacles.len(), MOST_NESTED_OBSTACLES);
    assert!(!found.complete && found.obstacles.iter().all(|obstacle| obstacle.nested));
}

#[test]
fn protected_files_with_another_name_are_told() {
    let (_keep, workspace) = workspace();
    make(&workspace, &[".git/config", ".git/hooks/x", ".git/modules/m/objects/o", ".envrc"]);
    let at = |path: &str| workspace.path().join(path);
    fs::hard_link(at(".git/config"), at("x")).expect("link");
    fs::hard_link(at(".git/hooks/x"), at("y")).expect("link");
    fs::hard_link(at(".git/modules/m/objects/o"), at("z")).expect("link");
    let found = protected(&workspace, &[]);
    assert_eq!(found.linked, [Path::new(".git/config"), Path::new(".git/hooks/x")]);
}

#[test]
fn hooks_are_protected_where_the_settings_say_that_they_are() {
    let (_keep, workspace) = workspace();
    make(&workspace, &["tools/hooks/pre-commit", "a/.git/x", "a/hooked/x", ".git/x"]);
    let set = |path: &str, text: &str| {
        fs::write(workspace.path().join(path), format!("[core]\nhooksPath = {text}\n"))
            .expect("write");
    };
    set(".git/config", "tools/hooks");
    set("a/.git/config", "hooked");
    let found = protected(&workspace, &[]);
    assert_eq!(names(&found.places), [".git/config", "a/.git/config", "a/hooked", "tools/hooks"]);
    set(".git/config", "tools/hooks\n[include]\npath = ../settings");
    make(&workspace, &["settings"]);
    assert!(names(&protected(&workspace, &[]).places).contains(&"settings"));
    set(".git/config", "/etc");
    assert!(!names(&protected(&workspace, &[]).places).contains(&"tools/hooks"));
}

/// An engine is asked in JSON, and would refuse the whole run over it.
#[test]
fn a_place_whose_name_is_no_text_is_told_and_stops_nothing() {
    use std::os::unix::ffi::OsStrExt;
    let (_keep, workspace) = workspace();
    let folder = workspace.path().join(std::ffi::OsStr::from_bytes(b"a\xff"));
    fs::create_dir_all(folder.join(".vscode")).expect("make");
    fs::create_dir_all(folder.join(".git/hooks")).expect("make");
    make(&workspace, &["b/.vscode/"]);
    let found = protected(&workspace, &[]);
    assert_eq!(names(&found.places), ["b/.vscode"]);
    let told: Vec<_> =
        found.obstacles.iter().map(|one| (one.relative.file_name(), one.nested)).collect();
    let named = |name: &'static str| (Some(std::ffi::OsStr::new(name)), true);
    assert_eq!(told, [named("hooks"), named(".vscode")]);
}
