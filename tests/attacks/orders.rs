//! Speaking in the name of PID 1: ending the agent's order before its time, or forging what the
//! caller's check said.

use std::time::Duration;

use serde_json::json;

use crate::common::{Answer, Gate, Model, Part, Product, Reply, Script, Workspace};
use crate::inside::{assert_lines, probes, told};

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_by_pid_1_alone() {
    let script = probes("python orders.py")
        // Far behind the forged end: what happens here shows that it was none.
        .then_bash(
            "for n in $(seq 100); do [ -e alive ] || sleep 0.1; done; echo later > later.txt",
        )
        .then(Reply::say("Tried."));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let home = Workspace::new();
    home.write("orders.py", include_str!("inside/orders.py"));
    // What still lives would make the file anew.
    let check = "rm -f alive; sleep 0.5; ls -d /proc/[0-9]* | wc -l; [ ! -e alive ] && exit 5";

    let run = product.run(&home, ["--json", "--timeout", "120", "--verify", check, "attack"]).await;

    let report = run.assert_status("completed");
    // The check failed, so the changes wait.
    assert!(!home.has("later.txt"));
    product.call(["apply", "last"]).await.assert_code(0);
    assert_lines(&told(&home), include_str!("expected/orders.txt"));
    assert_eq!(report["answer"], "Tried.");
    assert_eq!(home.read("later.txt"), "later\n");
    let after = &report["verify"]["after"];
    assert_eq!((&after["exit_code"], &after["timed_out"]), (&json!(5), &json!(false)), "{after:#}");
    // PID 1, the shell and what it counts with: nothing else, and no words but its.
    let count: u32 = after["output"].as_str().and_then(|text| text.parse().ok()).expect("a number");
    assert!((2..=4).contains(&count), "{count} processes");
    assert_eq!(report["verify"]["passed"], false);
    run.assert_code(1);
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_for_its_memory_is_told_from_one_that_ends() {
    // Many small ones, and the agent made the first to go.
    let greedy = "
import os, time
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        if pid != '1' and b'opencode' in open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\\0')[0]:
            open(f'/proc/{pid}/oom_score_adj', 'w').write('1000')
    except OSError:
        pass
for _ in range(5): os.fork()
held = [bytearray(b'x' * (1 << 20)) for _ in range(40)]
time.sleep(60)
";
    let model = Model::start(probes("python greedy.py").then_say("never asked")).await;
    let product = Product::with_model(&model).await.config("[limits]\nmemory = \"700m\"\n");
    let home = Workspace::new();
    home.write("greedy.py", greedy);

    let run = product.run(&home, ["--json", "--timeout", "60", "--verify", "true", "attack"]).await;

    let report = run.assert_status("out_of_memory");
    assert_eq!(report["verify"]["after"]["exit_code"], 0, "the sandbox lives on: {report:#}");
    assert_eq!(report["continued"], json!([]));
    product.check_nothing_left().await;
}

/// The numbers in the files of one process, by a patch in which all of them are new.
fn numbers(patch: &str, name: &str) -> Vec<i64> {
    let part = |file: u32| {
        let head = format!("+++ b/{name}/{file}\n");
        let (_, rest) = patch.split_once(&head)?;
        rest.lines().find_map(|line| line.strip_prefix('+')?.parse().ok())
    };
    (0..50).map_while(part).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_on_while_paused() {
    let gate = Gate::default();
    let script = Script::bash("nohup python restless.py >/dev/null 2>&1 & sleep 2; ls")
        .then(Answer::new([Part::Text("Tried.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let home = Workspace::new();
    home.write("restless.py", include_str!("inside/restless.py"));
    let run = product.start_run(&home, ["--json", "--mode", "isolated", "attack"]);
    model.step(2).await;
    let mut first = None;
    let mut last = [0; 4];
    for _ in 0..5 {
        let diff = product.call(["diff", "last"]).await;
        diff.assert_code(0);
        let all = ["headless", "waking", "forking", "vforking"];
        for (last, name) in last.iter_mut().zip(all) {
            let numbers = numbers(&diff.stdout, name);
            assert_eq!(numbers.len(), 50, "{name}: {}", diff.stdout);
            assert!(numbers.is_sorted_by(|one, next| one >= next), "{name}: {numbers:?}");
            assert!(numbers[0] - numbers[49] <= 1, "{name}: {numbers:?}");
            *last = numbers[0];
        }
        first.get_or_insert(last);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let first = first.expect("a look");
    assert!(first.iter().zip(&last).all(|(one, next)| one < next), "{first:?} {last:?}");
    gate.open();
    run.wait().await.assert_status("completed");
    product.check_nothing_left().await;
}

/// A timer of the kernel's wakes a stopped process, and PID 1 cannot stop that: such a look is thrown
/// away. Where the stop came with a signal of the timer's, that ends the timer, and the look is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_wakes_itself_spoils_no_look() {
    let waking = "
import ctypes, os, signal
# Of an ignored signal a kernel would tell the timer no more.
signal.signal(18, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
class Event(ctypes.Structure):
    _fields_ = [('value', ctypes.c_long), ('signal', ctypes.c_int), ('notify', ctypes.c_int), ('rest', ctypes.c_byte * 48)]
event, period = Event(0, 18, 0), (ctypes.c_long * 4)(0, 5_000_000, 0, 5_000_000)
def wind():
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) == 0
    assert libc.timer_settime(timer, 0, ctypes.byref(period), None) == 0
os.makedirs('self')
files = [os.open(f'self/{n}', os.O_CREAT | os.O_WRONLY) for n in range(50)]
# A signal that is thrown away with a stop stops its timer too, so there are many.
for _ in range(200):
    wind()
open('ready', 'w').close()
number = 0
while True:
    for file in files:
        os.pwrite(file, b'%08d\\n' % number, 0)
    number += 1
";
    let gate = Gate::default();
    let start = "nohup python waking.py >/dev/null 2>&1 & \
                 for n in $(seq 100); do [ -e ready ] || sleep 0.1; done; ls ready";
    let script = Script::bash(start).then(Answer::new([Part::Text("Tried.".into())]).behind(&gate));
    let model = Model::start(script).await;
    let product = Product::with_model(&model).await;
    let home = Workspace::new();
    home.write("waking.py", waking);
    let run = product.start_run(&home, ["--json", "--mode", "isolated", "attack"]);
    assert!(!model.step(2).await.said_by("tool").contains("No such file"));
    for _ in 0..5 {
        let diff = product.call(["diff", "last"]).await;
        if diff.code == Some(0) {
            let numbers = numbers(&diff.stdout, "self");
            assert_eq!(numbers.len(), 50, "{diff:?}");
            assert!(numbers.is_sorted_by(|one, next| one >= next), "{numbers:?}");
            assert!(numbers[0] - numbers[49] <= 1, "{numbers:?}");
            continue;
        }
        let noticed = ["a process ran meanwhile", "a process does not stop"];
        assert!(noticed.iter().any(|why| diff.stderr.contains(why)), "{diff:?}");
    }
    gate.open();
    run.wait().await.assert_status("completed");
    product.check_nothing_left().await;
}
