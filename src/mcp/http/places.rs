//! The places of connections.
//!
//! A connection is a stranger's until a request on it has brought the token. Strangers have places
//! of their own, of which the oldest is taken from them when somebody comes: however many
//! connections they make, they can never take the places of clients.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;

/// Fewest strangers at once: what a host opens in one go is not to push itself out.
const FEWEST: usize = 64;

/// Time of a newcomer for its first request before its place may be taken.
const GRACE: Duration = Duration::from_millis(250);

/// Longest wait of a client for a place. A connection may not rest that long between two requests.
const WAIT: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Places {
    strangers: Mutex<Strangers>,
    most_strangers: usize,
    most_clients: usize,
    clients: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Strangers {
    /// In the order in which they came.
    queue: VecDeque<Stranger>,
    next: u64,
}

#[derive(Debug)]
struct Stranger {
    number: u64,
    since: Instant,
    dismissed: CancellationToken,
}

impl Places {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            strangers: Mutex::default(),
            most_strangers: most.max(FEWEST),
            most_clients: most,
            clients: Arc::new(Semaphore::new(most)),
        })
    }

    /// Waits until a newcomer may come in.
    pub async fn vacancy(&self) {
        loop {
            let oldest = {
                let strangers = self.strangers();
                let is_full = strangers.queue.len() >= self.most_strangers;
                strangers.queue.front().filter(|_| is_full).map(|oldest| oldest.since)
            };
            match oldest {
                Some(since) if since.elapsed() < GRACE => sleep_until(since + GRACE).await,
                _ => return,
            }
        }
    }

    /// A place for a newcomer, which may cost the oldest stranger its own.
    pub fn enter(self: &Arc<Self>) -> Arc<Place> {
        let dismissed = CancellationToken::new();
        let mut strangers = self.strangers();
        if strangers.queue.len() >= self.most_strangers
            && let Some(oldest) = strangers.queue.pop_front()
        {
            oldest.dismissed.cancel();
        }
        let number = strangers.next;
        strangers.next += 1;
        let (since, theirs) = (Instant::now(), dismissed.clone());
        strangers.queue.push_back(Stranger { number, since, dismissed: theirs });
        drop(strangers);
        Arc::new(Place { places: self.clone(), number, dismissed, permit: OnceLock::new() })
    }

    fn strangers(&self) -> MutexGuard<'_, Strangers> {
        // Nothing panics while it is held.
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    /// Cancelled when the connection has to go.
    pub dismissed: CancellationToken,
    permit: OnceLock<OwnedSemaphorePermit>,
}

impl Place {
    /// The connection is a client's, now that a request on it has brought the token.
    pub async fn is_a_clients(&self) -> Result<(), Refusal> {
        if self.permit.get().is_some() {
            return Ok(());
        }
        self.leave_strangers();
        match timeout(WAIT, self.places.clients.clone().acquire_owned()).await {
            Ok(Ok(permit)) => {
                // A connection has one request at a time, so that nobody else has set it.
                drop(self.permit.set(permit));
                Ok(())
            }
            _ => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("all {} connections of this server are in use", self.places.most_clients),
                "close one, wait, or raise `[http] connections`",
            )),
        }
    }

    /// Gives back a client's place for a stranger's.
    pub fn as_a_strangers(self: Arc<Self>) -> Arc<Self> {
        let places = self.places.clone();
        drop(self);
        places.enter()
    }

    fn leave_strangers(&self) {
        self.places.strangers().queue.retain(|one| one.number != self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave_strangers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn strangers_push_out_strangers_and_never_a_client() {
        let places = Places::new(4);
        let mut clients = Vec::new();
        for _ in 0..4 {
            let client = places.enter();
            client.is_a_clients().await.expect("a place");
            clients.push(client);
        }
        let mut strangers: Vec<_> = (0..FEWEST).map(|_| places.enter()).collect();
        let began = Instant::now();
        places.vacancy().await;
        assert_eq!(began.elapsed(), GRACE, "they have their time");
        strangers.push(places.enter());
        assert!(strangers[0].dismissed.is_cancelled() && !strangers[1].dismissed.is_cancelled());
        assert!(clients.iter().all(|client| !client.dismissed.is_cancelled()));

        let refused = strangers[1].is_a_clients().await.expect_err("all are in use");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(clients.pop());
        strangers[2].is_a_clients().await.expect("a place was given back");
        strangers[2].is_a_clients().await.expect("it is kept");
        strangers[2] = strangers[2].clone().as_a_strangers();
        strangers[3].is_a_clients().await.expect("a place was given back");
        drop(strangers);
        assert!(places.strangers().queue.is_empty());
        assert_eq!(places.clients.available_permits(), 1);
    }
}
