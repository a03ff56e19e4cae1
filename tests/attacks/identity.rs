//! What the sandbox can learn about the machine: no engine, no other socket, no identity. The paths
//! of what is mounted do show: the kernel tells every process the sources of its mounts.

use crate::common::{Model, Product, Workspace};
use crate::inside::{assert_lines, script, told};

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_is_not_known() {
    let home = Workspace::new();
    home.write("probes.py", include_str!("inside/identity.py"));
    let model = Model::start(script("python probes.py")).await;
    let product = Product::with_model(&model).await;
    let run = product.run(&home, ["--json", "attack"]).await;
    let report = run.assert_status("completed");
    product.check_nothing_left().await;

    let id = report["run_id"].as_str().expect("an id");
    let sockets = product.folder("run").join("sandbox-mcp").join(id);
    let told = told(&home)
        .replace(sockets.to_str().expect("UTF-8"), "RUN")
        .replace(product.folder("state/layers").join(id).to_str().expect("UTF-8"), "LAYER");
    let (mounts, rest): (Vec<&str>, Vec<&str>) =
        told.lines().partition(|line| line.starts_with("mount source "));
    assert!(mounts.len() > 4, "{mounts:#?}");
    for mount in mounts {
        let source = mount.rsplit(' ').next().expect("a source");
        // On an engine that does not see our files, they are copies in a volume of the run's.
        let is_copy = source.contains(&format!("/sandbox-mcp-{id}-files/_data/"));
        let is_ours = ["LAYER/", "RUN/"].iter().any(|start| source.starts_with(start));
        assert!(is_ours || is_copy, "{mount}");
    }
    let rest: Vec<String> = rest.into_iter().map(of_any_engine).collect();
    assert_lines(&rest.join("\n"), include_str!("expected/identity.txt"));
}

/// The path of a control group differs from one engine to another.
fn of_any_engine(line: &str) -> String {
    if line.starts_with("control groups ") {
        let namespaced = line == "control groups ['/']";
        let by_id = line.matches("ID").count() == 1 && !line.contains("user");
        return format!("control groups known by an id at most: {}", namespaced || by_id);
    }
    line.to_owned()
}
