//! Deadlines that cannot race: agent, then container, then what is left of it.

use std::time::Duration;

use crate::ids::{Owner, RunId};
use crate::sandbox::Labels;

/// How much longer than the agent its container may live, so that the deadlines never race.
const CONTAINER_GRACE: u64 = 30;
/// How much longer than the container its remains may lie before anyone may remove them.
const REMAINS_GRACE: u64 = 60;

/// The labels of everything that is made for a run.
pub(super) fn labels(id: &RunId, owner: Owner, timeout: Duration) -> Labels {
    let now = jiff::Timestamp::now().as_second();
    let seconds = timeout.as_secs() + CONTAINER_GRACE;
    Labels {
        run: id.clone(),
        owner,
        container_deadline: now.saturating_add_unsigned(seconds),
        deadline: now.saturating_add_unsigned(seconds + REMAINS_GRACE),
    }
}
