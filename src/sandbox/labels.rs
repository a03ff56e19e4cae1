//! The labels by which a container's owner can be told, by us and by whoever cleans up after us.

use std::collections::HashMap;

use crate::ids::{Owner, RunId};

pub const RUN_LABEL: &str = "sandbox-mcp.run";
pub const OWNER_LABEL: &str = "sandbox-mcp.owner";
const DEADLINE_LABEL: &str = "sandbox-mcp.deadline";
const PIDNS_LABEL: &str = "sandbox-mcp.pidns";

/// What is written on everything that we ask the engine to make.
#[derive(Clone, Debug)]
pub struct Labels {
    pub run: RunId,
    pub owner: Owner,
    /// Unix seconds at which the sandbox ends itself.
    pub container_deadline: i64,
    /// Unix seconds after which nobody can still want the thing.
    pub deadline: i64,
}

impl Labels {
    pub fn render(&self) -> HashMap<String, String> {
        HashMap::from([
            (RUN_LABEL.to_owned(), self.run.to_string()),
            (OWNER_LABEL.to_owned(), self.owner.to_string()),
            (DEADLINE_LABEL.to_owned(), self.deadline.to_string()),
            (PIDNS_LABEL.to_owned(), pid_namespace()),
        ])
    }
}

/// Whether something with these labels may be removed: its owner is dead, or its time is long
/// over. An owner in another pid namespace cannot be judged by its pid, so only time counts there.
pub fn is_abandoned(labels: &HashMap<String, String>, now: i64) -> bool {
    let late = labels
        .get(DEADLINE_LABEL)
        .and_then(|deadline| deadline.parse::<i64>().ok())
        .is_some_and(|deadline| deadline < now);
    let dead = labels.get(PIDNS_LABEL).is_some_and(|theirs| *theirs == pid_namespace())
        && labels
            .get(OWNER_LABEL)
            .and_then(|owner| owner.parse::<Owner>().ok())
            .is_some_and(|owner| !owner.is_alive());
    late || dead
}

fn pid_namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(deadline: i64) -> HashMap<String, String> {
        let owner = Owner::current().expect("proc");
        Labels { run: RunId::new(), owner, container_deadline: deadline, deadline }.render()
    }

    #[test]
    fn a_live_owners_things_are_left_alone() {
        assert!(!is_abandoned(&labels(100), 50));
    }

    #[test]
    fn a_dead_owners_and_a_late_ones_are_not() {
        let mut dead = labels(100);
        dead.insert(OWNER_LABEL.into(), "1.1.00000000-0000-0000-0000-000000000000".into());
        assert!(is_abandoned(&dead, 50));
        assert!(is_abandoned(&labels(100), 101));
    }

    #[test]
    fn an_owner_that_cannot_be_seen_from_here_has_until_its_deadline() {
        let mut elsewhere = labels(100);
        elsewhere.insert(OWNER_LABEL.into(), "1.1.00000000-0000-0000-0000-000000000000".into());
        elsewhere.insert(PIDNS_LABEL.into(), "pid:[1]".into());
        assert!(!is_abandoned(&elsewhere, 50));
        assert!(is_abandoned(&elsewhere, 101));
    }
}
