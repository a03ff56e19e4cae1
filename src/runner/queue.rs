//! At most so many runs at once; the rest wait in the order in which they came.

use std::collections::VecDeque;

use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Places for runs.
#[derive(Debug)]
pub struct Queue {
    places: Semaphore,
    waiting: watch::Sender<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    tickets: VecDeque<u64>,
}

impl Queue {
    pub fn new(places: usize) -> Self {
        Self { places: Semaphore::new(places), waiting: watch::Sender::default() }
    }

    /// Waits for a place. `told` is called with the number of runs ahead, at first and whenever it
    /// changes; never when there is a place at once.
    pub async fn enter(&self, mut told: impl FnMut(usize)) -> SemaphorePermit<'_> {
        if let Ok(place) = self.places.try_acquire() {
            return place;
        }
        let ticket = Ticket::take(&self.waiting);
        let mut changes = self.waiting.subscribe();
        let place = self.places.acquire();
        tokio::pin!(place);
        let mut last = None;
        loop {
            let ahead = ticket.ahead();
            if last.replace(ahead) != Some(ahead) {
                told(ahead);
            }
            tokio::select! {
                // The semaphore is never closed; were it, waiting would be the safe answer.
                Ok(place) = &mut place => return place,
                Ok(()) = changes.changed() => {}
            }
        }
    }
}

/// A place in the line, given up when dropped.
struct Ticket<'a> {
    number: u64,
    waiting: &'a watch::Sender<Waiting>,
}

impl<'a> Ticket<'a> {
    fn take(waiting: &'a watch::Sender<Waiting>) -> Self {
        let mut number = 0;
        waiting.send_modify(|line| {
            number = line.next;
            line.next += 1;
            line.tickets.push_back(number);
        });
        Self { number, waiting }
    }

    fn ahead(&self) -> usize {
        let line = self.waiting.borrow();
        line.tickets.iter().position(|ticket| *ticket == self.number).unwrap_or_default()
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.send_modify(|line| line.tickets.retain(|ticket| *ticket != self.number));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn who_comes_first_goes_first_and_knows_its_place() {
        let queue = Arc::new(Queue::new(1));
        let first = queue.enter(|_| panic!("there is a place")).await;
        let told = Arc::new(Mutex::new(Vec::new()));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for name in ["b", "c"] {
            let (queue, told, order) = (queue.clone(), told.clone(), order.clone());
            waiting.push(tokio::spawn(async move {
                let place =
                    queue.enter(|ahead| told.lock().expect("lock").push((name, ahead))).await;
                order.lock().expect("lock").push(name);
                drop(place);
            }));
            tokio::task::yield_now().await;
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
        let queue = Queue::new(1);
        let first = queue.enter(|_| ()).await;
        let gone = tokio::time::timeout(std::time::Duration::from_millis(5), queue.enter(|_| ()));
        assert!(gone.await.is_err());
        assert!(queue.waiting.borrow().tickets.is_empty());
        drop(first);
        drop(queue.enter(|_| panic!("there is a place")).await);
    }
}
