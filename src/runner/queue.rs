//! At most so many runs at once on this machine; the rest wait in the order in which they came.

use std::io;
use std::path::Path;

use super::line::{LOOK, Line, Ticket};

/// Places for runs, shared by all processes of this user.
#[derive(Debug)]
pub struct Queue {
    line: Line,
    places: usize,
}

/// A place among the runs, given back when dropped.
#[derive(Debug)]
pub struct Place {
    _ticket: Ticket,
}

impl Queue {
    /// Each process has its own opinion on the number of `places`, as its settings say.
    pub fn new(state: &Path, places: usize) -> Self {
        Self { line: Line::new(state.join("lines/places")), places }
    }

    /// Waits for a place: until fewer runs than there are places came before this one. `told` is
    /// called with the number of runs ahead that wait as well, at first and whenever it changes;
    /// never when there is a place at once.
    pub async fn enter(&self, mut told: impl FnMut(usize)) -> io::Result<Place> {
        let mut ticket = self.line.join().await?;
        let mut last = None;
        loop {
            let before = ticket.ahead()?;
            if before < self.places {
                return Ok(Place { _ticket: ticket });
            }
            let ahead = before - self.places;
            if last.replace(ahead) != Some(ahead) {
                told(ahead);
            }
            tokio::time::sleep(LOOK).await;
            if !ticket.is_seen() {
                ticket = self.line.join().await?;
            }
        }
    }

    /// How many have a place and how many wait for one, as our own settings count places.
    pub fn crowd(&self) -> io::Result<(usize, usize)> {
        let all = self.line.length()?;
        let running = all.min(self.places);
        Ok((running, all - running))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_comes_first_goes_first_and_knows_its_place() {
        let state = tempfile::tempdir().expect("temp");
        // Each as if in a process of its own.
        let queue = || Queue::new(state.path(), 1);
        let first = queue().enter(|_| panic!("there is a place")).await.expect("a place");
        let told = Arc::new(Mutex::new(Vec::new()));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for name in ["b", "c"] {
            let (queue, told, order) = (queue(), told.clone(), order.clone());
            let count = told.lock().expect("lock").len();
            let seen = told.clone();
            waiting.push(tokio::spawn(async move {
                let place = queue.enter(|ahead| told.lock().expect("lock").push((name, ahead)));
                let place = place.await.expect("a place");
                order.lock().expect("lock").push(name);
                drop(place);
            }));
            while seen.lock().expect("lock").len() == count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        drop(first);
        for one in waiting {
            one.await.expect("ended");
        }
        assert_eq!(*order.lock().expect("lock"), ["b", "c"]);
        let told = told.lock().expect("lock");
        assert_eq!(told[..2], [("b", 0), ("c", 1)]);
    }

    #[tokio::test]
    async fn one_who_leaves_the_line_makes_room() {
        let state = tempfile::tempdir().expect("temp");
        let queue = Queue::new(state.path(), 1);
        let first = queue.enter(|_| ()).await.expect("a place");
        let gone = tokio::time::timeout(Duration::from_millis(50), queue.enter(|_| ()));
        assert!(gone.await.is_err());
        drop(first);
        drop(queue.enter(|_| panic!("there is a place")).await.expect("a place"));
    }

    #[tokio::test]
    async fn each_goes_by_its_own_number_of_places() {
        let state = tempfile::tempdir().expect("temp");
        let (one, two) = (Queue::new(state.path(), 1), Queue::new(state.path(), 2));
        let _first = one.enter(|_| panic!("there is a place")).await.expect("a place");
        let second = two.enter(|_| panic!("there are two places")).await.expect("a place");
        let refused = tokio::time::timeout(Duration::from_millis(50), one.enter(|_| ()));
        assert!(refused.await.is_err());
        drop(second);
    }

    #[tokio::test]
    async fn a_line_that_was_removed_is_stood_in_again() {
        let state = tempfile::tempdir().expect("temp");
        let queue = Queue::new(state.path(), 1);
        let first = queue.enter(|_| ()).await.expect("a place");
        let lines = state.path().join("lines");
        let waiting = queue.enter(|_| std::fs::remove_dir_all(&lines).expect("removed"));
        let place = tokio::time::timeout(Duration::from_secs(5), waiting);
        let place = place.await.expect("in time").expect("a place");
        let refused = tokio::time::timeout(Duration::from_millis(50), queue.enter(|_| ()));
        assert!(refused.await.is_err());
        drop((first, place));
    }
}
