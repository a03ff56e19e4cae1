//! Which sessions stay: as many, as long and as large as records of runs may.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::store::sweep_up;
use super::{Error, SessionId, folder_of, list, remove};
use crate::history::{Retention, size};

/// Removes the sessions that were not used for the longest time, beyond what may stay. One that a
/// run has stays. The first failure is told after all were tried.
pub fn prune(state: &Path, retention: &Retention) -> Result<Vec<SessionId>, Error> {
    let mut failed = sweep_up(state).err();
    let mut removed = Vec::new();
    let (mut count, mut bytes) = (0_usize, 0_u64);
    for session in list(state) {
        let id = session.session;
        count += 1;
        bytes = bytes.saturating_add(size(&folder_of(state, &id)));
        let age = Timestamp::now().duration_since(session.last_used);
        let old = Duration::try_from(age).is_ok_and(|age| age > retention.age);
        if count <= retention.runs && bytes <= retention.bytes && !old {
            continue;
        }
        match remove(state, &id) {
            Ok(()) => removed.push(id),
            Err(Error::Busy(_) | Error::Unknown(_)) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

#[cfg(test)]
mod tests {
    use super::super::create;
    use super::*;
    use crate::ids::RunId;

    #[test]
    fn the_longest_unused_go_and_never_one_that_is_held() {
        let state = tempfile::tempdir().expect("temp dir");
        let workspace = Path::new("/home/ann/project");
        let held = create(state.path(), workspace).expect("made");
        let [old, new] = [0, 1].map(|_| {
            let session = create(state.path(), workspace).expect("made");
            let id = session.id().clone();
            session.keep(&RunId::new(), None).expect("kept");
            id
        });
        let all = Retention { runs: usize::MAX, age: Duration::MAX, bytes: u64::MAX };
        assert_eq!(prune(state.path(), &all).expect("pruned"), []);
        let one = Retention { runs: 1, ..all };
        assert_eq!(prune(state.path(), &one).expect("pruned"), std::slice::from_ref(&old));
        let none = Retention { age: Duration::ZERO, ..all };
        assert_eq!(prune(state.path(), &none).expect("pruned"), [new]);
        let left = list(state.path());
        assert_eq!(left.len(), 1);
        // Nothing is left of the others, nor of one that a crash left half removed.
        let all_of = super::super::folder_of_sessions(state.path());
        std::fs::create_dir_all(all_of.join(format!(".{old}.gone/agent"))).expect("made");
        assert_eq!(prune(state.path(), &all).expect("pruned"), []);
        assert_eq!(std::fs::read_dir(all_of).expect("there").count(), 1);
        assert_eq!(&left[0].session, held.id());
    }
}
