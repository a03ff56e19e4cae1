//! The bodies of requests, bounded one by one and all together.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::refusal::Refusal;
use crate::mcp::incoming;

/// Longest pause of a body, and longest time for all of it: others wait for its room.
const PAUSE: Duration = Duration::from_secs(30);
const WHOLE: Duration = Duration::from_secs(120);

/// A body of up to this size needs no room; all connections together have some megabytes of them.
const SMALL: usize = 64 << 10;

/// Number of the longest bodies that have room at once.
const AT_ONCE: usize = 4;

/// In what the room is counted.
const UNIT: usize = 1 << 10;

/// Longest wait of a body for room.
const WAIT: Duration = Duration::from_secs(10);

/// The room for all bodies that are on their way.
#[derive(Clone, Debug)]
pub(super) struct Bodies {
    longest: usize,
    room: Arc<Semaphore>,
}

/// A body as its sender meant it.
#[derive(Debug)]
pub(super) struct Read {
    pub bytes: Bytes,
    /// Set for a message that begins a session.
    pub is_greeting: bool,
    /// Set for a message that wants an answer.
    pub is_request: bool,
}

/// Bytes with the room that they take.
struct Kept {
    bytes: Vec<u8>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Bodies {
    pub fn new(longest: usize) -> Self {
        let room = (longest.div_ceil(UNIT) * AT_ONCE).min(Semaphore::MAX_PERMITS);
        Self { longest, room: Arc::new(Semaphore::new(room)) }
    }

    /// Reads a whole body within its bounds. Its room is given back when the bytes are dropped.
    pub async fn read<B>(&self, headers: &HeaderMap, mut body: B) -> Result<Read, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        let told =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if told.is_some_and(|told: usize| told > self.longest) {
            return Err(self.too_long());
        }
        let mut room = match told {
            Some(told) if told > SMALL => Some(self.room_for(told).await?),
            _ => None,
        };
        let until = Instant::now() + WHOLE;
        let mut read = BytesMut::new();
        while !body.is_end_stream() {
            let frame = timeout_at(until.min(Instant::now() + PAUSE), body.frame()).await;
            match frame.map_err(|_| too_slow())? {
                None => break,
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if read.len() + data.len() > self.longest {
                        return Err(self.too_long());
                    }
                    // Its length was not told, so that it may be the longest.
                    if room.is_none() && read.len() + data.len() > SMALL {
                        room = Some(self.room_for(self.longest).await?);
                    }
                    read.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    let message = format!("the body broke off: {error}");
                    return Err(Refusal::new(StatusCode::BAD_REQUEST, &message, "send it again"));
                }
            }
        }
        Ok(meant(read.into(), room))
    }

    async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        match timeout(WAIT, self.room.clone().acquire_many_owned(units)).await {
            Ok(Ok(room)) => Ok(room),
            _ => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many long messages come at once",
                "send it again in a moment",
            )),
        }
    }

    fn too_long(&self) -> Refusal {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("a message may have at most {} bytes", self.longest),
            "the longest task is `limits.task`",
        )
    }
}

fn too_slow() -> Refusal {
    let hint = "send it without long pauses";
    Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come", hint)
}

/// The body as rmcp is to see it. One that is not JSON is left to it, which says so.
fn meant(bytes: Vec<u8>, room: Option<OwnedSemaphorePermit>) -> Read {
    let (mut bytes, mut is_greeting, mut is_request) = (bytes, false, false);
    if let Ok((mut message, replaced)) = incoming::read(&bytes) {
        let mended = incoming::mend(&mut message);
        let method = message.get("method").and_then(serde_json::Value::as_str);
        is_greeting = method == Some("initialize");
        is_request = method.is_some() && message.get("id").is_some();
        if replaced || mended {
            bytes = message.to_string().into_bytes();
        }
    }
    Read { bytes: Bytes::from_owner(Kept { bytes, _room: room }), is_greeting, is_request }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    const LONGEST: usize = 1 << 20;

    fn told(length: usize) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, length.into())])
    }

    fn body(length: usize) -> Full<Bytes> {
        Full::from(vec![b' '; length])
    }

    #[tokio::test(start_paused = true)]
    async fn long_bodies_share_their_room_and_short_ones_need_none() {
        let bodies = Bodies::new(LONGEST);
        let mut kept = Vec::new();
        for headers in [told(LONGEST), HeaderMap::new(), told(LONGEST), HeaderMap::new()] {
            kept.push(bodies.read(&headers, body(LONGEST)).await.expect("there is room"));
        }
        assert_eq!(bodies.room.available_permits(), 0);
        let refused = bodies.read(&told(LONGEST), body(LONGEST)).await.expect_err("no room");
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        bodies.read(&told(SMALL), body(SMALL)).await.expect("needs no room");
        kept.pop();
        bodies.read(&told(LONGEST), body(LONGEST)).await.expect("room was given back");
        for headers in [told(LONGEST + 1), HeaderMap::new()] {
            let refused = bodies.read(&headers, body(LONGEST + 1)).await.expect_err("too long");
            assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(bodies.room.available_permits(), LONGEST / UNIT, "none is lost");
    }

    #[tokio::test]
    async fn a_body_is_read_as_it_was_meant() {
        let bodies = Bodies::new(LONGEST);
        let read = async |body: &'static str| {
            bodies.read(&HeaderMap::new(), Full::from(body)).await.expect("read")
        };
        let greeting = read(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#).await;
        assert!(greeting.is_greeting && greeting.is_request);
        assert!(greeting.bytes.windows(10).any(|part| part == b"clientInfo"));
        let odd = read(r#"{"jsonrpc":"2.0","method":"x","params":{"a":"\ud83d"}}"#).await;
        assert!(!odd.is_greeting && !odd.is_request);
        assert!(String::from_utf8_lossy(&odd.bytes).contains('\u{fffd}'));
        for same in ["", "not JSON", r#"{"jsonrpc": "2.0", "id": 1, "result": {}}"#] {
            assert_eq!(read(same).await.bytes, same);
        }
    }
}
