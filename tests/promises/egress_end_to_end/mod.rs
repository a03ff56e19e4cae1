//! What is allowed is reached from inside of a real sandbox, and nothing else is, on an internet
//! of our own (see [`crate::common::internet`]).
//!
//! Every probe writes one line, and all lines are compared: a probe that did not run fails as one
//! that got through does. The servers' own logs are the second witness.

mod allowed;
mod bulk;
mod credentials;
mod hostile;
mod refused;

use serde_json::Value;

use crate::common::{Internet, Product, Script, Workspace};

/// Where probes write their lines.
const TOLD: &str = "probes.txt";

/// For every probe: `line NAME COMMAND…` runs a command and says how it ended; `code NAME URL…` what
/// curl was answered (code of the answer, code of the CONNECT, exit code).
const TOOLS: &str = r#"
line() { name=$1; shift; out=$("$@" 2>>noise.txt); echo "$name: $out [$?]"; }
code() {
    name=$1; shift
    said=$(curl -sS -m 10 -o /dev/null -w '%{http_code} %{http_connect}' --cacert ca.pem "$@" 2>>noise.txt)
    echo "$name: $said [$?]"
}
"#;

/// Lines of a script, and what each is to say.
#[derive(Default)]
struct Probes {
    script: String,
    expected: Vec<String>,
}

impl Probes {
    /// `command` is one of the tools and its arguments, without the probe's name.
    fn add(&mut self, command: &str, says: &str) {
        let name = format!("p{}", self.expected.len());
        let line = command.replacen(' ', &format!(" {name} "), 1);
        self.script.push_str(&line);
        self.script.push('\n');
        self.expected.push(format!("{name}: {says}"));
    }
}

/// One run on an internet.
struct Outing {
    probes: String,
    told: String,
    report: Value,
    product: Product,
    workspace: Workspace,
}

impl Outing {
    /// Runs the probes in a sandbox with this configuration, to their end.
    async fn new(
        internet: &Internet,
        config: &str,
        env: &[(&str, &str)],
        files: &[(&str, &str)],
        probes: &str,
    ) -> Self {
        let workspace = Workspace::new();
        for (name, text) in files.iter().chain(&[("ca.pem", internet.authority())]) {
            workspace.write(name, text);
        }
        let command = format!("(\n{TOOLS}{probes}\n) > {TOLD} 2>&1");
        let model = internet.model(Script::bash(&command).then_say("Tried.")).await;
        let mut product = internet.product(&model).await.config(config);
        for (name, value) in env {
            product = product.env(name, value);
        }
        let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
        product.check_nothing_left().await;
        assert!(workspace.has(TOLD), "the probes did not run: {}", model.tool_results());
        Self { probes: probes.into(), told: workspace.read(TOLD), report, product, workspace }
    }

    /// Every line, in any order.
    #[track_caller]
    fn assert_lines(&self, expected: &[impl AsRef<str>]) {
        let mut told: Vec<&str> = self.told.lines().collect();
        let mut missing = Vec::new();
        for line in expected.iter().map(AsRef::as_ref) {
            match told.iter().position(|told| *told == line) {
                Some(at) => drop(told.remove(at)),
                None => missing.push(line),
            }
        }
        // The probes behind those lines.
        let tried: Vec<_> = missing
            .iter()
            .filter_map(|line| Some(format!(" {} ", line.split_once(':')?.0)))
            .filter_map(|name| self.probes.lines().find(|line| line.contains(&name)))
            .collect();
        let noise = std::fs::read(self.workspace.at("noise.txt")).unwrap_or_default();
        assert!(
            told.is_empty() && missing.is_empty(),
            "unexpected: {told:#?}\nmissing: {missing:#?}\ntried: {tried:#?}\nnoise: {}",
            String::from_utf8_lossy(&noise)
        );
    }

    /// The record of every attempt.
    fn attempts(&self) -> Vec<Value> {
        let id = self.report["run_id"].as_str().expect("an id");
        let path = self.product.folder("state").join("runs").join(id).join("egress.jsonl");
        let text = std::fs::read_to_string(&path).expect("the record");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}
