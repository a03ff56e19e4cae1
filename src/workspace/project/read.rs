//! A range of lines of one file.

use std::fs::File;
use std::io::{BufRead, BufReader};

use serde::Serialize;

use super::place::{self, Place};
use super::{Error, Project};
use crate::text;

/// What the text of an answer may take as JSON. With the fields around it an answer stays below
/// 24 KiB.
const ROOM: usize = 22 * 1024;

/// How far into a file to look.
const FARTHEST: u64 = 64 << 20;

/// Where a NUL makes a file binary, as for git.
const HEAD: usize = 8000;

/// Which lines are wanted; the first is 1.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub start: u64,
    /// All that fit, when absent.
    pub lines: Option<u64>,
}

/// A part of a file, or all of it.
#[derive(Debug, Serialize)]
pub struct Excerpt {
    pub path: String,
    pub start_line: u64,
    /// How many lines `text` has.
    pub lines: u64,
    /// Absent when the file is too long to be counted.
    pub total_lines: Option<u64>,
    /// Where to go on, when there is more.
    pub next_line: Option<u64>,
    pub bytes: u64,
    /// In what way `text` is not the file's bytes.
    pub notes: Vec<String>,
    pub text: String,
}

impl Project {
    /// Reads lines of the file at `given`.
    pub fn read(&self, given: &str, range: Range) -> Result<Excerpt, Error> {
        let path = place::relative(given)?;
        if path.as_os_str().is_empty() {
            return Err(if given.is_empty() {
                Error::Empty
            } else {
                Error::Folder { given: text::one_line(given, 300) }
            });
        }
        let Place::File(file) = self.place(&path)? else {
            return Err(Error::Folder { given: place::shown(&path) });
        };
        excerpt(file, place::shown(&path), range)
    }
}

fn excerpt(file: File, given: String, range: Range) -> Result<Excerpt, Error> {
    let unreadable = |source| Error::Unreadable { given: given.clone(), source };
    let bytes = file.metadata().map_err(unreadable)?.len();
    let mut from = BufReader::with_capacity(64 << 10, file);
    let head = from.fill_buf().map_err(unreadable)?;
    if head[..head.len().min(HEAD)].contains(&0) {
        return Err(Error::Binary { given, bytes });
    }
    let last = range.lines.map_or(u64::MAX, |lines| range.start.saturating_add(lines));
    let mut shown = Shown::default();
    let (mut number, mut looked) = (0, 0);
    let mut line = Line::default();
    let ended = loop {
        if looked >= FARTHEST {
            break false;
        }
        let wanted = number + 1 >= range.start && number + 1 < last && !shown.full;
        line.next(&mut from, if wanted { ROOM } else { 0 }).map_err(unreadable)?;
        if line.length == 0 {
            break true;
        }
        looked += line.length;
        number += 1;
        if wanted {
            shown.add(number, &line);
        }
    };
    if ended && range.start > number && range.start > 1 {
        return Err(Error::PastEnd { given, asked: range.start, lines: number });
    }
    if range.start > number && !ended {
        return Err(Error::TooFar { given, asked: range.start, bytes: FARTHEST });
    }
    let next = range.start + shown.lines;
    Ok(Excerpt {
        path: given,
        start_line: range.start,
        lines: shown.lines,
        total_lines: ended.then_some(number),
        next_line: (!ended || next <= number).then_some(next),
        bytes,
        notes: shown.notes(),
        text: shown.text,
    })
}

/// One line as it lies in the file, with its end; only its beginning may be kept.
#[derive(Debug, Default)]
struct Line {
    kept: Vec<u8>,
    length: u64,
    whole: bool,
}

impl Line {
    fn next(&mut self, from: &mut impl BufRead, keep: usize) -> std::io::Result<()> {
        *self = Self { kept: std::mem::take(&mut self.kept), length: 0, whole: true };
        self.kept.clear();
        loop {
            let buffer = from.fill_buf()?;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.map_or(buffer.len(), |end| end + 1)];
            let room = keep.saturating_sub(self.kept.len());
            self.whole &= part.len() <= room;
            self.kept.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len();
            self.length += used as u64;
            from.consume(used);
            if used == 0 || end.is_some() || self.length >= FARTHEST {
                return Ok(());
            }
        }
    }
}

/// The text so far.
#[derive(Debug, Default)]
struct Shown {
    text: String,
    lines: u64,
    used: usize,
    full: bool,
    remarks: Vec<&'static str>,
    replaced: usize,
    cut: Option<u64>,
}

impl Shown {
    fn add(&mut self, number: u64, line: &Line) {
        let mut bytes = line.kept.as_slice();
        let ended = bytes.ends_with(b"\n");
        bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let crlf = ended && bytes.ends_with(b"\r");
        if crlf {
            bytes = &bytes[..bytes.len() - 1];
        }
        let mark = number == 1 && bytes.starts_with(b"\xef\xbb\xbf");
        if mark {
            bytes = &bytes[3..];
        }
        let lossy = String::from_utf8_lossy(bytes);
        let invalid = if matches!(lossy, std::borrow::Cow::Owned(_)) {
            lossy.matches('\u{fffd}').count()
        } else {
            0
        };
        let (mut shown, replaced) = text::visible(&lossy);
        let mut length = shown.chars().map(text::json_length).sum::<usize>() + 2;
        if self.used + length > ROOM || !line.whole {
            self.full = true;
            if self.lines > 0 {
                return;
            }
            // One line alone is too long: better its beginning than nothing.
            let mut room = ROOM;
            let end = shown
                .char_indices()
                .find(|(_, c)| {
                    let cost = text::json_length(*c);
                    let over = cost > room;
                    room = room.saturating_sub(cost);
                    over
                })
                .map_or(shown.len(), |(at, _)| at);
            shown.truncate(end);
            length = ROOM;
            self.cut = Some(number);
        }
        self.used += length;
        self.lines += 1;
        self.text.push_str(&shown);
        if ended && self.cut.is_none() {
            self.text.push('\n');
        }
        self.remark(crlf, "lines end in CRLF in the file");
        self.remark(mark, "the file begins with a byte order mark");
        self.remark(!ended && self.cut.is_none(), "the last line has no newline");
        self.replaced += replaced + invalid;
    }

    fn remark(&mut self, holds: bool, remark: &'static str) {
        if holds && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(number) = self.cut {
            notes.push(format!("line {number} is too long; only its beginning is shown"));
        }
        notes.extend(self.remarks.iter().map(|remark| (*remark).to_owned()));
        if self.replaced > 0 {
            let count = self.replaced;
            notes.push(format!(
                "{count} control, invisible or invalid characters are shown as pictures or U+FFFD"
            ));
        }
        notes
    }
}
