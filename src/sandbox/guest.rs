//! Our side of the conversation with `image/init`, PID 1 of the sandbox.
//!
//! It first sends its receipt as one line; then it takes orders: the frames `argv N`, `env N` and
//! `task N`, each with N bytes, and `go NONCE`, which starts the command. When that has ended, and
//! nothing else lives in the sandbox, it says so with the nonce on both streams; `stop` ends it
//! before. `pause NONCE` and `resume` stop its processes for a while. Our end of its standard input is the dead-man's switch: when it closes, the sandbox ends.

use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Receipt;
use crate::engine::{Error, Output};

/// Exit codes by which the guest says why it ended.
pub const OWNER_GONE: i64 = 251;
pub const DEADLINE: i64 = 252;
pub const OVERGROWN: i64 = 253;

/// What the guest is to run.
#[derive(Debug)]
pub struct Order<'a> {
    pub argv: &'a [String],
    /// Variables besides the image's own.
    pub environment: &'a [(String, String)],
    /// Its standard input.
    pub task: &'a [u8],
}

/// How an order ended, in the guest's own words. Nothing but the guest lives in the sandbox then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Ended {
    /// The exit code; 128 and more where it was a signal.
    pub code: i64,
    pub signal: Option<i64>,
    /// How often the kernel killed something for want of memory meanwhile; none where it is not
    /// known.
    pub oom_kills: Option<u64>,
}

impl Ended {
    pub fn out_of_memory(&self) -> bool {
        self.oom_kills.is_some_and(|kills| kills > 0)
    }
}

/// Tells the guest's word on an order's end from everything else that is printed: by a nonce that
/// no process inside has ever seen but the guest.
#[derive(Debug)]
pub struct Watch {
    nonce: String,
    ended: Option<Ended>,
    /// The other stream has nothing more of this order.
    mark: bool,
}

impl Watch {
    pub fn new() -> Result<Self, super::Error> {
        let mut bytes = [0_u8; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        // Sixteen bytes are never handed out in part.
        rustix::rand::getrandom(&mut bytes, flags).map_err(|errno| super::Error::Io {
            what: "get a random number".into(),
            source: errno.into(),
        })?;
        Ok(Self { nonce: crate::text::hex(&bytes), ended: None, mark: false })
    }

    pub(super) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Whether this line was the guest's.
    pub fn takes(&mut self, line: &Line) -> bool {
        match line {
            Line::Stdout(text) if self.ended.is_none() => {
                self.ended = ended(text, &self.nonce);
                self.ended.is_some()
            }
            Line::Stderr(text) if text.strip_prefix("sandbox.ended ") == Some(&self.nonce) => {
                self.mark = true;
                true
            }
            _ => false,
        }
    }

    /// How the order ended, once both streams have said so.
    pub fn ended(&self) -> Option<Ended> {
        self.ended.filter(|_| self.mark)
    }
}

fn ended(line: &str, nonce: &str) -> Option<Ended> {
    // The cheap look first: lines of the agent can be megabytes.
    if !line.starts_with(r#"{"type":"sandbox.ended","#) {
        return None;
    }
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    if value["nonce"] != nonce {
        return None;
    }
    serde_json::from_value(value).ok()
}

/// One line of the guest's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Stdout(String),
    Stderr(String),
    /// A line over the limit, of which only its length is kept.
    TooLong {
        bytes: usize,
    },
    /// The order has ended; no more lines of it follow.
    Ended(Ended),
}

/// Cuts the engine's pieces into lines, with bounded memory whatever comes.
pub struct Lines {
    pieces: Pin<Box<dyn Stream<Item = Result<Output, Error>> + Send>>,
    stdout: Buffer,
    stderr: Buffer,
    ended: bool,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Lines {
    pub fn new(
        pieces: Pin<Box<dyn Stream<Item = Result<Output, Error>> + Send>>,
        limit: usize,
    ) -> Self {
        Self { pieces, stdout: Buffer::new(limit), stderr: Buffer::new(limit), ended: false }
    }

    /// The next line; none when the container's output has ended. Safe to drop and call again.
    pub async fn next(&mut self) -> Option<Result<Line, Error>> {
        loop {
            if let Some(line) = self.stdout.line(self.ended) {
                return Some(Ok(line.map_or_else(|bytes| Line::TooLong { bytes }, Line::Stdout)));
            }
            if let Some(line) = self.stderr.line(self.ended) {
                return Some(Ok(line.map_or_else(|bytes| Line::TooLong { bytes }, Line::Stderr)));
            }
            if self.ended {
                return None;
            }
            match self.pieces.next().await {
                Some(Ok(Output::Stdout(piece))) => self.stdout.add(&piece),
                Some(Ok(Output::Stderr(piece))) => self.stderr.add(&piece),
                Some(Err(error)) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                None => self.ended = true,
            }
        }
    }
}

/// Bytes of one stream that are not yet a line.
struct Buffer {
    bytes: BytesMut,
    /// How far it has been searched for a line's end.
    searched: usize,
    /// Bytes of an over-long line that were dropped.
    dropped: usize,
    limit: usize,
}

impl Buffer {
    fn new(limit: usize) -> Self {
        Self { bytes: BytesMut::new(), searched: 0, dropped: 0, limit }
    }

    fn add(&mut self, piece: &Bytes) {
        self.bytes.extend_from_slice(piece);
    }

