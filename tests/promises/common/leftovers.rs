//! "Nothing left behind": no container, volume, network, socket, folder or process of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::workspace::walk;
use super::{PATIENCE, engine, eventually};

/// Watches one house. A test that ends without [`Leftovers::check`] fails.
pub struct Leftovers {
    root: PathBuf,
    pids: Mutex<BTreeSet<u32>>,
    runs: Mutex<BTreeSet<String>>,
    checked: Mutex<bool>,
}

impl Leftovers {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.into(),
            pids: Mutex::default(),
            runs: Mutex::default(),
            checked: Mutex::new(false),
        }
    }

    /// Counts everything that this process owns as ours.
    pub fn watch(&self, pid: u32) {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    }

    /// Counts everything of this run as ours, whichever process owned it.
    pub fn watch_run(&self, id: &str) {
        assert!(is_run_id(id), "{id:?} is no run id");
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }

    /// The one running container owned by `pid`, as soon as there is one.
    pub async fn container_of(&self, pid: u32) -> String {
        eventually("a running container", PATIENCE, || {
            owned("container", pid).into_iter().find(|id| {
                // Not the one that only carries files.
                engine::try_docker(["inspect", "-f", "{{.State.Running}} {{.Args}}", id])
                    .is_ok_and(|told| told.starts_with("true") && !told.contains("--port 4143"))
            })
        })
        .await
    }

    /// Everything that is there now, in words.
    pub fn now(&self) -> Vec<String> {
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut found = Vec::new();
        for kind in ["container", "volume", "network", FILES] {
            for (id, run, owner) in listed(kind) {
                let recorded = self.root.join("state/runs").join(&run).is_dir();
                let watched = pids.iter().any(|pid| belongs(&owner, *pid));
                if recorded || watched || runs.contains(&run) {
                    found.push(format!("{kind} {id} of run {run}"));
                }
            }
        }
        found.extend(self.files());
        found.extend(self.processes());
        found
    }

    /// Asserts that nothing is there, at this moment: whoever ended has cleaned up before.
    pub async fn check(&self) {
        self.check_within(Duration::ZERO).await;
    }

    /// Asserts that nothing is there soon, for owners that could not clean up themselves.
    pub async fn check_within(&self, bound: Duration) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            let found = self.now();
            if found.is_empty() {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "left behind after {bound:?}: {found:#?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Sockets anywhere, and anything at all in the temporary folder; in the runtime folder only
    /// what names no run may stay.
    fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.root, &mut |path| {
            let below = path.strip_prefix(&self.root).expect("below the house");
            let kind = path.symlink_metadata().map(|meta| meta.file_type());
            let socket = kind.is_ok_and(|kind| kind.is_socket());
            let temporary = below.starts_with("tmp") && below != Path::new("tmp");
            let of_a_run = below.starts_with("run")
                && below.iter().any(|name| is_run_id(&name.to_string_lossy()));
            if socket || temporary || of_a_run {
                found.push(format!("file {}", below.display()));
            }
        });
        found
    }

    /// Processes that were started in this house, by its path in their environment.
    fn processes(&self) -> Vec<String> {
        let mark = format!("SANDBOX_MCP_STATE_DIR={}/state", self.root.display()).into_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let process = entry.path();
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            let zombie = std::fs::read_to_string(process.join("stat")).is_ok_and(|stat| {
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
            });
            if !zombie && environment.split(|byte| *byte == 0).any(|variable| variable == mark) {
                let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
                found.push(format!("process {}: {}", process.display(), line.replace('\0', " ")));
            }
        }
        found
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        let pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if std::thread::panicking() {
            // Leave nothing to the next test, and nothing to whoever debugs but the message.
            for pid in pids {
                for id in owned("container", pid) {
                    engine::try_docker(["rm", "-f", "-v", &id]).ok();
                }
            }
        } else if !pids.is_empty() {
            let checked = *self.checked.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(checked, "this test did not look for what it left behind");
        }
    }
}

/// Ids of what the engine keeps for the runs of process `pid`, and of those processes that it
/// started for one run each.
pub fn owned(kind: &str, pid: u32) -> Vec<String> {
    let ours = listed(kind).into_iter().filter(|(_, _, owner)| belongs(owner, pid));
    ours.map(|(id, _, _)| id).collect()
}

/// Whether the owner is `pid` or a child of it. A parent is remembered from the first look on: a
/// child that has lost it has another.
fn belongs(owner: &str, pid: u32) -> bool {
    static PARENTS: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());
    let Some(own) = owner.split('.').next().and_then(|pid| pid.parse::<u32>().ok()) else {
        return false;
    };
    let mut parents = PARENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if !parents.contains_key(owner)
        && let Some(parent) = parent_of(own)
    {
        parents.insert(owner.to_owned(), parent);
    }
    own == pid || parents.get(owner) == Some(&pid)
}

/// The process that started `pid`, as long as both are there.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Volumes with copies of a run's files, which have a label of their own.
const FILES: &str = "volume of files";

/// Everything of that kind that the engine keeps for runs: id, run and owner.
fn listed(kind: &str) -> Vec<(String, String, String)> {
    let (kind, run) = match kind {
        FILES => ("volume", "sandbox-mcp.files"),
        kind => (kind, "sandbox-mcp.run"),
    };
    let field = if kind == "volume" { "{{.Name}}" } else { "{{.ID}}" };
    let format = format!(r#"{field} {{{{.Label "{run}"}}}} {{{{.Label "sandbox-mcp.owner"}}}}"#);
    let ours = &format!("label={run}");
    let listed = if kind == "container" {
        engine::try_docker(["ps", "-a", "--no-trunc", "--filter", ours, "--format", &format])
    } else {
        engine::try_docker([kind, "ls", "--filter", ours, "--format", &format])
    };
    let listed = listed.unwrap_or_else(|error| panic!("the engine lists no {kind}: {error}"));
    let lines = listed.lines().map(|line| {
        let mut words = line.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        (next(), next(), next())
    });
    lines.collect()
}

/// Whether a name looks like `20260131-235959-k3f9`.
pub fn is_run_id(name: &str) -> bool {
    name.len() == 20
        && name.bytes().enumerate().all(|(at, byte)| match at {
            8 | 15 => byte == b'-',
            0..=14 => byte.is_ascii_digit(),
            _ => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
        })
}
