//! `mode = isolated`: a view of its own for each run, the folder untouched, and the result complete.

mod beside_others;
mod both_views;
mod ends;
mod git;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::workspace::walk;
use crate::common::{Model, Product, Reply, Script, Workspace};

/// Path, mode, inode, times and content of one thing.
type Seen = (PathBuf, u32, u64, [i64; 4], Vec<u8>);

/// Everything that can be seen of a folder without touching it.
pub fn picture(folder: &Path) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut see = |path: &Path| {
        let meta = path.symlink_metadata().expect("it is there");
        let bytes =
            if meta.is_file() { std::fs::read(path).expect("readable") } else { Vec::new() };
        seen.push((
            path.to_owned(),
            meta.mode(),
            meta.ino(),
            [meta.ctime(), meta.ctime_nsec(), meta.mtime(), meta.mtime_nsec()],
            bytes,
        ));
    };
    see(folder);
    walk(folder, &mut see);
    seen.sort();
    seen
}

/// What a run's record has of its changes.
pub fn manifest(product: &Product, report: &Value) -> Value {
    let text = std::fs::read(record(product, report).join("changes.json")).expect("a list");
    serde_json::from_slice(&text).expect("JSON")
}

pub fn record(product: &Product, report: &Value) -> PathBuf {
    product.folder("state").join("runs").join(report["run_id"].as_str().expect("an id"))
}

/// The new content of a path, from the record alone.
pub fn content(product: &Product, report: &Value, path: &str) -> Vec<u8> {
    let manifest = manifest(product, report);
    let changes = manifest["changes"].as_array().expect("changes");
    let change = changes.iter().find(|change| change["path"] == path).expect(path);
    let sha256 = change["after"]["sha256"].as_str().expect("a file");
    std::fs::read(record(product, report).join("blobs").join(sha256)).expect("its content")
}

/// The report's changes as sorted `path: change` lines.
pub fn lines(report: &Value) -> Vec<String> {
    let files = report["changes"]["files"].as_array().expect("a list of changed files");
    let line = |file: &Value| {
        let from = file["from"].as_str().map(|from| format!(" from {from}")).unwrap_or_default();
        let (path, change) = (file["path"].as_str(), file["change"].as_str());
        format!("{}: {}{from}", path.expect("path"), change.expect("change"))
    };
    let mut lines: Vec<String> = files.iter().map(line).collect();
    lines.sort();
    lines
}

/// Asserts that no layer is left, besides the work folders that only root can remove.
pub fn no_layers(product: &Product) {
    let layers = product.folder("state").join("layers");
    let left = std::fs::read_dir(layers).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "spare").collect();
    assert_eq!(left, [] as [&str; 0]);
}

/// Everything in a folder but objects of git and what a run's commits are kept by. Of a git
/// directory only the files: git makes locks in its folders.
pub fn unchanged(folder: &Path) -> Vec<Seen> {
    let is_ours = |path: &Path| {
        let git = path.iter().any(|part| part == ".git");
        let kept = path.to_string_lossy().contains("/refs/sandbox/");
        let object = path.to_string_lossy().contains("/objects/");
        git && (!path.is_file() || kept || object)
    };
    picture(folder).into_iter().filter(|seen| !is_ours(&seen.0)).collect()
}

/// Runs a script in the isolated mode and asserts what holds of every such run.
pub async fn run(workspace: &Workspace, config: &str, script: &str) -> (Product, Value, String) {
    let model = Model::start(Script::bash(script).then(Reply::say("Done."))).await;
    let product = Product::with_model(&model).await.config(config);
    let before = unchanged(workspace.path());
    let finished = product.run(workspace, ["--json", "--mode", "isolated", "go"]).await;
    let report = finished.assert_status("completed");
    assert_eq!(unchanged(workspace.path()), before, "the folder is as it was, times included");
    product.check_nothing_left().await;
    no_layers(&product);
    (product, report, model.step(2).await.said_by("tool"))
}
