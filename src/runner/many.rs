//! Several runs at once, and the best of several attempts.

use std::pin::Pin;

use futures_util::future::select_all;

use super::cancel::{CancelReason, Canceller};
use super::{Event, Report, Run, Status};
use crate::ids::RunId;

/// Which of several runs somebody wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// Each is a task of its own.
    #[default]
    All,
    /// The first that completed and was verified; the others are cancelled.
    FirstVerified,
    /// The best of those that completed and were verified.
    BestVerified,
}

/// Runs that go on together. Dropping it cancels those that are not kept.
#[derive(Debug)]
pub struct Many {
    slots: Vec<Slot>,
    cancellers: Vec<Canceller>,
    ids: Vec<RunId>,
}

enum Slot {
    Going(Run),
    /// No event can come any more.
    Ending(Pin<Box<dyn Future<Output = Report> + Send>>),
    Over,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Going(_) => "Going",
            Self::Ending(_) => "Ending",
            Self::Over => "Over",
        })
    }
}

/// What happened to one of them.
#[derive(Debug)]
pub enum Step {
    Event(Event),
    Ended(Box<Report>),
}

enum Next {
    Event(Option<Event>),
    Report(Box<Report>),
}

impl Many {
    pub fn new(runs: Vec<Run>) -> Self {
        Self {
            cancellers: runs.iter().map(Run::canceller).collect(),
            ids: runs.iter().map(|run| run.id().clone()).collect(),
            slots: runs.into_iter().map(Slot::Going).collect(),
        }
    }

    pub fn ids(&self) -> &[RunId] {
        &self.ids
    }

    /// The next thing that happens, and to which of them; none when all are over. Safe to drop and
    /// call again.
    pub async fn next(&mut self) -> Option<(usize, Step)> {
        loop {
            let waiting: Vec<_> = self
                .slots
                .iter_mut()
                .enumerate()
                .filter(|(_, slot)| !matches!(slot, Slot::Over))
                .map(|(at, slot)| Box::pin(async move { (at, slot.next().await) }))
                .collect();
            if waiting.is_empty() {
                return None;
            }
            let ((at, next), _, others) = select_all(waiting).await;
            drop(others);
            match next {
                Next::Event(Some(event)) => return Some((at, Step::Event(event))),
                Next::Event(None) => {
                    if let Slot::Going(run) = std::mem::replace(&mut self.slots[at], Slot::Over) {
                        self.slots[at] = Slot::Ending(Box::pin(run.report()));
                    }
                }
                Next::Report(report) => {
                    self.slots[at] = Slot::Over;
                    return Some((at, Step::Ended(report)));
                }
            }
        }
    }

    pub fn cancel(&self, reason: CancelReason) {
        for canceller in &self.cancellers {
            canceller.cancel(reason);
        }
    }

    /// Lets those that still go on outlive us. False where one of them has no record, so that its
    /// result could be had from nowhere else: then none is kept.
    pub async fn keep(&mut self) -> bool {
        for slot in &mut self.slots {
            if let Slot::Going(run) = slot
                && !run.begun().await.unwrap_or(false)
            {
                return false;
            }
        }
        for slot in &mut self.slots {
            if let Slot::Going(run) = slot {
                run.keep().await;
            }
        }
        true
    }
}

impl Slot {
    async fn next(&mut self) -> Next {
        match self {
            Self::Going(run) => Next::Event(run.next_event().await),
            Self::Ending(report) => Next::Report(Box::new(report.await)),
            Self::Over => std::future::pending().await,
        }
    }
}

/// Whether the caller's own check says that a run did what it should.
pub fn is_verified(report: &Report) -> bool {
    report.status == Status::Completed && report.verify.as_ref().is_some_and(|said| said.passed)
}

/// The best of the verified runs: the one that changed the fewest files, then the one that took
/// the fewest tokens, then the first.
pub fn best<'a>(reports: impl IntoIterator<Item = (usize, &'a Report)>) -> Option<usize> {
    let verified = reports.into_iter().filter(|(_, report)| is_verified(report));
    let cost = |(at, report): &(usize, &Report)| {
        let tokens = report.usage.input_tokens + report.usage.output_tokens;
        (report.changes.truncated, report.changes.files.len(), tokens, *at)
    };
    verified.min_by_key(cost).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(status: &str, passed: Option<bool>, files: usize, tokens: u64) -> Report {
        let verify = passed.map(
            |passed| json!({ "command": "true", "before": null, "after": null, "passed": passed }),
        );
        let file = json!({ "path": "a", "change": "added" });
        let mut report = Report::of_breakdown(RunId::new(), "made up");
        report.status = serde_json::from_value(status.into()).expect("a status");
        report.verify = serde_json::from_value(verify.into()).expect("a check");
        report.changes =
            serde_json::from_value(json!({ "files": vec![file; files] })).expect("changes");
        report.usage.output_tokens = tokens;
        report
    }

    fn chosen(reports: &[Report]) -> Option<usize> {
        best(reports.iter().enumerate())
    }

    #[test]
    fn only_what_completed_and_was_verified_is_chosen() {
        let reports = [
            report("completed", None, 1, 1),
            report("completed", Some(false), 1, 1),
            report("failed", Some(true), 1, 1),
            report("cancelled", None, 0, 0),
        ];
        assert_eq!(chosen(&reports), None);
        assert_eq!(chosen(&[]), None);
        let with = [reports.as_slice(), &[report("completed", Some(true), 9, 9)]].concat();
        assert_eq!(chosen(&with), Some(4));
    }

    #[test]
    fn the_smallest_change_is_the_best_and_then_the_cheapest_run() {
        let reports = [
            report("completed", Some(true), 2, 1),
            report("completed", Some(true), 1, 7),
            report("completed", Some(true), 1, 5),
            report("completed", Some(true), 1, 5),
        ];
        assert_eq!(chosen(&reports), Some(2));
        let mut unknown = report("completed", Some(true), 1, 1);
        unknown.changes.truncated = true;
        assert_eq!(chosen(&[unknown, reports[0].clone()]), Some(1), "a list that was cut is long");
    }
}
