//! Stopping, starving or deceiving PID 1, which ends the sandbox when its owner or its time is gone.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::{Model, Product, Running, Script, Workspace, engine, eventually};
use crate::inside::{assert_lines, attack, script};

/// "Within seconds", with room for a busy machine.
const SECONDS: Duration = Duration::from_secs(20);

/// How much longer than its agent a container may live, and the agent's time where that counts: on a
/// busy machine it has to load and to begin its siege in it.
const GRACE: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn cannot_be_stopped_or_read() {
    let home = Workspace::new();
    home.write("switch.py", include_str!("inside/switch.py"));
    let seen = attack(&home, "python switch.py probe").await;
    assert_lines(&seen.told, include_str!("expected/switch.txt"));
}

async fn besieged(product: &Product, home: &Workspace, timeout: Duration) -> (Running, String) {
    home.write("switch.py", include_str!("inside/switch.py"));
    let seconds = timeout.as_secs().to_string();
    let run = product.start_run(home, ["--events", "--timeout", &seconds, "besiege"]);
    let container = product.container_of(&run).await;
    product.made("besieged").await;
    (run, first_process(&container))
}

/// PID 1 of the container as this machine sees it. Not asked of the engine afterwards: it may wait
/// for ever for a client that does not read what a container of it says (20.10 does).
fn first_process(container: &str) -> String {
    let pid = engine::docker(["inspect", "-f", "{{.State.Pid}}", container]);
    let process = format!("/proc/{}/stat", pid.trim());
    assert!(runs(&process), "{process}");
    process
}

fn runs(process: &str) -> bool {
    std::fs::read_to_string(process).is_ok_and(|stat| {
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    })
}

/// Kills the owner, and asserts that the container ends by itself and leaves nothing.
async fn ends_with_its_owner(product: &Product, run: Running, process: &str) {
    run.signal(Signal::KILL);
    assert_eq!(run.wait().await.signal, Some(9));
    eventually("the container to end by itself", SECONDS, || (!runs(process)).then_some(())).await;

    // The next start, wherever, takes away what lies there.
    let other = Model::start(Script::say("Fine.")).await;
    let next =
        product.run(&Workspace::new(), ["--json", "--model-url", &other.url(), "next"]).await;
    next.assert_status("completed");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_sandbox_when_the_owner_is_killed() {
    let model = Model::start(script("python switch.py besiege")).await;
    let product = Product::alone(&model).await;
    let home = Workspace::new();
    let (run, process) = besieged(&product, &home, Duration::from_secs(300)).await;
    ends_with_its_owner(&product, run, &process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_the_sandbox_at_its_deadline_without_the_owner() {
    let model = Model::start(script("python switch.py besiege")).await;
    let product = Product::with_model(&model).await;
    let home = Workspace::new();
    let started = Instant::now();
    let (run, process) = besieged(&product, &home, TIMEOUT).await;

    // The owner is there, holds all pipes, reads nothing and does nothing.
    run.signal(Signal::STOP);
    let own_deadline = TIMEOUT + GRACE;
    let bound = own_deadline.saturating_sub(started.elapsed()) + SECONDS;
    eventually("the container to end at its deadline", bound, || (!runs(&process)).then_some(()))
        .await;
    assert!(started.elapsed() > TIMEOUT, "it had its time: {:?}", started.elapsed());

    run.signal(Signal::CONT);
    let run = run.wait().await;
    run.assert_status("timed_out");
    product.check_nothing_left().await;
}

/// What PID 1 has seen in a pipe is gone when it reads.
#[tokio::test(flavor = "multi_thread")]
async fn ends_the_sandbox_though_its_pipes_are_read_by_others() {
    let model = Model::start(script("python switch.py steal")).await;
    let product = Product::alone(&model).await;
    let home = Workspace::new();
    let (run, process) = besieged(&product, &home, Duration::from_secs(300)).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ends_with_its_owner(&product, run, &process).await;
}
