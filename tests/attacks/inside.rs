//! How an attack gets in and what it saw gets out.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::common::{Model, Product, Script, Workspace};

/// Where an attack's probes write their lines.
const TOLD: &str = "probes.txt";

/// What an attack saw.
pub struct Seen {
    /// Lines of the probes.
    pub told: String,
    pub report: Value,
}

/// The agent runs `command` in the workspace and keeps what it prints.
pub fn probes(command: &str) -> Script {
    Script::bash(&format!("(\n{command}\n) > {TOLD} 2>&1"))
}

/// The same, and then it ends.
pub fn script(command: &str) -> Script {
    probes(command).then_say("Tried.")
}

/// Has the real agent run `command` in the workspace, in a sandbox of its own.
pub async fn attack(workspace: &Workspace, command: &str) -> Seen {
    let model = Model::start(script(command)).await;
    let product = Product::with_model(&model).await;
    let run = product.run(workspace, ["--json", "--timeout", "120", "attack"]).await;
    let report = run.assert_status("completed");
    product.check_nothing_left().await;
    Seen { told: told(workspace), report }
}

/// What the probes have printed, of a run whose changes are applied.
#[track_caller]
pub fn told(workspace: &Workspace) -> String {
    assert!(workspace.has(TOLD), "the attack did not run");
    String::from_utf8_lossy(&std::fs::read(workspace.at(TOLD)).expect("its lines")).into_owned()
}

/// Every line, and no other, in any order.
#[track_caller]
pub fn assert_lines(told: &str, expected: &str) {
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (text, weight) in [(told, 1), (expected, -1)] {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            *counts.entry(line).or_default() += weight;
        }
    }
    let of = |wanted: fn(i32) -> bool| -> Vec<&str> {
        counts.iter().filter(|(_, count)| wanted(**count)).map(|(line, _)| *line).collect()
    };
    let (unexpected, missing) = (of(|count| count > 0), of(|count| count < 0));
    assert!(
        unexpected.is_empty() && missing.is_empty(),
        "unexpected: {unexpected:#?}\nmissing: {missing:#?}"
    );
}
