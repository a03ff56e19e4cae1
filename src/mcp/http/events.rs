//! What was said on the streams of sessions, for clients that come back with `Last-Event-ID`.
//!
//! Bounded in memory: of each stream the newest events, and of all streams the newest. What is no
//! longer here is still on record, and `get_run` has it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream;
use rmcp::model::JsonRpcMessage;
use rmcp::transport::streamable_http_server::session::{
    EventId, EventStore, EventStoreError, EventStream, ServerSseMessage,
};
use tokio::sync::watch;
use tokio::time::Instant;

/// How many events of one stream are kept. Progress is the most of them, and only the last counts.
const OF_ONE: usize = 64;

/// Room for all streams, as long as their messages are on the wire.
const ROOM: usize = 16 << 20;

/// Most streams, and for how long those are kept whose answer is out.
const STREAMS: usize = 4096;
const KEPT: Duration = Duration::from_secs(600);

/// How often they are looked at for that.
const TIDY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub(super) struct Events(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    streams: HashMap<String, Told>,
    /// The streams in the order in which they began.
    order: VecDeque<String>,
    bytes: usize,
    tidied: Option<Instant>,
}

#[derive(Debug)]
struct Told {
    events: VecDeque<Event>,
    next: u64,
    /// When the answer was given.
    done: Option<Instant>,
    /// Changes with each event, for those who listen.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Event {
    number: u64,
    size: usize,
    message: ServerSseMessage,
}

/// What there is for who has seen some of a stream.
enum Next {
    Event(u64, ServerSseMessage),
    Wait(watch::Receiver<()>),
    End,
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what was said unasked in a session that is over; its answers may still be wanted.
    pub fn forget_session(&self, id: &str) {
        let mut kept = self.lock();
        let unasked = format!("{id}:common");
        kept.order.retain(|stream| *stream != unasked);
        kept.remove(&unasked);
    }

    fn next(&self, stream: &str, seen: u64) -> Next {
        let kept = self.lock();
        let Some(told) = kept.streams.get(stream) else { return Next::End };
        match told.events.iter().find(|event| event.number > seen) {
            Some(event) => Next::Event(event.number, event.message.clone()),
            None if told.done.is_some() => Next::End,
            None => Next::Wait(told.news.subscribe()),
        }
    }

    /// Everything behind `seen`, as it comes, to the answer.
    fn follow(self, stream: String, seen: u64) -> EventStream {
        Box::pin(stream::unfold((self, stream, seen), |(events, stream, seen)| async move {
            loop {
                match events.next(&stream, seen) {
                    Next::Event(number, message) => {
                        return Some((message, (events, stream, number)));
                    }
                    // An error is the end of the stream, which the next look sees.
                    Next::Wait(mut news) => drop(news.changed().await),
                    Next::End => return None,
                }
            }
        }))
    }
}

impl Kept {
    fn add(&mut self, stream: &str, message: &ServerSseMessage) -> EventId {
        self.tidy();
        if !self.streams.contains_key(stream) {
            self.order.push_back(stream.to_owned());
        }
        let told = self.streams.entry(stream.to_owned()).or_insert_with(|| Told {
            events: VecDeque::new(),
            // Zero is the number of whoever has seen nothing.
            next: 1,
            done: None,
            news: watch::Sender::new(()),
        });
        let number = told.next;
        told.next += 1;
        let id = format!("{number}:{stream}");
        let (size, mut message) = (size_of(message), message.clone());
        message.event_id = Some(id.clone());
        if is_answer(&message) {
            told.done = Some(Instant::now());
        }
        told.events.push_back(Event { number, size, message });
        self.bytes += size;
        if told.events.len() > OF_ONE
            && let Some(oldest) = told.events.pop_front()
        {
            self.bytes -= oldest.size;
        }
        told.news.send_replace(());
        while (self.bytes > ROOM || self.streams.len() > STREAMS) && self.drop_oldest(stream) {}
        id
    }

    /// Lets go what was answered long ago, now and then.
    fn tidy(&mut self) {
        if self.tidied.is_some_and(|last| last.elapsed() < TIDY) {
            return;
        }
        self.tidied = Some(Instant::now());
        let is_old = |told: &Told| told.done.is_some_and(|done| done.elapsed() >= KEPT);
        let old = self.streams.iter().filter(|(_, told)| is_old(told)).map(|(id, _)| id.clone());
        for id in old.collect::<Vec<_>>() {
            self.remove(&id);
        }
        self.order.retain(|id| self.streams.contains_key(id));
    }

    /// Drops a stream other than `spared`, answered ones first. False where there is none.
    fn drop_oldest(&mut self, spared: &str) -> bool {
        let is_done = |id: &&String| self.streams.get(*id).is_some_and(|told| told.done.is_some());
        let others = || self.order.iter().filter(|id| *id != spared);
        let Some(oldest) = others().find(is_done).or_else(|| others().next()).cloned() else {
            return false;
        };
        self.order.retain(|id| *id != oldest);
        self.remove(&oldest);
        true
    }

    fn remove(&mut self, stream: &str) {
        if let Some(told) = self.streams.remove(stream) {
            self.bytes -= told.events.iter().map(|event| event.size).sum::<usize>();
        }
    }
}

fn is_answer(event: &ServerSseMessage) -> bool {
    event.message.as_deref().is_some_and(|message| {
        matches!(message, JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_))
    })
}

fn size_of(event: &ServerSseMessage) -> usize {
    const FRAME: usize = 200;
    let message = event.message.as_deref();
    let length = message.and_then(|message| serde_json::to_vec(message).ok());
    FRAME + length.map_or(0, |json| json.len())
}

