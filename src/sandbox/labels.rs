//! The labels by which a container's owner can be told, by us and by whoever cleans up after us.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use crate::ids::{Owner, RunId, random_word};
use crate::text::fingerprint;

pub const RUN_LABEL: &str = "sandbox-mcp.run";
pub const FILES_LABEL: &str = "sandbox-mcp.files";
pub const KEPT_LABEL: &str = "sandbox-mcp.kept";
/// Whose it is: an engine may serve several users and state folders.
pub const KEEPER_LABEL: &str = "sandbox-mcp.keeper";
pub const OWNER_LABEL: &str = "sandbox-mcp.owner";
/// Not `sandbox-mcp.deadline`: earlier versions read a time of the wall clock there.
const DEADLINE_LABEL: &str = "sandbox-mcp.deadline-since-boot";
const PIDNS_LABEL: &str = "sandbox-mcp.pidns";
/// The machine whose boots and processes the others are of: an engine may serve several.
const MACHINE_LABEL: &str = "sandbox-mcp.machine";
/// When another machine may remove it, in seconds of the wall clock.
const LEFT_LABEL: &str = "sandbox-mcp.left-at";

/// Seconds for which another machine's things are left alone after their time: clocks differ, and
/// their owner may come back for them.
const PATIENCE: u64 = 7 * 24 * 3600;

/// What is written on everything that we ask the engine to make.
#[derive(Clone, Debug)]
pub struct Labels {
    pub run: RunId,
    pub owner: Owner,
    /// After which the sandbox ends itself.
    pub lifetime: Duration,
    /// When nobody can still want the thing, since the machine's start: the wall clock may be set.
    pub deadline: Duration,
}

impl Labels {
    /// The labels of a volume that holds what a run has changed: it is not removed with the rest, and
    /// by nobody but its `keeper`.
    pub fn render_for_files(&self, keeper: &str) -> HashMap<String, String> {
        let mut labels = self.render();
        labels.remove(RUN_LABEL);
        labels.insert(FILES_LABEL.to_owned(), self.run.to_string());
        labels.insert(KEEPER_LABEL.to_owned(), keeper.to_owned());
        labels
    }

    pub fn render(&self) -> HashMap<String, String> {
        HashMap::from([
            (RUN_LABEL.to_owned(), self.run.to_string()),
            (OWNER_LABEL.to_owned(), self.owner.to_string()),
            (DEADLINE_LABEL.to_owned(), self.deadline.as_secs().to_string()),
            (PIDNS_LABEL.to_owned(), pid_namespace()),
            (MACHINE_LABEL.to_owned(), machine()),
            (
                LEFT_LABEL.to_owned(),
                (wall_clock() + self.lifetime.as_secs() + PATIENCE).to_string(),
            ),
        ])
    }
}

/// Returns the labels of a volume that keeps copies from run to run.
pub fn of_kept(volume: &str, keeper: &str) -> HashMap<String, String> {
    HashMap::from([
        (KEPT_LABEL.to_owned(), volume.to_owned()),
        (KEEPER_LABEL.to_owned(), keeper.to_owned()),
    ])
}

/// Returns the name of who keeps something in a state folder. It is written there once, because two
/// machines of one image have the same id and the same paths.
pub fn keeper(state: &Path) -> std::io::Result<String> {
    let path = state.join("keeper");
    let read = || std::fs::read_to_string(&path);
    match read() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        other => return other,
    }
    std::fs::create_dir_all(state)?;
    let mut file = tempfile::NamedTempFile::new_in(state)?;
    file.write_all(random_word(16).as_bytes())?;
    match file.persist_noclobber(&path) {
        Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error),
        // Another process's name is as good, and the first one counts.
        _ => read(),
    }
}

/// Returns true where another keeper's thing has been left alone for long enough.
pub fn is_left(labels: &HashMap<String, String>) -> bool {
    let left = labels.get(LEFT_LABEL).and_then(|left| left.parse::<u64>().ok());
    left.is_some_and(|left| left < wall_clock())
}