    /// The next line as text, or the length of one that was too long.
    fn line(&mut self, ended: bool) -> Option<Result<String, usize>> {
        let found = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        match found {
            Some(at) => {
                let line = self.bytes.split_to(self.searched + at);
                self.bytes.advance(1);
                self.searched = 0;
                Some(self.finish(&line))
            }
            None if self.bytes.len() > self.limit => {
                self.dropped += self.bytes.len();
                self.bytes.clear();
                self.searched = 0;
                None
            }
            None if ended && (!self.bytes.is_empty() || self.dropped > 0) => {
                let line = self.bytes.split();
                self.searched = 0;
                Some(self.finish(&line))
            }
            None => {
                self.searched = self.bytes.len();
                None
            }
        }
    }

    fn finish(&mut self, line: &[u8]) -> Result<String, usize> {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 || line.len() > self.limit {
            return Err(dropped + line.len());
        }
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

/// Reads the receipt; anything else as the first line is not our guest.
pub fn receipt(line: &str) -> Option<Receipt> {
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    if value["type"] != "sandbox.receipt" {
        return None;
    }
    serde_json::from_value(value).ok()
}

/// Sends an order, whose end will be told with the nonce of `watch`.
pub async fn order(
    input: &mut Pin<Box<dyn AsyncWrite + Send>>,
    order: &Order<'_>,
    watch: &Watch,
) -> std::io::Result<()> {
    let argv: Vec<u8> =
        order.argv.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let environment: Vec<u8> = order
        .environment
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())
        .collect();
    for (name, bytes) in [("argv", &*argv), ("env", &*environment), ("task", order.task)] {
        input.write_all(format!("{name} {}\n", bytes.len()).as_bytes()).await?;
        input.write_all(bytes).await?;
    }
    input.write_all(format!("go {}\n", watch.nonce).as_bytes()).await?;
    input.flush().await
}

/// Has the guest end the order that goes on. Does nothing where it has ended already.
pub async fn stop(input: &mut Pin<Box<dyn AsyncWrite + Send>>) -> std::io::Result<()> {
    input.write_all(b"stop\n").await?;
    input.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(pieces: Vec<Output>, limit: usize) -> Vec<Line> {
        let pieces = futures_util::stream::iter(pieces.into_iter().map(Ok));
        let mut lines = Lines::new(Box::pin(pieces), limit);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await {
            all.push(line.expect("no engine error"));
        }
        all
    }

    fn out(text: &'static str) -> Output {
        Output::Stdout(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_are_whole_however_the_engine_cuts() {
        let seen = lines(vec![out("a\nb"), out("c\n\nd"), out("")], 100).await;
        let expected = ["a", "bc", "", "d"].map(|text| Line::Stdout(text.into()));
        assert_eq!(seen, expected);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_counted_and_the_next_one_kept() {
        let seen = lines(vec![out("123456"), out("789"), out("0\nok\n")], 5).await;
        assert_eq!(seen, [Line::TooLong { bytes: 10 }, Line::Stdout("ok".into())]);
    }

    #[tokio::test]
    async fn the_two_streams_do_not_mix() {
        let seen =
            lines(vec![out("a"), Output::Stderr(Bytes::from_static(b"e\n")), out("b\n")], 100)
                .await;
        assert_eq!(seen, [Line::Stderr("e".into()), Line::Stdout("ab".into())]);
    }

    #[tokio::test]
    async fn frames_are_counted_in_bytes() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut input: Pin<Box<dyn AsyncWrite + Send>> = Box::pin(ours);
        let watch = Watch::new().expect("a nonce");
        let what = Order {
            argv: &["/bin/echo".into(), "a b".into()],
            environment: &[("A".into(), "ü".into())],
            task: "ß\n".as_bytes(),
        };
        order(&mut input, &what, &watch).await.expect("sent");
        stop(&mut input).await.expect("sent");
        drop(input);
        let mut sent = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut theirs, &mut sent).await.expect("read");
        let go = format!("go {}\n", watch.nonce);
        let expected = format!("argv 14\n/bin/echo\0a b\0env 5\nA=ü\0task 3\nß\n{go}stop\n");
        assert_eq!(sent, expected);
    }

    fn told(nonce: &str) -> Line {
        let end = r#""code":137,"signal":9,"oom_kills":1}"#;
        Line::Stdout(format!(r#"{{"type":"sandbox.ended","nonce":"{nonce}",{end}"#))
    }

    #[test]
    fn only_the_nonce_makes_an_end() {
        let mut watch = Watch::new().expect("a nonce");
        let nonce = watch.nonce.clone();
        assert_eq!(nonce.len(), 32);
        let other = Watch::new().expect("a nonce").nonce;
        assert_ne!(nonce, other);
        for forged in ["", &other, &nonce[..31], &nonce.to_uppercase()] {
            let same = forged == nonce;
            assert!(same || !watch.takes(&told(forged)), "{forged}");
        }
        assert!(!watch.takes(&Line::Stdout(r#"{"type":"sandbox.ended","code":0}"#.into())));
        assert!(!watch.takes(&Line::Stderr(format!("sandbox.ended {other}"))));
        assert_eq!(watch.ended(), None);
        assert!(watch.takes(&told(&nonce)));
        assert_eq!(watch.ended(), None, "the other stream may still have lines");
        assert!(watch.takes(&Line::Stderr(format!("sandbox.ended {nonce}"))));
        let expected = Ended { code: 137, signal: Some(9), oom_kills: Some(1) };
        assert_eq!(watch.ended(), Some(expected));
        assert!(expected.out_of_memory());
    }
}
