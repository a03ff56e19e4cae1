//! Our side of the conversation with `image/init`, PID 1 of the sandbox.
//!
//! It first sends its receipt as one line; then it takes frames: `env N`, `task N`, each with N
//! bytes, and `go`, which starts the agent. From then on our end of its standard input is the
//! dead-man's switch: when it closes, the sandbox ends.

use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Receipt;
use crate::engine::{Error, Output};

/// Exit codes by which the guest says why it ended.
pub const OWNER_GONE: i64 = 251;
pub const DEADLINE: i64 = 252;

/// How the guest's word begins that the agent was killed and the container was not.
pub const AGENT_KILLED: &str = "init: the agent was killed by signal";

/// One line of the guest's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Stdout(String),
    Stderr(String),
    /// A line over the limit, of which only its length is kept.
    TooLong {
        bytes: usize,
    },
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

/// Sends the agent's environment and the task, and starts the agent.
pub async fn go(
    input: &mut Pin<Box<dyn AsyncWrite + Send>>,
    environment: &[(String, String)],
    task: &[u8],
) -> std::io::Result<()> {
    let environment: Vec<u8> = environment
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())
        .collect();
    input.write_all(format!("env {}\n", environment.len()).as_bytes()).await?;
    input.write_all(&environment).await?;
    input.write_all(format!("task {}\n", task.len()).as_bytes()).await?;
    input.write_all(task).await?;
    input.write_all(b"go\n").await?;
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
        go(&mut input, &[("A".into(), "ü".into())], "ß\n".as_bytes()).await.expect("sent");
        drop(input);
        let mut sent = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut theirs, &mut sent).await.expect("read");
        assert_eq!(sent, "env 5\nA=ü\0task 3\nß\ngo\n");
    }
}
