//! Attacks on a view of its own: on the folder below it, on what the kernel writes down in its
//! layer, and on whoever reads that layer afterwards.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::workspace::walk;
use crate::common::{Model, Product, Script, Workspace};

const WORD: &str = "word-of-the-host-5ac2";

fn picture(folder: &Path) -> Vec<(PathBuf, Vec<u8>, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut seen = Vec::new();
    walk(folder, &mut |path| {
        let meta = path.symlink_metadata().expect("it is there");
        let bytes = if meta.is_file() { std::fs::read(path).expect("read") } else { Vec::new() };
        seen.push((path.to_owned(), bytes, meta.ctime(), meta.ctime_nsec()));
    });
    seen.sort();
    seen
}

const TRICKS: &str = r#"
import ctypes, os, shutil, socket, sys
rename = ctypes.CDLL(None, use_errno=True).renameat2
def probe(name, what):
    try:
        what()
        print(name, "done")
    except OSError as error:
        print(name, "refused")
def whiteout():
    if rename(-100, b"for-whiteout", -100, b"renamed", 4):
        raise OSError(ctypes.get_errno(), "rename")
def write(name):
    with open(name, "a") as file:
        file.write("evil")
probe("mknod whiteout", lambda: os.mknod("whiteout", 0o020600, os.makedev(0, 0)))
probe("rename whiteout", whiteout)
probe("hard link", lambda: (os.link("base.txt", "hard.txt"), write("hard.txt")))
probe("link for folder", lambda: (shutil.rmtree("folder"), os.symlink(sys.argv[1], "folder")))
probe("link for file", lambda: (os.unlink("named.txt"), os.symlink(sys.argv[1] + "/secret", "named.txt")))
probe("fifo for file", lambda: (os.unlink("pipe.txt"), os.mkfifo("pipe.txt")))
probe("socket", lambda: socket.socket(socket.AF_UNIX).bind("socket.txt"))
probe("sparse", lambda: open("sparse.txt", "w").truncate((10 << 30) + (1 << 20)))
probe("sparser", lambda: open("sparser.txt", "w").truncate(1 << 43))
probe("ignore rules", lambda: open(".gitignore", "w").write("*\n"))
for mark in ["opaque", "whiteout", "redirect", "metacopy", "origin"]:
    for name in ["marked.txt", "marked"]:
        try:
            os.setxattr(name, "user.overlay." + mark, b"y")
        except OSError:
            pass
print("tried")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_no_way_to_the_folder_below_or_to_who_reads_it() {
    for view in ["overlay", "copy"] {
        let host = tempfile::Builder::new().prefix("sc-").tempdir_in("/tmp").expect("a folder");
        std::fs::write(host.path().join("secret"), WORD).expect("a canary");
        std::os::unix::fs::chown(host.path(), Some(1000), Some(1000)).expect("chown");
        let home = Workspace::new();
        for name in [
            "base.txt",
            "folder/a.txt",
            "named.txt",
            "pipe.txt",
            "marked.txt",
            "marked/kept.txt",
            "for-whiteout",
        ] {
            home.write(name, "base\n");
        }
        let (ours, theirs) = (picture(home.path()), picture(host.path()));
        let command = format!("python3 - {} <<'E'\n{TRICKS}\nE", host.path().display());
        let model = Model::start(Script::bash(&command).then_say("Tried.")).await;
        let config = format!("[workspace]\nisolation = \"{view}\"\n");
        let product = Product::with_model(&model).await.config(&config);
        let args = ["--json", "--mode", "isolated", "--timeout", "120", "attack"];
        let run = product.run(&home, args).await;
        let report = run.assert_status("completed");
        let told = model.step(2).await.said_by("tool");
        assert!(told.contains("tried"), "{told}");
        assert!(told.contains("mknod whiteout refused"), "{told}");
        assert!(told.contains("sparse done") && told.contains("sparser refused"), "{told}");
        for done in ["hard link", "link for folder", "link for file", "fifo for file"] {
            assert!(told.contains(&format!("{done} done")), "{view}: {told}");
        }
        assert_eq!(picture(home.path()), ours, "the folder below");
        assert_eq!(picture(host.path()), theirs);

        let runs = product.folder("state").join("runs");
        walk(&runs, &mut |path| {
            let kind = path.symlink_metadata().expect("it is there").file_type();
            assert!(kind.is_dir() || kind.is_file(), "{}", path.display());
            if kind.is_file() {
                let bytes = std::fs::read(path).expect("a record");
                assert!(!String::from_utf8_lossy(&bytes).contains(WORD), "{}", path.display());
            }
        });
        let list = runs.join(report["run_id"].as_str().expect("an id")).join("changes.json");
        let list: Value =
            serde_json::from_slice(&std::fs::read(list).expect("a list")).expect("JSON");
        let after = |path: &str| {
            let changes = list["changes"].as_array().expect("changes");
            changes.iter().find(|change| change["path"] == path).map(|change| &change["after"])
        };
        assert_eq!(after("folder").expect("it")["kind"], "link");
        assert_eq!(after("folder/a.txt").expect("it"), &Value::Null);
        assert_eq!(after("named.txt").expect("it")["kind"], "link");
        assert_eq!(after("hard.txt").expect("it")["size"], 9);
        assert!(after("marked/kept.txt").is_none(), "a forged mark deletes nothing: {list:#}");
        let skipped = list["skipped"].to_string();
        for word in ["pipe.txt", "fifo", "larger than what may be kept"] {
            assert!(skipped.contains(word), "{skipped}");
        }
        assert_eq!(list["complete"], true, "the sparse file is left out alone");
        product.check_nothing_left().await;
        assert!(!product.folder("state").join("layers/spare").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_without_end_end_the_run_and_go_with_it() {
    let home = Workspace::new();
    let dig =
        "import os, time\nfor i in range(100000):\n  os.mkdir('d'); os.chdir('d')\ntime.sleep(60)";
    let command = format!("python3 - <<'E'\n{dig}\nE");
    let model = Model::start(Script::bash(&command).then_say("Never.")).await;
    let product = Product::with_model(&model).await;
    let args = ["--json", "--mode", "isolated", "--timeout", "120", "dig"];
    let report = product.run(&home, args).await.assert_status("budget_exhausted");
    assert!(report["error"]["message"].to_string().contains("deep"), "{report:#}");
    assert_eq!(report["changes"]["truncated"], true);
    assert_eq!(home.names(), [] as [&str; 0]);
    product.check_nothing_left().await;
    let layers = std::fs::read_dir(product.folder("state").join("layers")).expect("layers");
    assert_eq!(layers.count(), 0);
}
