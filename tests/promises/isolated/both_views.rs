//! What a run sees and what its result says, the same whether the view is an overlay or a copy.

use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use super::{content, lines, manifest, run};
use crate::common::Workspace;

const OVERLAY: &str = "[workspace]\nisolation = \"overlay\"\n";
const COPY: &str = "[workspace]\nisolation = \"copy\"\n";

fn furnished() -> Workspace {
    let workspace = Workspace::new();
    for (name, text) in [
        ("edited.txt", "one\n"),
        ("same.txt", "same\n"),
        ("touched.txt", "touched\n"),
        ("mode.sh", "#!/bin/sh\n"),
        ("gone.txt", "gone\n"),
        ("moved.txt", "a text that moves\n"),
        ("untouched/deep/file.txt", "there\n"),
        ("folder/a.txt", "a\n"),
        ("folder/b/c.txt", "c\n"),
        ("replaced/old.txt", "old\n"),
        ("replaced/kept.txt", "kept\n"),
        ("becomes-folder", "file\n"),
        ("becomes-file/x.txt", "x\n"),
        (".gitignore", "target/\n*.log\n"),
        ("target/debug/out.o", "object\n"),
        ("noise.log", "noise\n"),
    ] {
        workspace.write(name, text);
    }
    let raw = std::ffi::OsStr::from_bytes(b"raw-\xff.txt");
    std::fs::write(workspace.path().join(raw), "raw").expect("written");
    std::os::unix::fs::symlink("edited.txt", workspace.at("link")).expect("a link");
    let (uid, gid) = workspace.owner();
    for path in [workspace.path().join(raw), workspace.at("link")] {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("chown");
    }
    workspace
}

const SCRIPT: &str = r"
    cat target/debug/out.o noise.log; ls | wc -l
    echo two >>edited.txt
    cat same.txt >x && cat x >same.txt && rm x
    touch touched.txt
    chmod 755 mode.sh
    rm gone.txt
    mv moved.txt untouched/new-name.txt
    rm -r folder
    rm -r replaced && mkdir replaced && echo kept >replaced/kept.txt && echo new >replaced/new.txt
    rm becomes-folder && mkdir becomes-folder && echo in >becomes-folder/in.txt
    rm -r becomes-file && echo file >becomes-file
    ln -sfn /etc/passwd link
    ln -s nowhere dangling
    : >empty
    mkdir -p empty-folder
    printf 'a\0b\377' >binary
    printf x >$(printf 'new-\376.txt'); rm $(printf 'raw-\377.txt')
    mkdir -p target/release && echo o >target/release/o && echo more >target/debug/out.o
    mkfifo pipe; cp /bin/true suid; chmod u+s suid
    ln edited.txt second-name.txt
    mkdir -p a/b/c && echo deep >a/b/c/d.txt
    chmod 750 untouched
    echo finished
";

