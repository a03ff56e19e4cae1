//! Characters that a server cut in two: half of a surrogate pair or a part of a UTF-8 sequence at
//! the end of one event, the rest in the next.
//!
//! No string of Rust holds half a character, so [`decode`] puts a private character in its place,
//! and [`Halves`] makes whole characters of them, or U+FFFD.

use std::borrow::Cow;

/// The place of the lone surrogate U+D800; the others follow.
const SURROGATES: u32 = 0x10_f800;
/// The place of a lone byte, counted from 0.
const BYTES: u32 = 0x10_f700;

/// The text of an event, and whether some of its characters stand for halves.
pub fn decode(data: &[u8]) -> (Cow<'_, str>, bool) {
    let text = match std::str::from_utf8(data) {
        Ok(text) if !text.contains("\\ud") && !text.contains("\\uD") => {
            return (Cow::Borrowed(text), false);
        }
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(
            data.utf8_chunks()
                .flat_map(|chunk| {
                    chunk
                        .valid()
                        .chars()
                        .chain(chunk.invalid().iter().map(|byte| place(BYTES, (*byte).into())))
                })
                .collect(),
        ),
    };
    let torn = matches!(text, Cow::Owned(_));
    let (text, lone) = without_lone_surrogates(&text);
    (Cow::Owned(text), torn || lone)
}

fn place(base: u32, unit: u32) -> char {
    char::from_u32(base + unit).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// JSON text whose escapes of lone surrogates are private characters.
fn without_lone_surrogates(text: &str) -> (String, bool) {
    let mut out = String::with_capacity(text.len());
    let mut found = false;
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match (escaped_unit(rest), rest.get(6..).and_then(escaped_unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(unit @ 0xd800..=0xdfff), _) => {
                out.push(place(SURROGATES, unit - 0xd800));
                found = true;
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            // The character behind a backslash is never the beginning of another escape.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.push_str(rest);
    (out, found)
}

/// The UTF-16 unit of a `\uXXXX` at the beginning of `text`.
pub(super) fn escaped_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Half a character.
#[derive(Clone, Copy)]
enum Half {
    High(u32),
    Low(u32),
    Byte(u8),
}

impl Half {
    fn from_char(c: char) -> Option<Self> {
        let unit = (c as u32).checked_sub(BYTES)?;
        match (u8::try_from(unit), (c as u32).checked_sub(SURROGATES)) {
            (Ok(byte), _) => Some(Self::Byte(byte)),
            (_, Some(unit @ 0..0x400)) => Some(Self::High(unit)),
            (_, Some(unit @ 0x400..0x800)) => Some(Self::Low(unit - 0x400)),
            _ => None,
        }
    }
}

/// Puts the halves of one text together, piece after piece.
#[derive(Debug, Default)]
pub struct Halves {
    /// Halves at the end of the last piece, whose rest may come.
    held: String,
}

impl Halves {
    /// The next piece in whole characters. `torn` is what [`decode`] said of its event.
    pub fn join<'a>(&mut self, piece: &'a str, torn: bool) -> Cow<'a, str> {
        if !torn && (self.held.is_empty() || piece.is_empty()) {
            return Cow::Borrowed(piece);
        }
        let mut text = std::mem::take(&mut self.held);
        text.push_str(piece);
        let mut out = String::with_capacity(text.len());
        let mut chars = text.char_indices().peekable();
        let mut bytes = Vec::new();
        while let Some((at, c)) = chars.next() {
            let next = chars.peek().and_then(|(_, next)| Half::from_char(*next));
            match (Half::from_char(c), next) {
                (Some(Half::Byte(byte)), next) => {
                    bytes.push(byte);
                    if matches!(next, Some(Half::Byte(_))) {
                        continue;
                    }
                    let whole = bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
                    let may_go_on = chars.peek().is_none()
                        && std::str::from_utf8(&bytes)
                            .is_err_and(|error| error.error_len().is_none());
                    if may_go_on {
                        self.held = bytes
                            .split_off(bytes.len() - whole)
                            .iter()
                            .map(|byte| place(BYTES, (*byte).into()))
                            .collect();
                    }
                    out.push_str(&String::from_utf8_lossy(&bytes));
                    bytes.clear();
                }
                (Some(Half::High(high)), Some(Half::Low(low))) => {
                    chars.next();
                    out.push(place(0x1_0000, (high << 10) + low));
                }
                (Some(Half::High(_)), None) if chars.peek().is_none() => {
                    text[at..].clone_into(&mut self.held);
                }
                (Some(_), _) => out.push(char::REPLACEMENT_CHARACTER),
                (None, _) => out.push(c),
            }
        }
        Cow::Owned(out)
    }

    /// The end of the text: what was held back will never be whole.
    pub fn finish(&mut self) -> &'static str {
        if std::mem::take(&mut self.held).is_empty() { "" } else { "\u{fffd}" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of JSON strings, put together.
    fn joined(events: &[&[u8]]) -> String {
        let mut halves = Halves::default();
        let mut out = String::new();
        for event in events {
            let (text, torn) = decode(event);
            let text: String = serde_json::from_str(&text).expect("JSON");
            out.push_str(&halves.join(&text, torn));
        }
        out.push_str(halves.finish());
        out
    }

    #[test]
    fn two_halves_make_a_character_and_one_does_not() {
        for (events, expected) in [
            (vec![&br#""a \ud83d""#[..], br#""\ude00 b""#], "a 😀 b"),
            (vec![br#""\ud83d\ude00\uD83D""#, br#""""#, br#""\uDE00""#], "😀😀"),
            (vec![br#""\ud83d""#, br#""x""#], "\u{fffd}x"),
            (vec![br#""\ude00 \ud83d""#], "\u{fffd} \u{fffd}"),
            (vec![br#""\ud83d\ud83d\ude00""#], "\u{fffd}😀"),
            (vec![br#""\\ud83d""#, br#""\\\\ude00""#], "\\ud83d\\\\ude00"),
            (vec![b"\"gr\xc3\"", b"\"\xbc\xc3\"", b"\"\x9fe\""], "grüße"),
            (vec![b"\"\xf0\x9f\"", b"\"\x98\x80!\""], "😀!"),
            (vec![b"\"\xff \xe2\x82\"", b"\"x\""], "\u{fffd} \u{fffd}x"),
            (vec!["\"\u{10f7ff} \u{10f800}\"".as_bytes()], "\u{10f7ff} \u{10f800}"),
        ] {
            assert_eq!(joined(&events), expected, "{events:?}");
        }
    }
}
