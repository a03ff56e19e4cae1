//! The changes of a run in a view of its own: shown, carried over whole or not at all, or let go.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use sandbox_mcp::workspace::changeset::{
    Alteration, Blobs, Escaped, Manifest, Node, RelPath, VERSION, write_manifest,
};
use serde_json::{Value, json};

use crate::common::{Finished, Product, Workspace};

mod by_a_host;

pub(crate) const RUN: &str = "20260101-000000-aaaa";

/// What is at a path now, as a list of changes has it.
fn node(path: &Path, blobs: &Blobs) -> Node {
    let found = path.symlink_metadata().expect("there");
    let mode = found.mode() & 0o777;
    if found.is_dir() {
        Node::Folder { mode }
    } else if found.is_symlink() {
        let target = std::fs::read_link(path).expect("a link");
        Node::Link { target: Escaped(target.into_os_string().into_encoded_bytes()) }
    } else {
        let mut file = std::fs::File::open(path).expect("a file");
        let (sha256, size) = blobs.put(&mut file).expect("kept");
        Node::File { sha256, size, mode }
    }
}

/// The record of an isolated run, made by hand.
pub(crate) struct Result {
    pub(crate) product: Product,
    pub(crate) workspace: Workspace,
    blobs: Blobs,
    changes: Vec<Alteration>,
}

impl Result {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let (product, workspace) = (Product::without_engine(), Workspace::new());
        for (name, text) in files {
            workspace.write(name, text);
        }
        let blobs = Blobs::new(product.folder("state").join("runs").join(RUN).join("blobs"));
        Self { product, workspace, blobs, changes: Vec::new() }
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.product.folder("state").join("runs").join(RUN)
    }

    fn before(&self, name: &str) -> Option<Node> {
        let path = self.workspace.at(name);
        path.symlink_metadata().is_ok().then(|| node(&path, &self.blobs))
    }

    fn change(mut self, name: &str, after: Option<Node>) -> Self {
        let (path, before) = (RelPath::new(name).expect("a path"), self.before(name));
        self.changes.push(Alteration {
            path,
            before,
            after,
            from: None,
            base_moved: false,
            written: None,
        });
        self
    }

    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let (sha256, size) = self.blobs.put(&mut text.as_bytes()).expect("kept");
        self.change(name, Some(Node::File { sha256, size, mode: 0o644 }))
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        let target = Escaped(target.as_bytes().to_vec());
        self.change(name, Some(Node::Link { target }))
    }

    fn gone(self, name: &str) -> Self {
        self.change(name, None)
    }

    pub(crate) fn kept(mut self) -> Self {
        self.changes.sort_by(|one, other| one.path.cmp(&other.path));
        self.keep(&self.manifest());
        self.report(&json!({
            "run_id": RUN, "status": "completed",
            "workspace": { "path": self.workspace.path(), "mode": "isolated" },
            "changes": { "files": [{ "path": "x", "change": "added" }], "truncated": false },
        }));
        self
    }

    pub(crate) fn manifest(&self) -> Manifest {
        Manifest {
            version: VERSION,
            workspace: self.workspace.path().to_owned(),
            changes: self.changes.clone(),
            complete: true,
            ..Manifest::default()
        }
    }

    pub(crate) fn keep(&self, manifest: &Manifest) {
        std::fs::create_dir_all(self.record()).expect("a folder");
        write_manifest(&self.record().join("changes.json"), manifest).expect("written");
    }

    fn report(&self, report: &Value) {
        std::fs::create_dir_all(self.record()).expect("a folder");
        std::fs::write(self.record().join("run.json"), report.to_string()).expect("written");
    }

    async fn call(&self, args: &[&str]) -> Finished {
        self.product.call(args.iter().copied()).await
    }

    async fn json(&self, args: &[&str]) -> Value {
        let finished = self.call(args).await;
        serde_json::from_str(&finished.stdout)
            .unwrap_or_else(|error| panic!("{error}: {finished:#?}"))
    }

    pub(crate) async fn standing(&self) -> Value {
        self.json(&["runs", "--json"]).await[0]["changes"].clone()
    }
}

fn small() -> Result {
    Result::new(&[("edit.txt", "one\ntwo\n"), ("gone.txt", "bye\n"), ("same", "same\n")])
        .file("edit.txt", "one\n\u{1b}[31mTWO\n")
        .file("new file", "hello")
        .gone("gone.txt")
        .link("link", "same")
        .kept()
}

