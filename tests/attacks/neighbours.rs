//! Two runs at once, of one owner: one hunts for what the other has.

use crate::common::{Model, Product, Workspace};
use crate::inside::{assert_lines, script, told};

/// The gateway's, of the run itself.
const SOCKETS: &str = "[]";

#[tokio::test(flavor = "multi_thread")]
async fn do_not_see_each_other() {
    let model = Model::routed([
        ("stay here", script("python neighbour.py stay")),
        ("hunt now", script("python neighbour.py hunt")),
    ])
    .await;
    let product = Product::with_model(&model).await;
    let (one, other) = (Workspace::new(), Workspace::new());
    for home in [&one, &other] {
        home.write("neighbour.py", include_str!("inside/neighbour.py"));
    }

    let staying = product.start_run(&one, ["--json", "stay here"]);
    product.made("ready").await;
    let hunting = product.run(&other, ["--json", "hunt now"]).await;
    product.put_beside("ready", "stop").await;
    hunting.assert_status("completed");
    staying.wait().await.assert_status("completed");
    product.check_nothing_left().await;

    let things = [
        "file in /tmp",
        "file in shared memory",
        "file at home",
        "port",
        "abstract socket",
        "abstract socket listed",
        "port listed",
        "System V memory",
        "message queue",
        "process",
    ];
    for (home, name, seen) in [(&one, "own", "SEEN"), (&other, "other", "unseen")] {
        let mut expected: Vec<String> =
            things.iter().map(|thing| format!("{name} {thing}: {seen}")).collect();
        expected.push(format!("{name} sockets: {SOCKETS}"));
        expected.push(format!("{name} folders of other runs: []"));
        assert_lines(&told(home), &expected.join("\n"));
    }
}
