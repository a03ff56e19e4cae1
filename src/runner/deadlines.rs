//! Deadlines that cannot race: agent, then container, then what is left of it.

use std::time::Duration;

use crate::ids::{Owner, RunId, uptime};
use crate::sandbox::Labels;

/// How much longer than the agent its container may live, so that the deadlines never race.
const CONTAINER_GRACE: Duration = Duration::from_secs(30);
/// How much longer than the container its remains may lie before anyone may remove them.
const REMAINS_GRACE: Duration = Duration::from_secs(60);

/// The labels of everything that is made for a run.
pub(super) fn labels(id: &RunId, owner: Owner, timeout: Duration) -> Labels {
    let lifetime = timeout + CONTAINER_GRACE;
    let deadline = uptime() + lifetime + REMAINS_GRACE;
    Labels { run: id.clone(), owner, lifetime, deadline }
}
