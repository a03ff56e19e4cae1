//! Places in the workspace that the host executes or trusts, where they exist: two runs at once may do
//! what they like to their views of them. In the folder they stay, and the host's own git afterwards
//! executes nothing of the agent's.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use crate::common::workspace::walk;
use crate::common::{Model, Product, Workspace, workspace};
use crate::inside::{script, told};

const PROTECTED: [&str; 13] = [
    ".git/config",
    ".git/hooks",
    ".git/modules",
    ".envrc",
    ".mcp.json",
    ".vscode",
    ".idea",
    ".claude",
    ".cursor",
    ".husky",
    ".github/workflows",
    "sub/.git/config",
    "sub/.git/hooks",
];

/// The host's own git, as the workspace's owner would call it.
fn git(home: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(args).current_dir(home).env("HOME", "/nonexistent");
    for (key, value) in [
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
        ("GIT_AUTHOR_NAME", "t"),
        ("GIT_AUTHOR_EMAIL", "t@example.com"),
        ("GIT_COMMITTER_NAME", "t"),
        ("GIT_COMMITTER_EMAIL", "t@example.com"),
    ] {
        command.env(key, value);
    }
    let out = command.output().expect("git on the host");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Everything that makes git execute what a repository asks for.
fn use_git(home: &Path) {
    for args in [
        &["status"][..],
        &["diff"],
        &["add", "-A", "."],
        &["commit", "--allow-empty", "-m", "host"],
        &["log", "-1"],
        &["checkout", "-b", "side"],
        &["stash"],
        &["gc", "--quiet"],
    ] {
        git(home, args);
    }
}

/// Contents, modes and names of all protected places.
fn picture(home: &Workspace) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut look = |path: &Path| {
        let meta = path.symlink_metadata().expect("it is there");
        let bytes = if meta.is_file() { std::fs::read(path).expect("a file") } else { Vec::new() };
        seen.insert(path.display().to_string(), (meta.mode(), bytes));
    };
    for place in PROTECTED {
        let path = home.at(place);
        assert!(path.symlink_metadata().is_ok(), "{place} is gone");
        look(&path);
        walk(&path, &mut look);
    }
    seen
}

fn own(home: &Workspace) {
    let (uid, gid) = workspace::person();
    walk(home.path(), &mut |path| {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("chown");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn stay_as_they_are() {
    let canary = tempfile::Builder::new().prefix("sc-").tempdir_in("/tmp").expect("a folder");
    std::fs::set_permissions(canary.path(), std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let executed = canary.path().join("executed");
    let home = Workspace::new();
    for repository in [home.path().to_owned(), home.at("sub")] {
        std::fs::create_dir_all(&repository).expect("a folder");
        git(&repository, &["init", "-q", "-b", "main"]);
        std::fs::create_dir_all(repository.join(".git/hooks")).expect("hooks");
        std::fs::write(repository.join(".git/hooks/pre-commit.sample"), "#!/bin/sh\n")
            .expect("a file");
    }
    home.write(".git/modules/m/config", "[core]\n\tbare = false\n");
    home.write(".git/hooks/pre-commit", "#!/bin/sh\nexit 0\n");
    home.write(".envrc", "export A=1\n");
    home.write(".mcp.json", "{}\n");
    for folder in [".vscode", ".idea", ".claude", ".cursor", ".husky", ".github/workflows"] {
        home.write(&format!("{folder}/there"), "as it was\n");
    }
    home.write("tracked.txt", "one\n");
    home.write("planting.sh", include_str!("inside/planting.sh"));
    git(home.path(), &["add", "tracked.txt"]);
    let committed = git(home.path(), &["commit", "-qm", "first"]);
    assert!(git(home.path(), &["log", "--oneline"]).contains("first"), "{committed}");
    own(&home);
    let before = picture(&home);

    let command = format!("bash planting.sh {}", executed.display());
    let model =
        Model::routed([("attack one", script(&command)), ("attack two", script(&command))]).await;
    let config = "[limits]\nconcurrency = 2\n";
    let product = Product::with_model(&model).await.config(config);
    let runs = ["attack one", "attack two"].map(|task| product.start_run(&home, ["--json", task]));
    for run in runs {
        let report = run.wait().await.assert_status("completed");
        let pending = &report["changes"]["pending"];
        assert!(pending["protected"].as_u64() > Some(20), "{report:#}");
    }
    product.check_nothing_left().await;

    let told = told(&home);
    assert_eq!(picture(&home), before, "{told}");
    assert!(told.lines().count() > 90, "{told}");
    for line in
        ["hook pre-commit written", ".vscode removed", "settings appended", "control file written"]
    {
        assert!(told.contains(&format!("{line}: SUCCEEDED")), "in the view: {told}");
    }
    assert!(home.has("ordinary") && home.has("two"), "what needs no yes arrives");
    for place in [".git2", "sub2", "sub/.git2", ".git/hooks2", ".GIT", ".ENVRC"] {
        assert!(!home.has(place), "{place}");
    }

    home.write("tracked.txt", "two\n");
    use_git(home.path());
    use_git(&home.at("sub"));
    assert!(!executed.exists(), "what was planted has run on the host");
    assert!(git(home.path(), &["log", "--oneline"]).contains("host"), "git did its work");

    // The same use of git notices a planted hook and a planted setting.
    for plant in [
        format!(
            "printf '#!/bin/sh\\ntouch {}\\n' > .git/hooks/post-commit; chmod 755 .git/hooks/post-commit",
            executed.display()
        ),
        format!("git -c safe.directory='*' config core.fsmonitor 'touch {} #'", executed.display()),
    ] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &plant]).current_dir(home.path()).env("GIT_CONFIG_COUNT", "1");
        shell.env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
        assert!(shell.status().expect("sh").success());
        use_git(home.path());
        assert!(executed.exists(), "this test would not notice: {plant}");
        std::fs::remove_file(&executed).expect("it exists");
        std::fs::remove_file(home.at(".git/hooks/post-commit")).ok();
    }
}
