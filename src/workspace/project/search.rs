//! Searching files for a regular expression, with ripgrep's own engine.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use grep_matcher::Matcher;
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, MmapChoice, Searcher, SearcherBuilder, Sink, SinkContext, SinkContextKind,
    SinkMatch,
};
use serde::Serialize;

use super::place::Place;
use super::{Error, Project, Selection};
use crate::text;

const TIME: Duration = Duration::from_secs(4);
const ALL_BYTES: u64 = 256 << 20;
/// Files beyond this are logs and data; they are counted and not searched.
const LARGEST_FILE: u64 = 16 << 20;
/// The longest line that is searched.
const LINE: usize = 1 << 20;
const LONGEST_PATTERN: usize = 1000;
/// What is shown of a line.
const SHOWN: usize = 240;
/// What the hits may take as JSON.
const ROOM: usize = 12 * 1024;

/// What to search for.
#[derive(Clone, Debug)]
pub struct Query {
    pub pattern: String,
    pub case_sensitive: bool,
    /// Lines to show around each hit.
    pub context: usize,
    pub most: usize,
    pub selection: Selection,
}

/// One line that matches.
#[derive(Debug, Serialize)]
pub struct Hit {
    pub path: String,
    pub line: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    pub text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Hits {
    /// Whether everything was searched and every hit is here.
    pub complete: bool,
    /// Why not, if not.
    pub stopped_by: Option<&'static str>,
    pub files_searched: usize,
    /// Files that were passed over: too large, gone, or not to be read.
    pub files_skipped: usize,
    pub matches: Vec<Hit>,
}

impl Project {
    pub fn search(&self, query: &Query) -> Result<Hits, Error> {
        let matcher = matcher(query)?;
        let started = Instant::now();
        let files = self.gather(&query.selection)?;
        let mut searcher = SearcherBuilder::new()
            .line_number(true)
            .before_context(query.context)
            .after_context(query.context)
            .binary_detection(BinaryDetection::quit(0))
            // A file that is cut short while it is mapped would kill this process.
            .memory_map(MmapChoice::never())
            .heap_limit(Some(LINE))
            .build();
        let budget =
            Budget { left: Cell::new(ALL_BYTES), end: started + TIME, why: Cell::new(None) };
        let mut found = Found {
            matcher: &matcher,
            most: query.most,
            room: ROOM,
            path: "",
            before: Vec::new(),
            hits: Vec::new(),
            in_file: 0,
            full: None,
        };
        let mut hits = Hits {
            complete: false,
            stopped_by: None,
            files_searched: 0,
            files_skipped: 0,
            matches: Vec::new(),
        };
        for path in &files.paths {
            let Ok(Place::File(file)) = self.place(Path::new(path)) else {
                hits.files_skipped += 1;
                continue;
            };
            if file.metadata().map_or(true, |found| found.len() > LARGEST_FILE) {
                hits.files_skipped += 1;
                continue;
            }
            found.start(path);
            let bounded = Bounded { file: file.take(LARGEST_FILE), budget: &budget };
            match searcher.search_reader(&matcher, bounded, &mut found) {
                Ok(()) => hits.files_searched += 1,
                Err(_) => hits.files_skipped += 1,
            }
            if found.full.is_some() || budget.why.get().is_some() {
                break;
            }
        }
        hits.stopped_by = found.full.or(budget.why.get());
        if hits.stopped_by.is_none() && !files.complete {
            hits.stopped_by = Some("the project has too many files to look at; narrow `path`");
        }
        hits.complete = hits.stopped_by.is_none();
        hits.matches = found.hits;
        Ok(hits)
    }
}

fn matcher(query: &Query) -> Result<RegexMatcher, Error> {
    let pattern = &query.pattern;
    if pattern.is_empty() {
        return Err(Error::NoPattern);
    }
    if pattern.len() > LONGEST_PATTERN {
        return Err(Error::LongPattern { bytes: pattern.len(), most: LONGEST_PATTERN });
    }
    RegexMatcherBuilder::new()
        .case_insensitive(!query.case_sensitive)
        .line_terminator(Some(b'\n'))
        .size_limit(4 << 20)
        .dfa_size_limit(8 << 20)
        .build(pattern)
        .map_err(|error| Error::Pattern { why: text::one_line(&error.to_string(), 300) })
}

/// What all files together may take.
struct Budget {
    left: Cell<u64>,
    end: Instant,
    why: Cell<Option<&'static str>>,
}

/// A file that ends when the budget does.
struct Bounded<'a> {
    file: io::Take<File>,
    budget: &'a Budget,
}

