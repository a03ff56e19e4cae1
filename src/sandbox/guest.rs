//! Our side of the conversation with `image/init`, PID 1 of the sandbox.
//!
//! It first sends its receipt; then it takes orders: a command with its variables and its input, and
//! a nonce that starts it. When that has ended, and nothing else lives in the sandbox, it says so
//! with the nonce; `stop` ends it before. `pause` and `resume` stop its processes for a while. Our
//! end of its standard input is the dead-man's switch: when it closes, the sandbox ends.

use bytes::{Buf, Bytes, BytesMut};

use super::pipe::{Frame, Heard, Kind, Pipe, STDERR, STDOUT};
use super::{Error, Receipt};

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
    /// The reason for which PID 1 ended it, where the engine limits nothing.
    #[serde(default)]
    pub overrun: Option<Overrun>,
}

/// The thing of which an order had too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overrun {
    Memory,
    Processes,
}

impl Ended {
    pub fn out_of_memory(&self) -> bool {
        self.oom_kills.is_some_and(|kills| kills > 0) || self.overrun == Some(Overrun::Memory)
    }
}

/// A word that PID 1 repeats, so that an answer is known from one to another question.
#[derive(Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    pub fn new() -> Result<Self, Error> {
        let mut bytes = [0_u8; 16];
        let flags = rustix::rand::GetRandomFlags::empty();
        // Sixteen bytes are never handed out in part.
        rustix::rand::getrandom(&mut bytes, flags).map_err(|errno| Error::Io {
            what: "get a random number".into(),
            source: errno.into(),
        })?;
        Ok(Self(crate::text::hex(&bytes)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One line of an order's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Stdout(String),
    Stderr(String),
    /// A line over the limit, of which only its length is kept.
    TooLong {
        bytes: usize,
    },
    /// The order has ended; no more lines of it follow. PID 1 alone can say so.
    Ended(Ended),
}

impl Line {
    /// Bytes of memory, about.
    pub(super) fn size(&self) -> usize {
        let text = match self {
            Self::Stdout(text) | Self::Stderr(text) => text.len(),
            Self::TooLong { .. } | Self::Ended(_) => 0,
        };
        size_of::<Self>() + text
    }
}

/// A line or a word of PID 1.
#[derive(Debug)]
pub enum Word {
    Line(Line),
    /// One line of a list of folders.
    Listed(String),
    Receipt(Box<Receipt>),
    /// An order's end, with its nonce.
    Ended(String, Ended),
    /// Another word, with a nonce.
    Said(String),
}

/// Reads a word that is one frame; none where it is no sense.
pub(super) fn hear(frame: &Frame) -> Option<Word> {
    #[derive(serde::Deserialize)]
    struct End {
        nonce: String,
        #[serde(flatten)]
        ended: Ended,
    }
    match frame {
        Frame::Receipt(bytes) => serde_json::from_slice(bytes).ok().map(Word::Receipt),
        Frame::Ended(bytes) => {
            let End { nonce, ended } = serde_json::from_slice(bytes).ok()?;
            Some(Word::Ended(nonce, ended))
        }
        Frame::Said(bytes) => String::from_utf8(bytes.to_vec()).ok().map(Word::Said),
        Frame::Data(..) | Frame::Open(..) | Frame::End(_) | Frame::Reset(_) | Frame::Window(..) => {
            None
        }
    }
}

/// Cuts what comes through the pipe into lines and words, with bounded memory whatever comes.
#[derive(Debug)]
pub struct Words {
    pub pipe: Pipe,
    stdout: Buffer,
    stderr: Buffer,
    listed: Buffer,
    complaints: Buffer,
    /// A word that comes after the lines before it.
    next: Option<Word>,
    /// Nothing more comes.
    is_over: bool,
}

impl Words {
    pub fn new(pipe: Pipe, limit: usize) -> Self {
        let [stdout, stderr, listed, complaints] = [(); 4].map(|()| Buffer::new(limit));
        Self { pipe, stdout, stderr, listed, complaints, next: None, is_over: false }
    }

    /// The next line or word; none when the container's output has ended. Safe to drop and call
    /// again.
    pub async fn next(&mut self) -> Option<Result<Word, Error>> {
        loop {
            let is_over = self.is_over || self.next.is_some();
            let too_long = |bytes| Word::Line(Line::TooLong { bytes });
            let line = |line: Result<String, usize>, make: fn(String) -> Word| {
                Some(Ok(line.map_or_else(too_long, make)))
            };
            if let Some(text) = self.stdout.line(is_over) {
                return line(text, |text| Word::Line(Line::Stdout(text)));
            }
            if let Some(text) = self.stderr.line(is_over) {
                return line(text, |text| Word::Line(Line::Stderr(text)));
            }
            if let Some(text) = self.listed.line(is_over) {
                return line(text, Word::Listed);
            }
            if let Some(text) = self.complaints.line(is_over) {
                return line(text, |text| Word::Line(Line::Stderr(text)));
            }
            if let Some(word) = self.next.take() {
                return Some(Ok(word));
            }
            if self.is_over {
                return None;
            }
            match self.pipe.next().await {
                Some(Ok(Heard::Frame(Frame::Data(channel, bytes)))) => match channel {
                    STDOUT => self.stdout.add(&bytes),
                    STDERR => self.stderr.add(&bytes),
                    _ => self.listed.add(&bytes),
                },
                Some(Ok(Heard::Complaint(bytes))) => self.complaints.add(&bytes),
                Some(Ok(Heard::Frame(frame))) => match hear(&frame) {
                    // Half a line of an agent that goes on stays half.
                    Some(word @ Word::Said(_)) => {
                        // A list ends with a word; one that was given up may end in a name.
                        self.listed.clear();
                        return Some(Ok(word));
                    }
                    Some(word) => self.next = Some(word),
                    None => return Some(Err(Error::NoSense)),
                },
                Some(Err(error)) => return Some(Err(error)),
                None => self.is_over = true,
            }
        }
    }
}

/// Bytes of one stream that are not yet a line.
#[derive(Debug)]
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

    fn clear(&mut self) {
        (self.searched, self.dropped) = (0, 0);
        self.bytes.clear();
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

/// Sends an order, whose end will be told with the nonce.
pub fn order(pipe: &Pipe, order: &Order<'_>, nonce: &Nonce) -> Result<(), Error> {
    let argv: Vec<u8> =
        order.argv.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let environment: Vec<u8> = order
        .environment
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat())
        .collect();
    pipe.send(Kind::Argv, &argv)?;
    pipe.send(Kind::Env, &environment)?;
    pipe.send(Kind::Task, order.task)?;
    pipe.send(Kind::Go, nonce.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;
    use crate::engine::{Attached, Output};
    use crate::sandbox::pipe::{Doors, Wrong};

    type Pieces = Vec<Output>;

    /// Words that some pieces of output are read as, and bytes that were sent meanwhile.
    async fn heard(pieces: Pieces, limit: usize) -> (Vec<Result<Word, Error>>, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let output = Box::pin(futures_util::stream::iter(pieces.into_iter().map(Ok)));
        let mut words =
            Words::new(Pipe::new(Attached { output, input: Box::pin(ours) }, Doors::new()), limit);
        let mut all = Vec::new();
        while let Some(word) = words.next().await {
            all.push(word);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        words.pipe.hang_up().await;
        let mut sent = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut sent).await.expect("read");
        (all, sent)
    }

    fn frame(kind: u8, channel: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).expect("small").to_be_bytes();
        [&[kind, 0, 0, channel], &length[..], bytes].concat()
    }

    fn out(bytes: impl Into<Bytes>) -> Output {
        Output::Stdout(bytes.into())
    }

    async fn shown(pieces: Pieces, limit: usize) -> Vec<String> {
        let (all, _) = heard(pieces, limit).await;
        all.iter()
            .map(|word| match word {
                Ok(Word::Line(line)) => format!("{line:?}"),
                Ok(Word::Ended(nonce, ended)) => format!("{nonce} {ended:?}"),
                Ok(word) => format!("{word:?}"),
                Err(error) => error.to_string(),
            })
            .collect()
    }

    #[tokio::test]
    async fn lines_are_whole_however_they_are_cut_and_streams_do_not_mix() {
        let all = [
            frame(33, 1, b"a\nb"),
            frame(33, 2, b"e"),
            frame(18, 0, b"paused 1"),
            frame(33, 1, b"c\n\nd"),
            frame(17, 0, br#"{"nonce":"n","code":137,"signal":9,"oom_kills":1}"#),
        ];
        let all = all.concat();
        let expected = [
            r#"Stdout("a")"#,
            r#"Said("paused 1")"#,
            r#"Stdout("bc")"#,
            r#"Stdout("")"#,
            r#"Stdout("d")"#,
            r#"Stderr("e")"#,
            "n Ended { code: 137, signal: Some(9), oom_kills: Some(1), overrun: None }",
        ];
        for cut in [1, 7, 100] {
            let pieces = all.chunks(cut).map(|piece| out(piece.to_vec())).collect();
            assert_eq!(shown(pieces, 100).await, expected);
        }
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_counted_and_the_next_one_kept() {
        let pieces = ["123456", "789", "0\nok\n"].map(|text| out(frame(33, 1, text.as_bytes())));
        let seen = shown(pieces.into(), 5).await;
        assert_eq!(seen, ["TooLong { bytes: 10 }", r#"Stdout("ok")"#]);
    }

    #[tokio::test]
    async fn windows_are_told_as_they_are_taken_and_held() {
        let piece = || out(frame(33, 1, &[b'\n'; 1 << 14]));
        let (all, sent) = heard((0..4).map(|_| piece()).collect(), 10).await;
        assert_eq!(all.len(), 4 << 14);
        assert_eq!(sent, frame(36, 1, &(1_u32 << 14).to_be_bytes()).repeat(4));
        // A hostile one that does not wait for them.
        let more = shown((0..5).map(|_| piece()).collect(), 10).await;
        assert!(
            more.iter().any(|word| word.contains(&Wrong::Window(1).to_string())),
            "{}",
            more.len()
        );
    }

    #[tokio::test]
    async fn nonsense_ends_it_with_the_reason() {
        for (pieces, why) in [
            (vec![out("agent's own words")], "a frame of kind 97"),
            (vec![out(frame(33, 1, b""))], "a frame of 0 bytes"),
            (vec![out(frame(17, 0, b"{}"))], "makes no sense"),
            (vec![out(frame(18, 0, b"x").repeat(100))], "too many words"),
        ] {
            let seen = shown(pieces, 100).await;
            assert!(seen.last().is_some_and(|last| last.contains(why)), "{why}: {seen:?}");
        }
    }

    /// Never has anything to read.
    struct Silent;

    impl futures_util::Stream for Silent {
        type Item = Result<Output, crate::engine::Error>;

        fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn an_order_is_four_parts() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let pipe =
            Pipe::new(Attached { output: Box::pin(Silent), input: Box::pin(ours) }, Doors::new());
        let nonce = Nonce::new().expect("a nonce");
        assert_eq!(nonce.as_str().len(), 32);
        assert_ne!(nonce, Nonce::new().expect("another"));
        let task = vec![b'x'; 70_000];
        let what = Order {
            argv: &["/bin/echo".into(), "a b".into()],
            environment: &[("A".into(), "ü".into())],
            task: &task,
        };
        order(&pipe, &what, &nonce).expect("sent");
        let expected = [
            frame(1, 0, b"/bin/echo\0a b\0"),
            frame(2, 0, "A=ü\0".as_bytes()),
            frame(3, 0, &task[..1 << 16]),
            frame(3, 0, &task[1 << 16..]),
            frame(5, 0, nonce.as_str().as_bytes()),
        ];
        let mut sent = vec![0; expected.iter().map(Vec::len).sum()];
        tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut sent).await.expect("read");
        assert_eq!(sent, expected.concat());
        pipe.hang_up().await;
        let rest = tokio::io::AsyncReadExt::read_u8(&mut theirs).await;
        assert!(rest.is_err(), "the switch");
    }
}