/// Whether something with these labels may be removed: its owner is dead, or its time is long
/// over. An owner in another pid namespace cannot be judged by its pid, so only time counts there.
/// `now` is the time since the machine's start.
pub fn is_abandoned(labels: &HashMap<String, String>, now: Duration) -> bool {
    if labels.get(MACHINE_LABEL).is_some_and(|theirs| *theirs != machine()) {
        return is_left(labels);
    }
    let owner = labels.get(OWNER_LABEL).and_then(|owner| owner.parse::<Owner>().ok());
    let late = owner.as_ref().is_some_and(|owner| !owner.is_of_this_boot())
        || labels
            .get(DEADLINE_LABEL)
            .and_then(|deadline| deadline.parse::<u64>().ok())
            .is_some_and(|deadline| deadline < now.as_secs());
    let dead = labels.get(PIDNS_LABEL).is_some_and(|theirs| *theirs == pid_namespace())
        && owner.is_some_and(|owner| !owner.is_alive());
    late || dead
}

/// A name of this machine that says nothing of it; in a container, of that one.
fn machine() -> String {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let id = std::fs::read("/etc/machine-id").ok().filter(|id| id.len() > 16);
        let id = id.unwrap_or_else(|| rustix::system::uname().nodename().to_bytes().to_vec());
        fingerprint([&*id], 8)
    });
    NAME.clone()
}

fn wall_clock() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: &str = "1.1.00000000-0000-0000-0000-000000000000";

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn labels(deadline: u64) -> HashMap<String, String> {
        let owner = Owner::current().expect("proc");
        let (lifetime, deadline) = (seconds(1), seconds(deadline));
        Labels { run: RunId::new(), owner, lifetime, deadline }.render()
    }

    /// An owner of this boot that has ended.
    fn dead() -> String {
        let me = Owner::current().expect("proc").to_string();
        let mut parts: Vec<_> = me.splitn(3, '.').collect();
        parts[1] = "1";
        parts.join(".")
    }

    #[test]
    fn a_live_owners_things_are_left_alone() {
        assert!(!is_abandoned(&labels(100), seconds(50)));
    }

    #[test]
    fn a_dead_owners_and_a_late_ones_are_not() {
        let mut dead_ones = labels(100);
        dead_ones.insert(OWNER_LABEL.into(), dead());
        assert!(is_abandoned(&dead_ones, seconds(50)));
        assert!(is_abandoned(&labels(100), seconds(101)));
    }

    #[test]
    fn an_owner_that_cannot_be_seen_from_here_has_until_its_deadline() {
        let mut elsewhere = labels(100);
        elsewhere.insert(OWNER_LABEL.into(), dead());
        elsewhere.insert(PIDNS_LABEL.into(), "pid:[1]".into());
        assert!(!is_abandoned(&elsewhere, seconds(50)));
        assert!(is_abandoned(&elsewhere, seconds(101)));
    }

    #[test]
    fn a_keeper_is_the_same_for_a_folder_and_no_others() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let name = |folder: &tempfile::TempDir| keeper(folder.path()).expect("a name");
        assert_eq!(name(&one).len(), 16);
        assert_eq!(name(&one), name(&one));
        assert_ne!(name(&one), name(&other));
    }

    #[test]
    fn another_machines_things_are_left_alone_for_a_week() {
        let mut theirs = labels(0);
        theirs.insert(OWNER_LABEL.into(), OVER.into());
        theirs.insert(MACHINE_LABEL.into(), "another".into());
        assert!(!is_abandoned(&theirs, seconds(50)));
        theirs.insert(LEFT_LABEL.into(), "1".into());
        assert!(is_abandoned(&theirs, seconds(50)));
    }

    #[test]
    fn nothing_outlives_the_machines_own_start() {
        let mut before = labels(u64::MAX);
        before.insert(OWNER_LABEL.into(), OVER.into());
        before.insert(PIDNS_LABEL.into(), "pid:[1]".into());
        assert!(is_abandoned(&before, seconds(0)));
    }
}