/// What the list must say, as `path: before → after`.
fn told(manifest: &Value) -> Vec<String> {
    let node = |node: &Value| match node["kind"].as_str() {
        None => "nothing".to_owned(),
        Some("file") => format!("file {} {:o}", node["size"], node["mode"].as_u64().expect("mode")),
        Some("link") => format!("link {}", node["target"].as_str().expect("target")),
        Some("folder") => format!("folder {:o}", node["mode"].as_u64().expect("mode")),
        Some(other) => panic!("{other}"),
    };
    let changes = manifest["changes"].as_array().expect("changes").iter();
    changes
        .map(|change| {
            assert!(change["base_moved"].is_null(), "{change}");
            let from = change["from"].as_str().map(|from| format!(" from {from}"));
            let (before, after) = (node(&change["before"]), node(&change["after"]));
            let path = change["path"].as_str().expect("a path");
            format!("{path}: {before} -> {after}{}", from.unwrap_or_default())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_result_is_the_same_in_an_overlay_and_in_a_copy() {
    let mut expected = vec![
        "a: nothing -> folder 750",
        "a/b: nothing -> folder 750",
        "a/b/c: nothing -> folder 750",
        "a/b/c/d.txt: nothing -> file 5 640",
        "becomes-file: folder 755 -> file 5 640",
        "becomes-file/x.txt: file 2 644 -> nothing",
        "becomes-folder: file 5 644 -> folder 750",
        "becomes-folder/in.txt: nothing -> file 3 640",
        "binary: nothing -> file 4 640",
        "dangling: nothing -> link nowhere",
        "edited.txt: file 4 644 -> file 8 644",
        "empty: nothing -> file 0 640",
        "empty-folder: nothing -> folder 750",
        "folder: folder 755 -> nothing",
        "folder/a.txt: file 2 644 -> nothing",
        "folder/b: folder 755 -> nothing",
        "folder/b/c.txt: file 2 644 -> nothing",
        "gone.txt: file 5 644 -> nothing",
        "link: link edited.txt -> link /etc/passwd",
        "mode.sh: file 10 644 -> file 10 755",
        "moved.txt: file 18 644 -> nothing",
        "new-%FE.txt: nothing -> file 1 640",
        "raw-%FF.txt: file 3 644 -> nothing",
        "replaced: folder 755 -> folder 750",
        "replaced/kept.txt: file 5 644 -> file 5 640",
        "replaced/new.txt: nothing -> file 4 640",
        "replaced/old.txt: file 4 644 -> nothing",
        "second-name.txt: nothing -> file 8 644",
        "suid: nothing -> file SIZE 750",
        "target/debug/out.o: file 7 644 -> file 5 644",
        "target/release: nothing -> folder 750",
        "target/release/o: nothing -> file 2 640",
        "untouched: folder 755 -> folder 750",
        "untouched/new-name.txt: nothing -> file 18 644 from moved.txt",
    ];
    expected.sort_unstable();
    for (config, view) in [(OVERLAY, "overlay"), (COPY, "copy")] {
        let workspace = furnished();
        let (product, report, seen) = run(&workspace, config, SCRIPT).await;
        assert!(seen.contains("object") && seen.contains("noise"), "ignored files too: {seen}");
        assert!(seen.contains("finished"), "{seen}");
        let used = report["workspace"]["view"].as_str().expect("a view");
        assert!(used == view || (view == "copy" && used == "reflink"), "{report:#}");
        let manifest = manifest(&product, &report);
        assert_eq!(manifest["complete"], true, "{manifest:#}");
        assert_eq!(manifest["version"], 1);
        let mut told = told(&manifest);
        for line in &mut told {
            if let Some(rest) = line.strip_prefix("suid: nothing -> file ") {
                let (size, mode) = rest.split_once(' ').expect("two");
                assert!(size.parse::<u64>().expect("a size") > 1000);
                *line = format!("suid: nothing -> file SIZE {mode}");
            }
        }
        told.sort_unstable();
        assert_eq!(told, expected, "{view}");
        assert_eq!(manifest["skipped"], json!([{ "path": "pipe", "why": "fifo" }]));
        assert_eq!(content(&product, &report, "binary"), b"a\0b\xff");
        assert_eq!(content(&product, &report, "edited.txt"), b"one\ntwo\n");
        assert_eq!(content(&product, &report, "empty"), b"");
        let lines = lines(&report);
        for line in [
            "edited.txt: modified",
            "untouched/new-name.txt: renamed from moved.txt",
            "target/: modified",
            "empty-folder/: added",
            "folder/a.txt: deleted",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line} in {lines:#?}");
        }
        assert!(!lines.iter().any(|line| line.contains("out.o") || line == "a/: added"));
        assert_eq!(report["changes"]["applied"], false);
        assert_eq!(report["changes"]["truncated"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_only_looks_has_an_empty_result() {
    for config in [OVERLAY, COPY] {
        let workspace = furnished();
        let (product, report, _) = run(&workspace, config, "cat edited.txt; ls -R").await;
        assert_eq!(manifest(&product, &report)["changes"], json!([]));
        assert_eq!(lines(&report), [] as [&str; 0]);
        assert!(report["changes"]["applied"].is_null(), "there is nothing to apply");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_keeps_is_no_part_of_the_result() {
    for config in [OVERLAY, COPY] {
        let workspace = furnished();
        let git = |args: &[&str]| {
            let mut command = std::process::Command::new("git");
            command.args(["-c", "safe.directory=*", "-c", "user.name=t", "-c", "user.email=t@t"]);
            let done = command.args(args).current_dir(workspace.path()).output().expect("git");
            assert!(done.status.success(), "{done:?}");
        };
        git(&["init", "-q"]);
        git(&["add", "edited.txt"]);
        git(&["commit", "-qm", "first"]);
        let (uid, gid) = workspace.owner();
        crate::common::workspace::walk(workspace.path(), &mut |path| {
            std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("chown");
        });
        let script = "
            git status --short; echo more >>edited.txt; git commit -qam second
            git config core.fsmonitor 'touch /pwned'
            echo evil >.git/hooks/pre-commit && git init -q tool && echo t >tool/file
            git log --oneline | wc -l";
        let (product, report, seen) = run(&workspace, config, script).await;
        assert!(seen.contains('2'), "it could commit: {seen}");
        let manifest = manifest(&product, &report);
        // The repository's own is a copy beside the view, and one that the run made is made again.
        assert_eq!(manifest["skipped"], json!([]));
        assert_eq!(manifest["repositories"], json!([{ "git": "tool/.git", "files": [] }]));
        let told = told(&manifest);
        let (git, others): (Vec<_>, Vec<_>) =
            told.iter().partition(|line| line.starts_with("tool/.git"));
        assert_eq!(others.len(), 3, "{told:#?}");
        assert!(others[0].starts_with("edited.txt"), "{told:#?}");
        assert!(!git.iter().any(|line| line.contains("hooks")), "{told:#?}");
        assert_eq!(report["changes"]["commits"]["count"], 1, "{report:#}");
    }
}

/// Swapped, in a chain, into each other, removed and made anew: the layer of an overlay alone does
/// not tell these apart.
const RENAMES: &str = r#"
    python3 - <<'E'
import os
for old, new in [("a", "t"), ("b", "a"), ("t", "b"), ("c", "c2"), ("d", "c"), ("c/in", "moved")]:
    os.rename(old, new)
open("b/new.txt", "w").write("new\n")
os.remove("e/f"); os.rmdir("e"); os.mkdir("e")
E
    cat a/f b/f c/f moved/deep
"#;

#[tokio::test(flavor = "multi_thread")]
async fn folders_can_be_renamed_and_are_told_by_their_contents() {
    let expected = [
        "a/f: file 1 644 -> file 3 644",
        "b/f: file 3 644 -> file 1 644",
        "b/new.txt: nothing -> file 4 640",
        "c/f: file 2 644 -> file 4 644",
        "c2: nothing -> folder 755",
        "c2/f: nothing -> file 2 644",
        "d: folder 755 -> nothing",
        "d/f: file 4 644 -> nothing",
        "d/in: folder 755 -> nothing",
        "d/in/deep: file 5 644 -> nothing",
        "e: folder 755 -> folder 750",
        "e/f: file 6 644 -> nothing",
        "moved: nothing -> folder 755",
        "moved/deep: nothing -> file 5 644 from d/in/deep",
    ];
    for view in [OVERLAY, COPY] {
        let workspace = Workspace::new();
        for (name, text) in [
            ("a/f", "a"),
            ("b/f", "bbb"),
            ("c/f", "cc"),
            ("d/f", "dddd"),
            ("d/in/deep", "ddddd"),
            ("e/f", "eeeeee"),
        ] {
            workspace.write(name, text);
        }
        let (product, report, said) = run(&workspace, view, RENAMES).await;
        assert!(said.contains("bbbaddddddddd"), "{said}");
        let manifest = manifest(&product, &report);
        assert_eq!(told(&manifest), expected, "{view}");
        assert_eq!(content(&product, &report, "c2/f"), b"cc");
        assert_eq!(manifest["skipped"], json!([]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_settings_of_the_agent_is_in_no_view_and_stays() {
    for view in [OVERLAY, COPY] {
        let workspace = Workspace::new();
        workspace.write("elsewhere/plugin.js", "");
        std::os::unix::fs::symlink("elsewhere", workspace.at(".opencode")).expect("a link");
        let (product, report, said) = run(&workspace, view, "ls -A; echo made >made").await;
        assert!(said.contains("elsewhere") && !said.contains(".opencode"), "{said}");
        assert!(report["remarks"].to_string().contains(".opencode"), "{report:#}");
        assert_eq!(lines(&report), ["made: added"]);
        product.call(["apply", "last"]).await.assert_code(0);
        assert!(workspace.at(".opencode").is_symlink() && workspace.at("made").exists());
    }
}