#[tokio::test]
async fn what_was_applied_is_put_back_and_waits_again() {
    let result = small();
    let early = result.call(&["undo", RUN]).await;
    assert_eq!(early.code, Some(1), "{early:#?}");
    assert_eq!(result.json(&["apply", RUN, "--json"]).await["not_undoable"], json!([]));
    let undone = result.json(&["undo", "last", "--json"]).await;
    assert_eq!(undone["restored"].as_array().map(Vec::len), Some(4), "{undone}");
    assert_eq!(std::fs::read(result.workspace.at("gone.txt")).expect("back"), b"bye\n");
    assert!(!result.workspace.at("new file").exists());
    assert_eq!(result.standing().await, "undone");
    result.json(&["apply", RUN, "--json"]).await;
    assert_eq!(result.standing().await, "applied");
    assert!(!result.workspace.at("gone.txt").exists());
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_text_that_both_changed_in_different_places_is_put_together() {
    let result = Result::new(&[("a.txt", "one\ntwo\nthree\nfour\n"), ("b.txt", "b\n")])
        .file("a.txt", "one\ntwo\nthree\nFOUR\n")
        .file("b.txt", "B\n")
        .kept();
    result.workspace.write("a.txt", "ONE\ntwo\nthree\nfour\n");
    let dry = result.json(&["apply", RUN, "--dry-run", "--json"]).await;
    assert_eq!(dry["changed"], json!([["merged", "a.txt"], ["modified", "b.txt"]]));
    assert_eq!(result.workspace.read("a.txt"), "ONE\ntwo\nthree\nfour\n");
    result.call(&["apply", RUN]).await.assert_code(0);
    assert_eq!(result.workspace.read("a.txt"), "ONE\ntwo\nthree\nFOUR\n");
    let again = result.json(&["apply", RUN, "--json"]).await;
    assert_eq!((&again["changed"], &again["already"]), (&json!([]), &json!(2)), "{again:#}");
    result.call(&["undo", RUN]).await.assert_code(0);
    assert_eq!(result.workspace.read("a.txt"), "ONE\ntwo\nthree\nfour\n");
    assert_eq!(result.workspace.read("b.txt"), "b\n");
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_person_takes_the_runs_version_and_gets_their_own_back() {
    let result = small();
    result.workspace.write("edit.txt", "by somebody\n");
    result.workspace.write("gone.txt", "wanted still\n");
    result.workspace.write("new file", "another\n");
    let part = result.call(&["apply", RUN, "--take", "edit.txt"]).await;
    assert!(!part.stdout.contains("edit.txt") && part.stdout.contains("gone.txt"), "{part:?}");
    assert_eq!(result.workspace.read("edit.txt"), "by somebody\n", "all or nothing");
    let names = ["--take", "edit.txt", "--take", "gone.txt", "--take", "new file"];
    result.call(&[&["apply", RUN], &names[..]].concat()).await.assert_code(0);
    assert_eq!(result.workspace.read("edit.txt"), "one\n\u{1b}[31mTWO\n");
    assert_eq!(result.workspace.read("new file"), "hello");
    assert!(!result.workspace.has("gone.txt"));
    result.call(&["undo", RUN]).await.assert_code(0);
    assert_eq!(result.workspace.read("edit.txt"), "by somebody\n");
    assert_eq!(result.workspace.read("gone.txt"), "wanted still\n");
    assert_eq!(result.workspace.read("new file"), "another\n");
    let unknown = result.call(&["apply", RUN, "--take", "edit.tx"]).await;
    assert!(unknown.stderr.contains("the nearest is `edit.txt`"), "{}", unknown.stderr);
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_result_is_shown_and_carried_over_once() {
    let result = small();
    assert_eq!(result.standing().await, "pending");
    for command in [&["diff", RUN][..], &["runs", "diff", "last"]] {
        let diff = result.call(command).await;
        diff.assert_code(0);
        for words in ["+\u{1b}[31mTWO", "-bye", "new file mode 120000", "\\ No newline at end"] {
            assert!(diff.stdout.contains(words), "{words}: {}", diff.stdout);
        }
    }
    let stat = result.call(&["diff", RUN, "--stat"]).await;
    assert!(stat.stdout.contains("+1 -1  edit.txt") && stat.stdout.contains("4 files, +3 -2"));
    let listed = result.json(&["diff", RUN, "--json"]).await;
    let words: Vec<_> =
        listed["changes"].as_array().expect("list").iter().map(|c| &c["change"]).collect();
    assert_eq!(words, ["modified", "deleted", "added", "added"]);

    let names = result.workspace.names();
    let dry = result.call(&["apply", RUN, "--dry-run"]).await;
    dry.assert_code(0);
    assert!(dry.stdout.contains("4 would be applied to "), "{}", dry.stdout);
    assert_eq!((result.workspace.names(), result.standing().await), (names, json!("pending")));

    let part = result.json(&["apply", RUN, "--only", "new file", "--json"]).await;
    assert_eq!(
        (&part["state"], &part["changed"]),
        (&json!("partly_applied"), &json!([["added", "new file"]]))
    );
    assert_eq!(result.standing().await, "partly_applied");
    let unknown = result.call(&["apply", RUN, "--only", "edit.tx"]).await;
    unknown.assert_code(1);
    assert!(unknown.stderr.contains("the nearest is `edit.txt`"), "{}", unknown.stderr);

    let all = result.call(&["runs", "apply", "last"]).await;
    all.assert_code(0);
    assert!(all.stdout.contains("deleted   gone.txt"), "{}", all.stdout);
    assert!(
        all.stdout.contains("3 applied to ") && all.stdout.contains(", 1 were as the run left")
    );
    assert_eq!(result.workspace.names(), ["edit.txt", "link", "new file", "same"]);
    assert_eq!(result.workspace.read("edit.txt"), "one\n\u{1b}[31mTWO\n");
    let owner = std::fs::metadata(result.workspace.at("new file")).expect("there");
    assert_eq!((owner.uid(), owner.gid()), result.workspace.owner());
    assert_eq!(result.standing().await, "applied");
    let again = result.call(&["apply", RUN]).await;
    again.assert_code(0);
    assert!(again.stdout.starts_with("0 applied to "), "{}", again.stdout);
    let shown = result.call(&["runs", "show", RUN]).await;
    assert!(shown.stdout.contains("result     applied"), "{}", shown.stdout);

    for _ in 0..2 {
        result.call(&["discard", RUN]).await.assert_code(0);
    }
    assert_eq!(result.standing().await, "applied");
    let mode = std::fs::metadata(result.record().join("applied.json")).expect("there").mode();
    assert_eq!(mode & 0o777, 0o600);
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn a_pipe_gets_what_git_applies() {
    let result = small();
    let diff = result.call(&["diff", RUN]).await;
    let mut git = Command::new("git");
    git.args(["apply", "-"]).current_dir(result.workspace.path()).stdin(Stdio::piped());
    git.env("GIT_CEILING_DIRECTORIES", "/tmp");
    let mut git = git.spawn().expect("git");
    std::io::Write::write_all(&mut git.stdin.take().expect("piped"), diff.stdout.as_bytes())
        .expect("written");
    assert!(git.wait().expect("ended").success());
    assert_eq!(result.workspace.names(), ["edit.txt", "link", "new file", "same"]);
    // What another tool has done needs not be done again.
    let applied = result.json(&["apply", RUN, "--json"]).await;
    assert_eq!((&applied["changed"], &applied["already"]), (&json!([]), &json!(4)));
    assert_eq!(applied["state"], "applied");
    result.product.check_nothing_left().await;
}

#[tokio::test]
async fn conflicts_and_protected_places_change_nothing() {
    let result = small();
    result.workspace.write("edit.txt", "by \u{1b}[31msomebody\n");
    let names = result.workspace.names();
    let refused = result.call(&["apply", RUN]).await;
    refused.assert_code(1);
    assert!(refused.stdout.starts_with("conflict  edit.txt\n"), "{}", refused.stdout);
    assert!(refused.stderr.contains("hint: nothing was changed"), "{}", refused.stderr);
    let told = result.json(&["apply", RUN, "--json"]).await;
    assert_eq!(
        (&told["error"]["kind"], &told["conflicts"][0]["path"]),
        (&json!("conflict"), &json!("edit.txt"))
    );
    assert_eq!((result.workspace.names(), result.standing().await), (names, json!("pending")));

    result.product.check_nothing_left().await;

    let result = Result::new(&[]).file("a", "1").link("out", "/etc").file("deep.envrc", "x").kept();
    let refused = result.call(&["apply", RUN]).await;
    refused.assert_code(1);
    assert_eq!(refused.stdout, "protected out (a link that leads out of the workspace)\n");
    assert!(result.workspace.names().is_empty());
    let product = result.product.config("[workspace]\nprotected = [\"A\"]\n");
    let told = product.call(["apply", RUN, "--json"]).await;
    assert!(told.stdout.contains("it is in `workspace.protected`"), "{}", told.stdout);
    product.call(["apply", RUN, "--only", "deep.envrc"]).await.assert_code(0);
    product.call(["apply", RUN, "--allow-protected"]).await.assert_code(0);
    assert_eq!(result.workspace.names(), ["a", "deep.envrc", "out"]);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn what_cannot_be_applied_says_what_to_do() {
    let result = small();
    let mut manifest = result.manifest();
    manifest.complete = false;
    result.keep(&manifest);
    let refused = result.call(&["apply", RUN]).await;
    assert!(refused.stderr.contains("ended at a bound"), "{}", refused.stderr);
    manifest.complete = true;
    manifest.version = VERSION + 1;
    result.keep(&manifest);
    let refused = result.call(&["apply", RUN]).await;
    assert!(refused.stderr.contains("its version is 2"), "{}", refused.stderr);
    manifest.version = VERSION;
    manifest.changes.clear();
    result.keep(&manifest);
    let refused = result.call(&["apply", RUN]).await;
    assert!(refused.stderr.contains("changed nothing"), "{}", refused.stderr);
    std::fs::remove_file(result.record().join("changes.json")).expect("removed");
    for (mode, words) in [
        ("direct", "changed nothing"),
        ("read_only", "could only read"),
        ("remote", "left no list of changes"),
    ] {
        result.report(&json!({ "status": "completed", "workspace": { "mode": mode } }));
        for command in ["apply", "diff", "discard"] {
            let refused = result.call(&[command, RUN]).await;
            refused.assert_code(1);
            assert!(refused.stderr.contains(words), "{}", refused.stderr);
        }
    }
    result.call(&["apply", "20270101"]).await.assert_code(2);
    result.product.check_nothing_left().await;

    let result = small();
    result.call(&["discard", RUN]).await.assert_code(0);
    assert_eq!(result.standing().await, "discarded");
    for name in ["blobs", "changes.json", "changes.patch"] {
        assert!(!result.record().join(name).exists(), "{name}");
    }
    let refused = result.call(&["apply", RUN]).await;
    refused.assert_code(1);
    assert!(
        refused.stderr.contains("were discarded") && refused.stderr.contains("run the task again")
    );

    result.product.check_nothing_left().await;

    let result = small();
    let moved = result.workspace.path().with_extension("moved");
    std::fs::rename(result.workspace.path(), &moved).expect("moved");
    symlink(&moved, result.workspace.path()).expect("a link");
    let refused = result.call(&["apply", RUN]).await;
    refused.assert_code(1);
    assert!(refused.stderr.contains("is no longer the folder"), "{}", refused.stderr);
    std::fs::remove_file(result.workspace.path()).expect("removed");
    std::fs::rename(&moved, result.workspace.path()).expect("moved back");
    result.product.check_nothing_left().await;
}

/// Real kills at any moment: what is there afterwards is all of the old or all of the new.
#[tokio::test]
async fn killed_at_any_moment_it_is_all_or_nothing() {
    const FILES: usize = 150;
    let names: Vec<_> = (0..FILES).map(|number| format!("d{}/f{number}", number % 7)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "old")).collect();
    let mut result = Result::new(&files);
    for name in &names {
        result = result.file(name, "new");
    }
    let result = result.file("z/added", "new").kept();
    let (mut whole, mut none) = (0, 0);
    let started = Instant::now();
    result.product.call(["apply", RUN]).await.assert_code(0);
    let whole_time = started.elapsed();
    for round in 0..=12 {
        for name in &names {
            result.workspace.write(name, "old");
        }
        drop(std::fs::remove_dir_all(result.workspace.at("z")));
        let running = result.product.start(result.product.command(["apply", RUN]));
        // The first dies at its beginning, the last is left alone.
        if round < 12 {
            tokio::time::sleep(whole_time * round / 12).await;
            running.try_signal(Signal::KILL);
        }
        running.wait().await;
        // As at the end of a session, or after a restart.
        if round % 2 == 0 {
            std::fs::remove_dir_all(result.product.folder("run")).expect("removed");
        }
        // The next one settles first, even if it then does nothing.
        result.product.call(["apply", RUN, "--dry-run"]).await.assert_code(0);
        let news = names.iter().filter(|name| result.workspace.read(name) == "new").count();
        assert!(news == 0 || news == FILES, "round {round}: {news} of {FILES}");
        assert_eq!(result.workspace.has("z/added"), news == FILES, "round {round}");
        if news == 0 {
            none += 1;
        } else {
            whole += 1;
        }
        let odd = result.workspace.names().into_iter().find(|name| name.starts_with(".sandbox"));
        assert_eq!(odd, None, "round {round}");
    }
    assert!(whole > 0 && none > 0, "{whole} were applied, {none} were not");
    result.product.check_nothing_left().await;
}
