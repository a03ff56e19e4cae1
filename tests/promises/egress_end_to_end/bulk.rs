//! Much, slow and unfinished traffic: the run goes on, and its end ends all of it.

use std::time::Duration;

use rustix::process::Signal;

use super::Outing;
use crate::common::internet::sites::BIG;
use crate::common::{Answer, Reply};
use crate::common::{Gate, Internet, Part, Script, Workspace, eventually};

const CONFIG: &str = "[egress]\nallow = [\"shop.example.com\"]\n";

/// Soon every connection to the internet is closed.
async fn all_closed(internet: &Internet) {
    let open = || internet.visits().into_iter().filter(|visit| !visit.closed).count();
    eventually("all connections closed", Duration::from_secs(5), || (open() == 0).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_outlives_large_and_slow_servers_and_leaves_no_connection() {
    let Some(internet) = Internet::start() else { return };
    let probes = r#"
        curl -N -sS -m 60 --cacert ca.pem https://shop.example.com/drip > drops.txt 2>/dev/null &
        curl -sS -m 60 http://shop.example.com/drip > /dev/null 2>&1 &
        curl -sS -m 60 --cacert ca.pem https://shop.example.com/hang > /dev/null 2>&1 &
        line big sh -c 'curl -sS -m 60 --cacert ca.pem https://shop.example.com/big | wc -c'
        line big-plain sh -c 'curl -sS -m 60 http://shop.example.com/big | wc -c'
        code hang -m 2 https://shop.example.com/hang
        line up sh -c 'head -c 20000000 /dev/zero | curl -sS -m 60 --cacert ca.pem -o /dev/null -w "%{http_code}" --data-binary @- https://shop.example.com/'
        line up-plain sh -c 'head -c 20000000 /dev/zero | curl -sS -m 60 -o /dev/null -w "%{http_code}" -T - http://shop.example.com/'
        echo "drops: $(tr -d x < drops.txt | wc -c) $([ -s drops.txt ] && echo some)"
        "#;
    let outing = Outing::new(&internet, CONFIG, &[], &[], probes).await;
    outing.assert_lines(&[
        format!("big: {BIG} [0]"),
        format!("big-plain: {BIG} [0]"),
        "hang: 000 200 [28]".into(),
        "up: 200 [0]".into(),
        "up-plain: 200 [0]".into(),
        "drops: 0 some".into(),
    ]);
    all_closed(&internet).await;
    let egress = &outing.report["egress"];
    assert_eq!((&egress["allowed"], &egress["refused"]), (&8.into(), &0.into()), "{egress}");
    let moved = |name: &str| egress[name].as_u64().expect("a number");
    assert!(
        moved("bytes_received") > 2 * BIG as u64 && moved("bytes_sent") > 40_000_000,
        "{egress}"
    );
    let sizes: Vec<_> =
        internet.asked().iter().map(|asked| asked.body.len()).filter(|size| *size > 0).collect();
    assert_eq!(sizes, [20_000_000, 20_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_run_closes_its_tunnels() {
    let Some(internet) = Internet::start() else { return };
    let workspace = Workspace::new();
    workspace.write("ca.pem", internet.authority());
    let command = "
        curl -s http://shop.example.com/drip > /dev/null &
        curl -s https://key.example.com/drip > /dev/null &
        curl -s --cacert ca.pem https://shop.example.com/drip > /dev/null";
    let never = Answer::new([Part::Text("Done.".into())]).behind(&Gate::default());
    let model = internet.model(Script::new(Reply::bash(command)).then(never)).await;
    // One that is passed on as it is, one that is opened for a key, and one of plain HTTP.
    let key =
        "[[credential]]\nhost = \"key.example.com\"\nheader = \"x-key\"\nvalue_env = \"LENT\"\n";
    let product = internet.product(&model).await.config(&format!("{CONFIG}{key}"));
    let product = product.env("LENT", "lent-4f1c9e7a2b63-secret");
    let run = product.start_run(&workspace, ["--json", "go"]);
    eventually("three requests", crate::common::PATIENCE, || {
        (internet.asked().len() == 3).then_some(())
    })
    .await;
    assert!(internet.visits().iter().all(|visit| !visit.closed));
    run.signal(Signal::INT);
    let run = run.wait_within(Duration::from_secs(10)).await;
    product.check_nothing_left().await;
    let report = run.assert_status("cancelled");
    assert_eq!(report["egress"]["allowed"], 3, "{}", report["egress"]);
    all_closed(&internet).await;
}
