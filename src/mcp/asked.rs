//! What the person at the host was asked about lately, so that no model can ask until they are tired.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::workspace::changeset::NeedsYes;

/// How often one may be asked about one run, and within which time.
const MOST: usize = 3;
const WITHIN: Duration = Duration::from_secs(600);

/// What a person was asked about.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub wanted: Wanted,
    pub needs: Vec<NeedsYes>,
}

/// What a call of `apply_changes` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub run: String,
    pub only: Vec<String>,
    pub partial: bool,
    pub dry_run: bool,
}

/// The questions of the last minutes. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Arc<Mutex<Vec<Question>>>);

#[derive(Debug)]
struct Question {
    at: Instant,
    run: String,
    refused: Vec<NeedsYes>,
}

impl Asked {
    /// Notes a question that is about to be asked; or says why it may not be.
    pub(super) fn note(&self, run: &str, needs: &[NeedsYes]) -> Result<(), &'static str> {
        let mut lately = self.lately();
        let mut of_run = lately.iter().filter(|one| one.run == run);
        if of_run.clone().any(|one| needs.iter().any(|need| one.refused.contains(need))) {
            return Err("the person has said no to this already");
        }
        if of_run.nth(MOST - 1).is_some() {
            return Err("the person was asked about this run several times in the last minutes");
        }
        lately.push(Question { at: Instant::now(), run: run.to_owned(), refused: Vec::new() });
        Ok(())
    }

    /// Notes that the person said no.
    pub(super) fn refuse(&self, run: &str, needs: &[NeedsYes]) {
        let refused = needs.to_vec();
        self.lately().push(Question { at: Instant::now(), run: run.to_owned(), refused });
    }

    fn lately(&self) -> MutexGuard<'_, Vec<Question>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.at.elapsed() < WITHIN);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::changeset::{Alteration, RelPath};

    fn need(path: &str) -> NeedsYes {
        let path = RelPath::new(path).expect("a path");
        NeedsYes {
            path: path.to_string(),
            why: "it is trusted",
            change: Alteration {
                path,
                before: None,
                after: None,
                from: None,
                base_moved: false,
                written: None,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_no_stands_and_nobody_is_asked_without_end() {
        let asked = Asked::default();
        let (one, two) = (need("a"), need("b"));
        asked.note("r", &[one.clone(), two.clone()]).expect("the first question");
        asked.refuse("r", &[one.clone(), two.clone()]);
        assert!(asked.note("r", std::slice::from_ref(&two)).is_err(), "a part of what was refused");
        asked.note("r", &[need("c")]).expect("something else of that run");
        assert!(asked.note("r", &[need("d")]).is_err(), "no more of that run");
        asked.note("s", std::slice::from_ref(&one)).expect("another run");
        tokio::time::advance(WITHIN).await;
        asked.note("r", &[one, two]).expect("minutes later");
    }
}
