//! Stopping a run of any process.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::history::{Entry, State};
use crate::runner::past;

/// How often the record is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What came of stopping a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was over before.
    Before(State),
    /// Everything of it is gone, and its report is there.
    Now,
    /// Its process was asked and has died without a report.
    Died,
    /// Its process was asked and is still at it.
    NotYet,
}

/// Asks the process of the run to end it, and waits for that at most as long as `within`.
pub async fn stop(entry: &Entry, within: Duration) -> io::Result<Stopped> {
    let state = entry.state();
    if state != State::Running {
        return Ok(Stopped::Before(state));
    }
    let owner = entry.owner().filter(|_| past::is_alone(entry)).ok_or_else(|| {
        io::Error::other(
            "its process belongs to another version and may have more runs; end it where it was \
             started",
        )
    })?;
    // Gone meanwhile is as good.
    owner.terminate()?;
    let deadline = Instant::now() + within;
    loop {
        match entry.state() {
            State::Ended => return Ok(Stopped::Now),
            State::Died => return Ok(Stopped::Died),
            State::Running if Instant::now() >= deadline => return Ok(Stopped::NotYet),
            State::Running => sleep(LOOK).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::history::Record;
    use crate::ids::RunId;

    #[tokio::test]
    async fn a_process_that_may_have_other_runs_is_not_asked() {
        let state = tempfile::tempdir().expect("temp dir");
        let id = RunId::new();
        // Ours: were it asked, this test would end.
        let mut record = Record::create(state.path(), &id).expect("record");
        let entry = Entry::of(state.path(), &id).expect("an entry");
        for task in [json!({ "task": "x" }), json!({ "alone": "yes" }), json!(3)] {
            record.task(&task);
            let refused = stop(&entry, Duration::ZERO).await.expect_err("another version's");
            assert!(refused.to_string().contains("may have more runs"), "{refused}");
        }
        record.finish(&json!({})).expect("finished");
        let stopped = stop(&entry, Duration::ZERO).await.expect("looked");
        assert_eq!(stopped, Stopped::Before(State::Ended));
    }
}
