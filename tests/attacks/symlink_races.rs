//! Folders that turn into links to the host and back, all the time: for our own code that walks the
//! workspace, and for the engine that mounts what we name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::workspace::walk;
use crate::common::{Model, Product, Script, Workspace};
use crate::inside::script;

const WORD: &str = "word-of-the-host-83f1";

/// A folder of the host that no sandbox may read, write or list.
struct Canary(tempfile::TempDir);

impl Canary {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("sc-").tempdir_in("/tmp").expect("a folder");
        for at in ["", "hooks", "deep/er"] {
            std::fs::create_dir_all(folder.path().join(at)).expect("folders");
            std::fs::write(folder.path().join(at).join(WORD), WORD).expect("a canary");
        }
        std::fs::write(folder.path().join("settings.json"), WORD).expect("a canary");
        // Anyone could write there, if they came there.
        walk(folder.path(), &mut open);
        open(folder.path());
        Self(folder)
    }

    /// Names, contents and times of change.
    fn picture(&self) -> Vec<(PathBuf, Vec<u8>, i64, i64)> {
        use std::os::unix::fs::MetadataExt;
        let mut seen = Vec::new();
        walk(self.0.path(), &mut |path| {
            let meta = path.symlink_metadata().expect("it is there");
            let bytes = std::fs::read(path).unwrap_or_default();
            seen.push((path.to_owned(), bytes, meta.ctime(), meta.ctime_nsec()));
        });
        seen.sort();
        seen
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }
}

fn open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o777 } else { 0o666 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
}

/// Exchanges each name with a link to the host, as fast as it can, until `seconds` are over or for
/// ever. The exchange is one step, so that there is always one of both.
const SWAP: &str = r#"
import ctypes, os, sys, time
host, seconds, names = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
rename = ctypes.CDLL(None).renameat2
for name in names:
    if os.path.islink(name):  # as an earlier run left it
        os.unlink(name)
    os.makedirs(name, exist_ok=True)
    open(name + "/settings.json", "w").write("ours")
    if not os.path.islink(name + ".link"):
        os.path.isdir(name + ".link") and os.rename(name + ".link", name + str(time.time()))
        os.symlink(host, name + ".link")
open("swapping", "w").close()
end = time.time() + seconds
count = 0
while time.time() < end:
    for name in names:
        if rename(-100, name.encode(), -100, (name + ".link").encode(), 2) == 0:
            count += 1
print("swaps", count, flush=True)
"#;

fn assert_clean(text: &str) {
    assert!(!text.contains(WORD), "what is on the host shows: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_and_the_host_stay_intact() {
    let canary = Canary::new();
    let before = canary.picture();
    let home = Workspace::new();
    home.write("swap.py", SWAP);
    for name in ["was/there/file.txt", "was/other.txt", "steady.txt"] {
        home.write(name, "before\n");
    }
    // Goes on after the agent's end, until the container dies, and begins again with links left.
    let command = format!(
        "echo after > steady.txt; mkdir -p new/deep; echo x > new/deep/file;
         (setsid python swap.py {0} 60 was new was/there > /dev/null 2>&1 &) ;
         until [ -e swapping ]; do sleep 0.1; done; sleep 1;
         python swap.py {0} 1 third",
        canary.path()
    );
    let rounds = ["first round", "second round", "third round"];
    let model = Model::routed(rounds.map(|task| (task, script(&command)))).await;
    let product = Product::with_model(&model).await;
    for round in rounds {
        let run = product.run(&home, ["--json", "--timeout", "60", round]).await;
        let report = run.assert_status("completed");
        assert_eq!(canary.picture(), before, "round {round}");
        assert_clean(&report.to_string());
        assert_clean(&run.stderr);
        let files = report["changes"]["files"].as_array().expect("changes");
        assert!(files.iter().any(|file| file["path"] == "probes.txt"), "{report:#}");
        for file in files {
            let path = file["path"].as_str().expect("a path");
            assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
        }
        walk(&product.folder("state"), &mut |path| {
            if path.is_file() {
                assert_clean(&String::from_utf8_lossy(&std::fs::read(path).expect("a record")));
            }
        });
        std::fs::remove_file(home.at("swapping")).expect("it swapped");
        let swaps = crate::inside::told(&home);
        let count = swaps.split_whitespace().last().and_then(|word| word.parse::<u64>().ok());
        assert!(count.is_some_and(|count| count > 1000), "it swapped: {swaps}");
    }
    product.check_nothing_left().await;
}

/// Somebody who may write to the workspace swaps a place that gets hidden from the agent, while runs start in
/// it: what the engine mounts for them is looked up by name, after we looked.
#[tokio::test(flavor = "multi_thread")]
async fn no_run_gets_the_host_mounted() {
    let canary = Canary::new();
    let before = canary.picture();
    let home = Workspace::new();
    home.write(".opencode/settings.json", "ours");
    std::os::unix::fs::symlink(canary.path(), home.at("link")).expect("a link");
    let look =
        "cat .opencode/settings.json; grep -rl word-of-the-hos[t] .; echo evil > .opencode/evil";
    let script = Script::bash(look).then_say("Looked.");
    let rounds = ["a", "b", "c", "d", "e", "f", "g", "h"].map(|name| format!("task {name}."));
    let model = Model::routed(rounds.each_ref().map(|task| (task.as_str(), script.clone()))).await;
    let product = Product::with_model(&model).await;
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = swap(home.at(".opencode"), home.at("link"), stop.clone());

    for round in &rounds {
        let run = product.run(&home, ["--json", "--timeout", "30", round]).await;
        let report = run.report();
        assert_clean(&format!("{} {report}", run.stderr));
        assert_eq!(canary.picture(), before, "{round}");
        if report["status"] != "completed" {
            // Refused by us or by the runtime: it is a link, or it changed while it was looked at
            // or mounted.
            let message = report["error"]["message"].as_str().expect("a message");
            let known = ["link", "replaced", "did not start the container"]
                .iter()
                .any(|word| message.contains(word));
            assert!(known, "{report:#}\n{}", run.stderr);
        }
    }
    for step in model.steps() {
        assert_clean(&step.said_by("tool"));
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swapping.join().expect("it swapped");
    assert!(swaps > 1000, "{swaps}");
    assert_eq!(canary.picture(), before);
    product.check_nothing_left().await;
}

/// Exchanges the two until told to stop, and ends with each at its own place.
fn swap(one: PathBuf, other: PathBuf, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    std::thread::spawn(move || {
        let mut swaps = 0;
        while !stop.load(Ordering::Relaxed) || swaps % 2 == 1 {
            swaps +=
                u64::from(renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok());
        }
        swaps
    })
}
