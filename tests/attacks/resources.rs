//! Using up what there is: every run ends with a type, the host stays usable, and the next run works.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Finished, Model, Product, Script, Workspace};
use crate::inside::{assert_lines, script, told};

/// Small, so that they are reached soon.
const LIMITS: &str = "[limits]\nmemory = \"1g\"\npids = 128\ntmp = \"64m\"\nhome = \"16m\"\n";

/// How long anything on the host may take while a sandbox rages: far above the usual milliseconds.
const RESPONSIVE: Duration = Duration::from_secs(10);

/// Runs `attack` until it ends or is ended, and looks at the host meanwhile.
async fn rage(attack: &str, timeout: &str) -> (Finished, Workspace) {
    let model = Model::routed([
        ("rage", script(attack)),
        ("next", Script::bash("echo fine > next.txt").then_say("Fine.")),
    ])
    .await;
    let product = Product::with_model(&model).await.config(LIMITS);
    let home = Workspace::new();
    let run = product.start_run(&home, ["--json", "--timeout", timeout, "rage"]);
    model.step(1).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        let out = tokio::process::Command::new("sh")
            .args(["-c", "echo 1; exec true"])
            .output()
            .await
            .expect("the host starts a process");
        assert!(out.status.success());
        assert!(began.elapsed() < RESPONSIVE, "the host took {:?}", began.elapsed());
    }
    let run = run.wait().await;
    let next = product.run(&home, ["--json", "--timeout", "60", "next"]).await;
    next.assert_status("completed");
    assert_eq!(home.read("next.txt"), "fine\n");
    product.check_nothing_left().await;
    (run, home)
}

/// It may have survived its own attack, or been ended for it; both have a name.
#[track_caller]
fn assert_typed(run: &Finished) {
    let report = run.report();
    let status = report["status"].as_str().expect("a status");
    let typed = ["completed", "timed_out", "out_of_memory", "failed", "no_output"];
    assert!(typed.contains(&status), "{report:#}\n{}", run.stderr);
    assert!(status == "completed" || report["error"]["message"].is_string(), "{report:#}");
    assert!(run.took < Duration::from_secs(90), "{:?}", run.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_at_its_limit() {
    let model = Model::start(script("python exhaust.py")).await;
    let product = Product::with_model(&model).await.config(LIMITS);
    let home = Workspace::new();
    let policy = product.call(["policy", "--json"]).await;
    let policy: Value = serde_json::from_str(&policy.stdout).expect("JSON");
    let size = |path: &str| {
        let all = policy["tmpfs"].as_array().expect("tmpfs").iter();
        all.clone().find(|tmpfs| tmpfs["path"] == path).expect("it is there")["size"].clone()
    };
    let limits = json!({
        "/tmp": size("/tmp"), "/home/agent": size("/home/agent"), "tmp": size("/tmp"),
        "/dev/shm": policy["shared_memory"], "pids": policy["pids"],
        "open_files": policy["open_files"],
    });
    home.write("limits.json", &limits.to_string());
    home.write("exhaust.py", include_str!("inside/exhaust.py"));
    let run = product.run(&home, ["--json", "--timeout", "120", "attack"]).await;
    run.assert_status("completed");
    assert_lines(&told(&home), include_str!("expected/exhaust.txt"));
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb() {
    let (run, _) = rage("bomb() { bomb | bomb & }; bomb; sleep 30", "30").await;
    assert_typed(&run);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_bomb_of_many() {
    let greedy = "import os, time\nfor _ in range(20): os.fork()\nx = [bytearray(b'x' * (8 << 20)) for _ in range(100)]\ntime.sleep(30)";
    let (run, _) = rage(&format!("python -c \"{greedy}\""), "30").await;
    assert_typed(&run);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_at_once() {
    let all = "
        for n in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done
        (while :; do cat /dev/zero > /tmp/full; done) 2> /dev/null &
        (while :; do cat /dev/zero > /dev/shm/full; done) 2> /dev/null &
        (while :; do ls -lR / ; done) > /dev/null 2>&1 &
        yes > /proc/self/fd/2 &
        python -c 'import ctypes, os
libc = ctypes.CDLL(None)
for i in range(1 << 16):
    fd = libc.inotify_init1(0)
    if fd < 0: break
    libc.inotify_add_watch(fd, b\"/workspace\", 0xfff)
' &
        sleep 6; kill $(jobs -p); rm -f /tmp/full /dev/shm/full; echo survived";
    let quiet = format!("({all}) 2> /dev/null");
    let (run, home) = rage(&quiet, "40").await;
    assert_typed(&run);
    if run.report()["status"] == "completed" {
        assert!(told(&home).contains("survived"));
    }
}
