//! The frames of docs/pipe.md. Everything that is read here comes from inside and is hostile.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The version of the page.
pub const VERSION: u32 = 1;

/// Bytes of a frame before its content.
const HEADER: usize = 8;

/// Most bytes of a frame's content.
pub const PIECE: usize = 1 << 16;

/// Content of less bytes is copied.
const SMALL: usize = 1 << 13;

/// Most bytes of the receipt, which is one frame.
const RECEIPT: usize = 1 << 20;

/// Most bytes of a channel that are on their way or not taken yet.
pub const WINDOW: u32 = 1 << 16;

/// Channels for what an order prints, and for lists of folders.
pub const STDOUT: u16 = 1;
pub const STDERR: u16 = 2;
pub const LISTING: u16 = 3;

/// The first channel of a connection.
pub const FIRST: u16 = 16;

/// Kinds of frames that we send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Argv = 1,
    Env = 2,
    Task = 3,
    List = 4,
    Go = 5,
    Stop = 6,
    Pause = 7,
    Resume = 8,
    Data = 33,
    End = 34,
    Reset = 35,
    Window = 36,
}

/// A frame that PID 1 sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Receipt(Bytes),
    Ended(Bytes),
    Said(Bytes),
    Data(u16, Bytes),
    /// A program inside connects to this port.
    Open(u16, u16),
    /// Nothing more comes from inside.
    End(u16),
    Reset(u16),
    /// So many more bytes may go inside.
    Window(u16, u32),
}

/// Why what came is no frame, or none that may come now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("a frame of kind {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes")]
    Length(usize),
    #[error("a frame of kind {0} on channel {1}")]
    Channel(u8, u16),
    #[error("more than the window of channel {0}")]
    Window(u16),
    #[error("too many words")]
    Flood,
}

/// Writes one frame; `bytes` are at most [`PIECE`].
pub fn frame(kind: Kind, channel: u16, bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    debug_assert!(bytes.len() <= PIECE, "a frame of {length} bytes");
    let mut frame = BytesMut::with_capacity(HEADER + bytes.len());
    frame.put_u8(kind as u8);
    frame.put_u8(0);
    frame.put_u16(channel);
    frame.put_u32(length);
    frame.put_slice(bytes);
    frame.freeze()
}

/// Cuts what comes into frames.
#[derive(Debug, Default)]
pub struct Decoder(BytesMut);

impl Decoder {
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Takes the next frame; none until it has come whole.
    pub fn next(&mut self) -> Result<Option<Frame>, Wrong> {
        let Some(mut header) = self.0.get(..HEADER) else { return Ok(None) };
        let (kind, spare) = (header.get_u8(), header.get_u8());
        let (channel, length) = (header.get_u16(), header.get_u32() as usize);
        let most = match (kind, channel) {
            (16, 0) => RECEIPT,
            (17 | 18, 0) | (33, STDOUT..=LISTING | FIRST..) => PIECE,
            (32, FIRST..) => 2,
            (34 | 35, FIRST..) => 0,
            (36, FIRST..) => 4,
            (16..=18 | 32..=36, _) => return Err(Wrong::Channel(kind, channel)),
            _ => return Err(Wrong::Kind(kind)),
        };
        let is_exact = most <= 4;
        if length > most || is_exact && length != most {
            return Err(Wrong::Length(length));
        }
        if spare != 0 {
            return Err(Wrong::Kind(kind));
        }
        if self.0.len() < HEADER + length {
            return Ok(None);
        }
        self.0.advance(HEADER);
        let mut bytes = match length {
            // A part would keep all of what it came with.
            ..SMALL => Bytes::copy_from_slice(&self.0.split_to(length)),
            _ => self.0.split_to(length).freeze(),
        };
        Ok(Some(match kind {
            16 => Frame::Receipt(bytes),
            17 => Frame::Ended(bytes),
            18 => Frame::Said(bytes),
            32 => Frame::Open(channel, bytes.get_u16()),
            34 => Frame::End(channel),
            35 => Frame::Reset(channel),
            36 => Frame::Window(channel, bytes.get_u32()),
            _ => Frame::Data(channel, bytes),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Frame>, Wrong> {
        let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(cut) {
            decoder.add(part);
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        assert!(decoder.0.is_empty());
        Ok(frames)
    }

    #[test]
    fn frames_are_whole_however_they_are_cut() {
        let bytes = b"\x10\0\0\0\0\0\0\x02{}\x21\0\0\x01\0\0\0\x03a\nb\x21\0\0\x02\0\0\0\0";
        let expected = [
            Frame::Receipt(Bytes::from_static(b"{}")),
            Frame::Data(STDOUT, Bytes::from_static(b"a\nb")),
            Frame::Data(STDERR, Bytes::new()),
        ];
        for cut in 1..=bytes.len() {
            assert_eq!(all(bytes, cut).expect("frames"), expected, "{cut}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        for (bytes, wrong) in [
            (b"\x01\0\0\0\0\0\0\x01", Wrong::Kind(1)),
            (b"HTTP/1.1", Wrong::Kind(b'H')),
            (b"\x11\x01\0\0\0\0\0\0", Wrong::Kind(17)),
            (b"\x11\0\0\x01\0\0\0\0", Wrong::Channel(17, 1)),
            (b"\x21\0\0\x04\0\0\0\0", Wrong::Channel(33, 4)),
            (b"\x21\0\0\x01\0\x01\0\x01", Wrong::Length(PIECE + 1)),
            (b"\x20\0\0\x01\0\0\0\x02", Wrong::Channel(32, 1)),
            (b"\x20\0\0\x10\0\0\0\x01", Wrong::Length(1)),
            (b"\x22\0\0\x10\0\0\0\x01", Wrong::Length(1)),
            (b"\x10\0\0\0\0\x10\0\x01", Wrong::Length(RECEIPT + 1)),
        ] {
            let mut decoder = Decoder::default();
            decoder.add(bytes);
            assert_eq!(decoder.next(), Err(wrong));
        }
    }

    #[test]
    fn ours_are_as_the_page_says() {
        assert_eq!(&*frame(Kind::Go, 0, b"ab"), b"\x05\0\0\0\0\0\0\x02ab");
        let window = frame(Kind::Window, STDERR, &5_u32.to_be_bytes());
        assert_eq!(&*window, b"\x24\0\0\x02\0\0\0\x04\0\0\0\x05");
    }
}
