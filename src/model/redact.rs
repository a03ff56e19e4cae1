//! Keeps the API key out of what a server says, even in the middle of an answer.

use bytes::{Bytes, BytesMut};

use super::Secret;

const INSTEAD: &[u8] = b"[api key]";

/// Takes the key out of a byte stream, however the bytes are cut. A piece that ends with the
/// beginning of the key keeps that end back until the next piece shows what it is.
#[derive(Debug)]
pub struct Redactor {
    key: Option<Secret>,
    held: BytesMut,
}

impl Redactor {
    pub fn new(key: Option<Secret>) -> Self {
        Self { key: key.filter(Secret::is_recognisable), held: BytesMut::new() }
    }

    /// What of `piece`, and of what was kept back, may go on.
    pub fn pass(&mut self, piece: Bytes) -> Bytes {
        let Some(key) = self.key.as_ref().map(|key| key.expose().as_bytes()) else { return piece };
        if self.held.is_empty() && find(&piece, key).is_none() && overlap(&piece, key) == 0 {
            return piece;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(&piece);
        let mut out = BytesMut::with_capacity(all.len());
        while let Some(at) = find(&all, key) {
            out.extend_from_slice(&all.split_to(at));
            out.extend_from_slice(INSTEAD);
            let _ = all.split_to(key.len());
        }
        self.held = all.split_off(all.len() - overlap(&all, key));
        out.extend_from_slice(&all);
        out.freeze()
    }

    /// What was kept back, at the end.
    pub fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }
}

fn find(bytes: &[u8], key: &[u8]) -> Option<usize> {
    bytes.windows(key.len()).position(|window| window == key)
}

/// How many bytes at the end of `bytes` could be the beginning of `key`.
fn overlap(bytes: &[u8], key: &[u8]) -> usize {
    let longest = bytes.len().min(key.len() - 1);
    (1..=longest).rev().find(|length| bytes.ends_with(&key[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_out_however_it_is_cut() {
        let text = b"a sk-abababsk-x sk-abababsk- sk-abababsk-xsk-abababsk-x! sk-abababsk";
        let expected = b"a [api key] sk-abababsk- [api key][api key]! sk-abababsk";
        for size in 1..text.len() {
            let mut redactor = Redactor::new(Secret::new("sk-abababsk-x"));
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
        let event = Bytes::from_static(b"data: {\"x\":1}\n\n");
        for key in [Secret::new("sk-abababsk-x"), Secret::new("data"), None] {
            assert_eq!(Redactor::new(key).pass(event.clone()), event);
        }
    }
}