#[async_trait]
impl EventStore for Events {
    async fn store_event(
        &self,
        stream_id: &str,
        event: &ServerSseMessage,
    ) -> Result<EventId, EventStoreError> {
        Ok(self.lock().add(stream_id, event))
    }

    async fn replay_events_after(&self, last: &str) -> Result<EventStream, EventStoreError> {
        let (number, stream) = last.split_once(':').ok_or("it is no event of this server")?;
        let seen = number.parse()?;
        if !self.lock().streams.contains_key(stream) {
            return Err("the stream is no longer kept; get_run has the result of a run".into());
        }
        Ok(self.clone().follow(stream.to_owned(), seen))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use rmcp::model::{
        CallToolResult, ContentBlock, RequestId, ServerJsonRpcMessage, ServerResult,
    };

    use super::*;

    fn note(text: &str) -> ServerSseMessage {
        let error = rmcp::model::ErrorData::internal_error(text.to_owned(), None);
        let mut note = ServerSseMessage::from_message(ServerJsonRpcMessage::error(error, None));
        note.message = None;
        note.retry = Some(Duration::from_secs(1));
        note
    }

    fn answer(text: &str) -> ServerSseMessage {
        let result = CallToolResult::success(vec![ContentBlock::text(text)]);
        let result = ServerResult::CallToolResult(result);
        ServerSseMessage::from_message(ServerJsonRpcMessage::response(result, RequestId::Number(1)))
    }

    async fn ids(events: &Events, after: &str) -> Vec<String> {
        let stream = events.replay_events_after(after).await.expect("kept");
        stream.map(|event| event.event_id.expect("an id")).collect().await
    }

    #[tokio::test]
    async fn who_comes_back_gets_the_rest_and_then_what_comes_to_the_answer() {
        let events = Events::default();
        let first = events.store_event("a", &note("1")).await.expect("kept");
        events.store_event("b", &note("other")).await.expect("kept");
        let second = events.store_event("a", &note("2")).await.expect("kept");
        let mut coming = events.replay_events_after(&first).await.expect("kept");
        assert_eq!(coming.next().await.and_then(|event| event.event_id), Some(second));
        let waits = tokio::spawn(coming.collect::<Vec<_>>());
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        let last = events.store_event("a", &answer("done")).await.expect("kept");
        let rest = waits.await.expect("ended with the answer");
        assert_eq!(
            rest.iter().map(|e| e.event_id.clone()).collect::<Vec<_>>(),
            [Some(last.clone())]
        );
        assert_eq!(ids(&events, &first).await.last(), Some(&last), "again, when all is over");
        assert_eq!(ids(&events, &last).await, [] as [&str; 0]);
    }

    #[tokio::test]
    async fn odd_ids_open_nothing() {
        let events = Events::default();
        let id = events.store_event("a", &answer("x")).await.expect("kept");
        for odd in ["", "0", "a", ":a", "x:a", "-1:a", "1:b", "1:", "99999999999999999999:a"] {
            assert!(events.replay_events_after(odd).await.is_err(), "{odd}");
        }
        assert_eq!(ids(&events, "0:a").await, [id]);
    }

    #[tokio::test]
    async fn the_room_is_bounded_and_running_streams_are_the_last_to_go() {
        let events = Events::default();
        for number in 0..1000 {
            events.store_event("talkative", &note(&number.to_string())).await.expect("kept");
        }
        assert_eq!(events.lock().streams["talkative"].events.len(), OF_ONE);
        let big = "x".repeat(1 << 20);
        for number in 0..40 {
            events.store_event(&format!("s{number}"), &answer(&big)).await.expect("kept");
        }
        assert!(events.lock().bytes <= ROOM);
        assert!(events.replay_events_after("0:talkative").await.is_ok(), "it is not answered yet");
        assert!(events.replay_events_after("0:s0").await.is_err());
        assert_eq!(ids(&events, "0:s39").await.len(), 1);
        for number in 0..STREAMS + 10 {
            events.store_event(&format!("n{number}"), &note("")).await.expect("kept");
        }
        let kept = events.lock();
        assert_eq!((kept.streams.len(), kept.order.len()), (STREAMS, STREAMS));
        let sum: usize = kept.streams.values().flat_map(|told| &told.events).map(|e| e.size).sum();
        assert_eq!(kept.bytes, sum);
    }

    #[tokio::test]
    async fn who_listens_to_a_stream_that_is_dropped_hears_the_end() {
        let events = Events::default();
        let first = events.store_event("a", &note("1")).await.expect("kept");
        let coming = events.replay_events_after(&first).await.expect("kept");
        let waits = tokio::spawn(coming.collect::<Vec<_>>());
        tokio::task::yield_now().await;
        events.lock().remove("a");
        assert!(waits.await.expect("ended").is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn answered_streams_are_let_go_after_a_while() {
        let events = Events::default();
        for unanswered in ["s:common", "t:common"] {
            events.store_event(unanswered, &note("1")).await.expect("kept");
        }
        events.store_event("a", &answer("x")).await.expect("kept");
        tokio::time::advance(KEPT).await;
        events.store_event("b", &note("1")).await.expect("kept");
        assert!(events.replay_events_after("0:a").await.is_err());
        events.forget_session("s");
        assert!(events.replay_events_after("0:s:common").await.is_err());
        for kept in ["0:b", "0:t:common"] {
            assert!(events.replay_events_after(kept).await.is_ok(), "{kept}");
        }
        assert_eq!(events.lock().order, ["t:common", "b"]);
    }
}
