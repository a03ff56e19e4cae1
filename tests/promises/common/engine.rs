//! The engine, seen from outside through its own command line, and the image that tests share.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// A folder that outlives a test run, below the target folder where none is named.
pub fn cache() -> PathBuf {
    let named = std::env::var_os("SANDBOX_MCP_TEST_CACHE").map(PathBuf::from);
    let usual = || PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("sandbox-mcp-tests");
    let cache = named.unwrap_or_else(usual);
    std::fs::create_dir_all(&cache).expect("a folder for the tests' cache");
    cache
}

/// Where the engine listens, found once, because tests run with a HOME without Docker contexts.
pub fn host() -> Option<&'static str> {
    static HOST: OnceLock<Option<String>> = OnceLock::new();
    HOST.get_or_init(|| {
        if let Ok(host) = std::env::var("DOCKER_HOST") {
            return Some(host);
        }
        let format = "{{.Endpoints.docker.Host}}";
        let shown =
            Command::new("docker").args(["context", "inspect", "-f", format]).output().ok()?;
        let host = String::from_utf8(shown.stdout).ok()?.trim().to_owned();
        host.starts_with("unix://").then_some(host)
    })
    .as_deref()
}

/// The setting for an engine that does not apply every limit; empty for any other.
pub fn accepted() -> String {
    let words = std::env::var("SANDBOX_MCP_TEST_ACCEPT").unwrap_or_default();
    let words: Vec<_> = words.split(',').filter(|word| !word.is_empty()).collect();
    if words.is_empty() { String::new() } else { format!("[sandbox]\naccept = {words:?}\n") }
}

/// Returns true where the engine's own words are Podman's, which tells less through Docker's API.
pub fn is_podman() -> bool {
    docker(["version", "--format", "{{json .Server.Components}}"]).contains("Podman Engine")
}

/// Returns true where the engine sees none of our files.
pub fn is_apart() -> bool {
    std::env::var_os("SANDBOX_MCP_TEST_APART").is_some_and(|apart| !apart.is_empty())
}

/// The views that the engine can make: no overlay as ours where it is rootless, which older ones tell
/// only by the limits that are missing, and none where it sees none of our files.
pub fn views() -> &'static [&'static str] {
    let is_rootless = || docker(["info", "--format", "{{.SecurityOptions}}"]).contains("rootless");
    if accepted().is_empty() && !is_apart() && !is_rootless() {
        &["overlay", "copy"]
    } else {
        &["copy"]
    }
}

/// Runs the engine's own command line and gives its output; panics when it fails.
#[track_caller]
pub fn docker<const N: usize>(args: [&str; N]) -> String {
    try_docker(args).unwrap_or_else(|error| panic!("docker {args:?}: {error}"))
}

pub fn try_docker<const N: usize>(args: [&str; N]) -> Result<String, String> {
    let mut command = Command::new("docker");
    if let Some(host) = host() {
        command.env("DOCKER_HOST", host);
    }
    let out =
        command.args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&out.stderr).trim().to_owned())
    }
}

/// `docker inspect` of one object.
#[track_caller]
pub fn inspect(id: &str) -> Value {
    let text = docker(["inspect", id]);
    let mut found: Vec<Value> = serde_json::from_str(&text).expect("inspect prints JSON");
    found.pop().expect("one object")
}

/// An exclusive lock on a file of the cache; it ends with the process at the latest.
pub struct Lock(#[expect(dead_code, reason = "held, not read")] File);

/// Held by tests that make images or count them. To be taken after a place, or two tests could wait
/// for one another.
pub const IMAGES: &str = "images.lock";

pub fn lock(name: &str) -> Lock {
    let file = File::create(cache().join(name)).expect("a lock file");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("flock");
    Lock(file)
}

/// Checks the engine and builds the image, once for all tests of one run of the suite; the others
/// wait for the first, and learn of its failure at once.
pub async fn ready() {
    tokio::task::spawn_blocking(|| {
        let _turn = lock("image.lock");
        let verdict = cache().join(format!("image.{}", suite()));
        match std::fs::read_to_string(&verdict) {
            Ok(verdict) if verdict == "ok" => return,
            Ok(verdict) => {
                panic!("the image could not be built (an earlier test tried): {verdict}")
            }
            Err(_) => {}
        }
        try_docker(["version"])
            .unwrap_or_else(|error| panic!("no container engine answers: {error}"));
        let told = prepare();
        let verdict_words = told.as_ref().map_or_else(Clone::clone, |()| "ok".to_owned());
        std::fs::write(&verdict, verdict_words).expect("a note for the other tests");
        told.unwrap_or_else(|told| panic!("{told}"));
    })
    .await
    .unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()));
}

/// Builds the image beside those of other checkouts, and runs a rehearsal once, after which the product knows what the image's
/// agent can do; [`know_the_image`] hands that on to other houses.
fn prepare() -> Result<(), String> {
    let house = tempfile::tempdir().expect("a folder");
    let workspace = super::Workspace::new();
    for args in
        [&["build", "--keep-old"][..], &["run", "--model-url", "rehearsal", "--json", "rehearse"]]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox-mcp"));
        command.args(args).stdin(Stdio::null()).current_dir(workspace.path());
        super::product::isolate(house.path(), |key, value| {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        });
        let out = command.output().expect("the binary starts");
        if !out.status.success() {
            let told = String::from_utf8_lossy(&out.stderr);
            return Err(format!("sandbox-mcp {} failed ({}):\n{told}", args[0], out.status));
        }
    }
    copy(&house.path().join("state/images"), &cache().join("images"));
    Ok(())
}

/// Saves a house the second that asking the image's agent costs.
pub fn know_the_image(state: &std::path::Path) {
    copy(&cache().join("images"), &state.join("images"));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

/// Names one run of the suite: nextest's own id, else the parent (cargo) process.
fn suite() -> String {
    std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| {
        let parent = std::os::unix::process::parent_id();
        format!("cargo-{parent}")
    })
}

/// The two places; who has one may run containers. nextest's groups see to it as well, but
/// `cargo test` knows no groups, and neither knows of other suites on the same machine.
const PLACES: [&str; 2] = ["place.1", "place.2"];

/// Held while places are taken, and by whoever wants all of them.
const TURN: &str = "place.turn";

/// A place among the tests that run containers at the same time. Freed when dropped.
pub async fn place() -> Vec<Lock> {
    loop {
        // Whoever waits for all places comes first, or it would wait for ever.
        let turn = try_lock(TURN);
        if let (Some(_), Some(lock)) = (&turn, PLACES.into_iter().find_map(try_lock)) {
            return vec![lock];
        }
        drop(turn);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

/// All places: no other test's process is there to reap what this one leaves on purpose. Taken in
/// order, so that two such tests do not wait for each other.
pub async fn all_places() -> Vec<Lock> {
    let mut taken = Vec::new();
    for name in [TURN].into_iter().chain(PLACES) {
        let lock = loop {
            match try_lock(name) {
                Some(lock) => break lock,
                None => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        };
        taken.push(lock);
    }
    taken
}

fn try_lock(name: &str) -> Option<Lock> {
    let file = File::create(cache().join(name)).expect("a lock file");
    let wish = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::flock(&file, wish).is_ok().then_some(Lock(file))
}
