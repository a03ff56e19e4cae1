//! Text that came out of a sandbox, and what may be shown of it.
//!
//! What an agent or a model server says can hold terminal escapes, bidirectional overrides and
//! NULs. [`clean`] is the one door between such bytes and a terminal, a log or a host's context.

use sha2::{Digest, Sha256};

/// Drops what could steer a terminal or mislead a reader; keeps newlines and tabs.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\n' | '\t' => out.push(c),
            // A carriage return alone would let a line overwrite itself.
            '\r' => {
                if chars.peek() != Some(&'\n') {
                    out.push('\n');
                }
            }
            '\u{1b}' => skip_escape(&mut chars),
            c if c.is_control() || is_invisible(c) => {}
            c => out.push(c),
        }
    }
    out
}

/// A number of things, such as `1 change` and `2 changes`.
pub fn count(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {thing}"),
        number => format!("{number} {thing}s"),
    }
}

/// [`clean`], on one line and at most `max` characters long, with an ellipsis where it was cut.
pub fn one_line(text: &str, max: usize) -> String {
    let text = clean(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max {
        return line;
    }
    let mut cut: String = line.chars().take(max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The longest prefix of `text` that has at most `max` bytes and ends at a character.
pub fn prefix(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One line with each character kept in its place, for content that must stay what it is: what
/// [`clean`] drops stands as its control picture or as U+FFFD. Answers how many were replaced too.
pub fn visible(line: &str) -> (String, usize) {
    let mut replaced = 0;
    let mut picture = |shown: char| {
        replaced += 1;
        shown
    };
    let line = line
        .chars()
        .map(|c| match c {
            '\t' => c,
            '\u{7f}' => picture('\u{2421}'),
            c if c < ' ' => picture(char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}')),
            c if c.is_control() || is_invisible(c) => picture('\u{fffd}'),
            c => c,
        })
        .collect();
    (line, replaced)
}

/// Returns `text` without the thoughts before it, which some servers leave in the answer as
/// `<think>…</think>`, or with the closing tag alone.
pub fn without_thoughts(text: &str) -> &str {
    const TAGS: [(&str, &str); 4] = [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<reasoning>", "</reasoning>"),
    ];
    let mut rest = text;
    loop {
        let begun = TAGS.iter().find(|(open, _)| rest.trim_start().starts_with(open));
        let behind = match begun {
            Some((_, close)) => rest.find(close).map(|at| at + close.len()),
            // The template has opened the thoughts already. A tag in a sentence or in code is none.
            None => TAGS.iter().find_map(|(open, close)| {
                let at = rest.find(close).filter(|at| !rest[..*at].contains(open))?;
                let behind = at + close.len();
                let alone = rest[..at].ends_with('\n') || rest[behind..].starts_with('\n');
                (alone && !rest[..at].contains("```")).then_some(behind)
            }),
        };
        match behind {
            Some(behind) => rest = &rest[behind..],
            None => return rest,
        }
    }
}

/// Bytes of a character in a JSON string.
pub fn json_length(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    }
}

/// Returns twice as many hex digits as `bytes` of a hash over parts whose borders count: a name that
/// says nothing of what it is made from.
pub fn fingerprint<'p>(parts: impl IntoIterator<Item = &'p [u8]>, bytes: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..bytes])
}

/// Bytes as digests are written.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Passes over an escape sequence whose ESC has been read: CSI up to its final byte, and the
/// string forms (OSC, DCS, APC, PM, SOS) up to BEL or ST.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while let Some(c) = chars.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            chars.next();
            while let Some(c) = chars.next_if(|c| *c != '\n') {
                if c == '\u{7}' {
                    break;
                }
                if c == '\u{1b}' {
                    chars.next_if_eq(&'\\');
                    break;
                }
            }
        }
        Some(c) if ('\u{20}'..='\u{7e}').contains(c) => {
            chars.next();
        }
        _ => {}
    }
}

/// Returns true for a character that shows nothing. Such characters can hide or reorder what a reader
/// sees, and carry words past them. Everything that Unicode calls "default ignorable" is here (variation selectors,
/// joiners, fillers, soft hyphens, tags), and what shows nothing besides: line separators, marks of
/// interlinear text, blanks of Braille and music.
///
/// It is also what forgiving file systems leave out of names.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1107f}' | '\u{13430}'..='\u{13440}'
        | '\u{16fe4}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_dropped_whole() {
        assert_eq!(clean("a\u{1b}[31mb\u{1b}[0m"), "ab");
        assert_eq!(clean("a\u{1b}]0;title\u{7}b"), "ab");
        assert_eq!(clean("a\u{1b}]52;c;cGFzdGU=\u{1b}\\b"), "ab");
        assert_eq!(clean("a\u{9b}31mb"), "a31mb");
        assert_eq!(clean("a\0\u{8}b\u{202e}c\u{2066}"), "abc");
        assert_eq!(clean("one\r\ntwo\rthree\tfour"), "one\ntwo\nthree\tfour");
    }

    #[test]
    fn nothing_is_left_that_shows_nothing() {
        let hidden = "\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{e0041}\u{200b}\u{200c}\u{200d}\u{ad}\u{34f}\
                      \u{115f}\u{1160}\u{3164}\u{ffa0}\u{2800}\u{17b4}\u{180b}\u{180e}\u{2063}\u{fff9}\
                      \u{1d159}\u{1d173}\u{1bca0}";
        assert_eq!(clean(&format!("a{hidden}b")), "ab");
        assert_eq!(visible(&format!("a{hidden}b")).1, hidden.chars().count());
        let shown = "é e\u{301} 你好 हिन्दी \u{a0}👍 \u{fffd}";
        assert_eq!(clean(shown), shown);
    }

    #[test]
    fn an_unfinished_escape_hides_no_more_than_its_line() {
        assert_eq!(clean("a\u{1b}]0;never closed\nb"), "a\nb");
    }

    #[test]
    fn what_cannot_be_shown_is_seen_to_be_there() {
        let (shown, replaced) = visible("a\t\u{1b}[31m\u{7f}\r\u{202e}\u{9b}ü");
        assert_eq!((shown.as_str(), replaced), ("a\t␛[31m␡␍\u{fffd}\u{fffd}ü", 5));
    }

    #[test]
    fn thoughts_are_cut_and_words_about_them_are_not() {
        for (text, rest) in [
            ("<think>a\nb</think>\n\nHello.", "\n\nHello."),
            (" <thinking>a</thinking>Hello.", "Hello."),
            ("<think>a</think><think>b</think>c", "c"),
            ("a\n</think>\n\nHello.", "\n\nHello."),
            ("a</think>\nHello.", "\nHello."),
        ] {
            assert_eq!(without_thoughts(text), rest, "{text}");
        }
        for text in [
            "Hello.",
            "It ends with `</think>` and begins with `<think>`.",
            "```\n</think>\n```",
            "<think>never closed",
        ] {
            assert_eq!(without_thoughts(text), text);
        }
    }

    #[test]
    fn cuts_fall_between_characters() {
        assert_eq!(one_line("a\n b   c", 10), "a b c");
        assert_eq!(one_line("äöüß", 3), "äö…");
        assert_eq!(prefix("äöü", 3), "ä");
    }
}