impl Read for Bounded<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let budget = self.budget;
        if Instant::now() >= budget.end {
            budget.why.set(Some("time; narrow `path` or `glob`"));
            return Ok(0);
        }
        if budget.left.get() == 0 {
            budget.why.set(Some("the amount of text; narrow `path` or `glob`"));
            return Ok(0);
        }
        let count = self.file.read(into)?;
        budget.left.set(budget.left.get().saturating_sub(count as u64));
        Ok(count)
    }
}

struct Found<'a> {
    matcher: &'a RegexMatcher,
    most: usize,
    room: usize,
    path: &'a str,
    before: Vec<String>,
    hits: Vec<Hit>,
    /// How many of the hits are of this file.
    in_file: usize,
    full: Option<&'static str>,
}

impl<'a> Found<'a> {
    fn start(&mut self, path: &'a str) {
        self.path = path;
        self.before.clear();
        self.in_file = 0;
    }

    /// Whether there is room for so much; notes it if not.
    fn take(&mut self, texts: &[&str]) -> bool {
        let length = |text: &&str| text.chars().map(text::json_length).sum::<usize>() + 3;
        let length: usize = texts.iter().map(length).sum();
        if length > self.room {
            self.full = Some("the size of the answer; narrow the search");
            return false;
        }
        self.room -= length;
        true
    }
}

impl Sink for Found<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.hits.len() >= self.most {
            self.full = Some("`max_results`");
            return Ok(false);
        }
        let at = self.matcher.find(found.bytes()).ok().flatten().map_or(0, |at| at.start());
        let text = line(found.bytes(), at);
        let before = std::mem::take(&mut self.before);
        let keys = r#""path":"","line":000000,"text":"","before":[],"after":[]"#;
        let parts = before.iter().map(String::as_str).chain([self.path, &text, keys]);
        if !self.take(&parts.collect::<Vec<_>>()) {
            return Ok(false);
        }
        let line = found.line_number().unwrap_or(0);
        self.hits.push(Hit { path: self.path.into(), line, before, text, after: Vec::new() });
        self.in_file += 1;
        Ok(true)
    }

    fn context(&mut self, _: &Searcher, found: &SinkContext<'_>) -> io::Result<bool> {
        let text = line(found.bytes(), 0);
        match found.kind() {
            SinkContextKind::After if self.in_file > 0 => {
                if !self.take(&[&text]) {
                    return Ok(false);
                }
                if let Some(hit) = self.hits.last_mut() {
                    hit.after.push(text);
                }
            }
            _ => self.before.push(text),
        }
        Ok(true)
    }
}

/// What is shown of a line: all of it, or the part around the match.
fn line(bytes: &[u8], at: usize) -> String {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let (text, _) = text::visible(&text);
    let length = text.chars().count();
    if length <= SHOWN {
        return text;
    }
    let before = String::from_utf8_lossy(&bytes[..at.min(bytes.len())]).chars().count();
    let from = before.saturating_sub(SHOWN / 4).min(length - SHOWN);
    let part: String = text.chars().skip(from).take(SHOWN).collect();
    let start = if from > 0 { "…" } else { "" };
    let end = if from + SHOWN < length { "…" } else { "" };
    format!("{start}{part}{end}")
}
