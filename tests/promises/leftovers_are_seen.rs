//! The check that ends every other test can fail: it sees each kind of thing that a run could leave.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use crate::common::{Product, engine};

/// Shaped like a run's id, and no real run's.
const RUN: &str = "20000101-000000-test";

#[tokio::test(flavor = "multi_thread")]
async fn containers_volumes_networks_files_and_processes() {
    let product = Product::new().await;
    let seen = |what: &str| product.leftovers().now().iter().any(|line| line.contains(what));
    assert_eq!(product.leftovers().now(), [] as [&str; 0]);
    let pid = std::process::id();
    product.leftovers().watch(pid);
    let run = format!("sandbox-mcp.run={RUN}");
    let owner = format!("sandbox-mcp.owner={pid}.1.00000000-0000-0000-0000-000000000000");

    let image = engine::docker(["images", "-q", "sandbox-mcp"]);
    let image = image.lines().next().expect("the image is built");
    let labels = ["--label", &run, "--label", &owner];
    let [a, b, c, d] = labels;
    let container = engine::docker(["create", a, b, c, d, "--network", "none", image, "true"]);
    assert!(seen("container"));
    engine::docker(["rm", "-f", container.trim()]);
    let volume = engine::docker(["volume", "create", a, b, c, d]);
    assert!(seen("volume"));
    engine::docker(["volume", "rm", volume.trim()]);
    let network = engine::docker(["network", "create", "--internal", a, b, c, d, RUN]);
    assert!(seen("network"));
    engine::docker(["network", "rm", network.trim()]);

    let socket = product.folder("state").join("a.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    assert!(seen("a.sock"));
    drop(listener);
    std::fs::remove_file(socket).expect("ours");
    let folder = product.folder("run").join("sandbox-mcp").join(RUN);
    std::fs::create_dir_all(&folder).expect("a folder");
    assert!(seen(RUN));
    std::fs::remove_dir(folder).expect("ours");
    std::fs::write(product.folder("tmp").join("scratch"), "").expect("a file");
    assert!(seen("scratch"));
    std::fs::remove_file(product.folder("tmp").join("scratch")).expect("ours");

    let mut child = Command::new("sleep");
    child.env("SANDBOX_MCP_STATE_DIR", product.folder("state"));
    let mut child = child.arg("600").stdin(Stdio::null()).spawn().expect("sleep");
    crate::common::eventually("the process to be seen", crate::common::PATIENCE, || {
        seen("sleep").then_some(())
    })
    .await;
    child.kill().expect("our child");
    child.wait().expect("our child");

    product.check_nothing_left().await;
}
