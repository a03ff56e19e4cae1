//! From the making of a gateway's folder to its removal.

use std::time::Duration;

use crate::gateway::testing::{Bench, limits, question};
use crate::gateway::{Egress, Gateway, Options};
use crate::model::Endpoint;
use crate::model::testing::{Server, text};

#[tokio::test]
async fn closing_drops_what_is_under_way_and_leaves_nothing() {
    let (told, mut hung_up) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |_, _, mut line| {
        let told = told.clone();
        async move {
            line.begin_stream().await;
            line.event(&text("one")).await;
            line.hung_up().await;
            let _ = told.send(());
        }
    })
    .await;
    let limits = crate::gateway::Limits { stall_timeout: Duration::from_secs(60), ..limits() };
    let bench = Bench::with(crate::gateway::testing::endpoint(&server.url()), limits).await;
    let mut response = bench.post(&question()).await;
    response.chunk().await.expect("a piece");
    let Bench { gateway, place, .. } = bench;
    let closing = tokio::time::timeout(Duration::from_secs(2), gateway.close()).await;
    let record = closing.expect("at once").expect("closed");
    assert_eq!((record.requests, record.faults), (1, 0));
    assert_eq!(std::fs::read_dir(place.path()).expect("a folder").count(), 0);
    tokio::time::timeout(Duration::from_secs(2), hung_up.recv()).await.expect("the server is told");
    response.chunk().await.expect_err("the agent is cut off");
}

#[tokio::test]
async fn dropping_leaves_nothing_either_even_in_a_panic() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let folder = place.path().join("run");
    let options = Options {
        folder: folder.clone(),
        owner: None,
        endpoint: Endpoint::rehearsal(),
        limits: limits(),
        egress: Egress::default(),
    };
    let task = tokio::spawn(async move {
        let gateway = Gateway::open(options).await.expect("a gateway");
        assert!(!gateway.folder().join("model.sock").exists(), "on purpose");
    });
    task.await.expect_err("it panicked");
    assert!(!folder.exists());
}

#[tokio::test]
async fn two_gateways_do_not_meet() {
    let one = Bench::with(Endpoint::rehearsal(), limits()).await;
    let two = Bench::with(Endpoint::rehearsal(), limits()).await;
    one.ask().await;
    assert_eq!((one.gateway.record().requests, two.gateway.record().requests), (1, 0));
    let again = Options {
        folder: one.place.path().join("run"),
        owner: None,
        endpoint: Endpoint::rehearsal(),
        limits: limits(),
        egress: Egress::default(),
    };
    Gateway::open(again).await.expect_err("the folder is taken");
    assert_eq!(one.ask().await.0, 200, "and still served");
}
