//! Keeps a key out of what a server says, even in the middle of an answer.

use bytes::{Bytes, BytesMut};

use super::Secret;

const INSTEAD: &[u8] = b"[api key]";

/// What must not be said: the words of keys and headers that are long enough to be told from others.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let words = secrets.into_iter().flat_map(Secret::words);
        Self(words.filter(Secret::is_recognisable).collect())
    }

    /// Returns `text` without them.
    pub fn redact(&self, text: &str) -> String {
        let mut redactor = Redactor::new(self);
        let mut out = redactor.pass(text.to_owned().into()).to_vec();
        out.extend_from_slice(&redactor.rest());
        // It cuts at ASCII only.
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Takes secrets out of a byte stream, however the bytes are cut, and also where JSON's escapes
/// stand for a part of them. A piece that ends with the beginning of one keeps that end back until
/// the next piece shows what it is.
#[derive(Debug)]
pub struct Redactor {
    secrets: Secrets,
    held: BytesMut,
}

/// Whether the key stands at a place.
enum Match {
    No,
    /// The bytes end before that is known.
    Open,
    /// It does, in so many bytes.
    Whole(usize),
}

impl Redactor {
    pub fn new(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), held: BytesMut::new() }
    }

    /// Returns what of `piece`, and of what was kept back, may go on.
    pub fn pass(&mut self, piece: Bytes) -> Bytes {
        if self.held.is_empty() && self.next(&piece, 0).is_none() {
            return piece;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(&piece);
        let mut out = BytesMut::with_capacity(all.len());
        let mut from = 0;
        while let Some((at, length)) = self.next(&all, from) {
            out.extend_from_slice(&all[from..at]);
            let Some(length) = length else {
                self.held = all.split_off(at);
                return out.freeze();
            };
            out.extend_from_slice(INSTEAD);
            from = at + length;
        }
        out.extend_from_slice(&all[from..]);
        out.freeze()
    }

    /// The next place where a secret is, in so many bytes, or where one could begin.
    fn next(&self, bytes: &[u8], from: usize) -> Option<(usize, Option<usize>)> {
        let keys = || self.secrets.0.iter().map(|secret| secret.expose().as_bytes());
        let may_begin = |byte: &u8| keys().any(|key| *byte == key[0] || *byte == b'\\');
        let mut at = from;
        loop {
            at += bytes[at..].iter().position(may_begin)?;
            if bytes[at..].starts_with(b"\\\\") {
                // A backslash itself, behind which no escape begins.
                at += 2;
                continue;
            }
            let mut open = false;
            for key in keys() {
                match matches(&bytes[at..], key) {
                    Match::Whole(length) => return Some((at, Some(length))),
                    Match::Open => open = true,
                    Match::No => {}
                }
            }
            if open {
                return Some((at, None));
            }
            at += 1;
        }
    }

    /// Returns what was kept back, at the end.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

fn matches(bytes: &[u8], key: &[u8]) -> Match {
    let mut rest = bytes;
    for wanted in key {
        let taken = match rest {
            [b'\\', b'/', ..] if *wanted == b'/' => 2,
            [b'\\', b'u', digits @ ..]
                if digits.len() >= 4 && is_escape_of(&digits[..4], *wanted) =>
            {
                6
            }
            [b'\\', b'u', digits @ ..]
                if digits.len() < 4 && digits.iter().all(u8::is_ascii_hexdigit) =>
            {
                return Match::Open;
            }
            [] | [b'\\'] => return Match::Open,
            [next, ..] if next == wanted => 1,
            _ => return Match::No,
        };
        rest = &rest[taken..];
    }
    Match::Whole(bytes.len() - rest.len())
}

fn is_escape_of(digits: &[u8], wanted: u8) -> bool {
    let digits = std::str::from_utf8(digits).ok();
    digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) == Some(wanted.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_out_however_it_is_cut_and_escaped() {
        let text = b"a sk-ab/babsk-x sk-ab/babsk- sk-ab/babsk-xsk-ab/babsk-x! \
                     sk-ab\\/babsk-x \\u0073k-ab\\u002Fbabsk\\u002dx \\n \\\\u0073k-ab/babsk-x sk-ab/babsk";
        let expected = b"a [api key] sk-ab/babsk- [api key][api key]! \
                         [api key] [api key] \\n \\\\u0073k-ab/babsk-x sk-ab/babsk";
        for size in 1..=text.len() {
            let mut redactor = Redactor::new(&Secrets::new(&Secret::new("sk-ab/babsk-x")));
            let mut out = Vec::new();
            for piece in text.chunks(size) {
                out.extend_from_slice(&redactor.pass(Bytes::copy_from_slice(piece)));
            }
            out.extend_from_slice(&redactor.rest());
            assert_eq!(out, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_is_kept_back_of_an_ordinary_event() {
        let event = Bytes::from_static(b"data: {\"x\":\"\\n\"}\n\n");
        for key in [Secret::new("sk-abababsk-x"), Secret::new("data"), None] {
            assert_eq!(Redactor::new(&Secrets::new(&key)).pass(event.clone()), event);
        }
    }
}
