//! The user's file: TOML text to settings with their places.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::Error;
use super::keys::{self, Key};

/// One setting as the file has it.
#[derive(Debug)]
pub(super) struct Setting {
    pub key: &'static Key,
    pub value: Value,
    pub line: usize,
    pub column: usize,
}

/// The settings of `text`, which came from the file `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Setting>, Error> {
    let places = Places { path, text };
    let syntax = |error: toml::de::Error| Error::Syntax {
        place: places.name(error.span().map_or(0, |span| span.start)),
        // Not the error's `Display`: that one quotes the line, which could hold a secret.
        message: error.message().to_owned(),
    };
    // The same text twice: once for the values, once for where they stand.
    let values: Table = toml::from_str(text).map_err(syntax)?;
    let spans = DeTable::parse(text).map_err(syntax)?;

    let mut settings = Vec::new();
    for (section, content) in spans.get_ref() {
        // A list of tables is a setting and a section in one.
        if let Some(key) = keys::find(section.get_ref()) {
            let (line, column) = places.locate(section.span().start);
            if let Some(value) = values.get(section.get_ref().as_ref()).cloned() {
                settings.push(Setting { key, value, line, column });
            }
            continue;
        }
        let names = names(&places, section, content)?;
        for (name, value) in names {
            let at = name.span().start;
            let (section, name) = (section.get_ref(), name.get_ref());
            let path = format!("{section}.{name}");
            let Some(key) = keys::find(&path) else {
                return Err(places.unknown(at, path, keys::suggestion(section, name)));
            };
            let (line, column) = places.locate(value.span().start);
            let values = values.get(section.as_ref()).and_then(|names| names.get(name.as_ref()));
            if let Some(value) = values.cloned() {
                settings.push(Setting { key, value, line, column });
            }
        }
    }
    Ok(settings)
}

/// The settings of one section, which must be a known one.
fn names<'t, 'i>(
    places: &Places<'_>,
    section: &Spanned<std::borrow::Cow<'i, str>>,
    content: &'t Spanned<DeValue<'i>>,
) -> Result<&'t DeTable<'i>, Error> {
    let at = section.span().start;
    let name = section.get_ref();
    let known = keys::sections().contains(&name.as_ref());
    match content.get_ref() {
        DeValue::Table(names) if known => Ok(names),
        DeValue::Table(_) => {
            Err(places.unknown(at, format!("[{name}]"), keys::section_suggestion(name)))
        }
        _ if known => Err(Error::Type {
            place: places.name(at),
            key: name.to_string(),
            found: "a single value".into(),
            expected: "a section".into(),
            example: format!("[{name}]"),
        }),
        // A setting outside of every section.
        _ => Err(places.unknown(at, name.to_string(), keys::suggestion("", name))),
    }
}

/// Reads the text of a configuration file. Not longer than a person would write: somebody may name
/// a device or a log by mistake.
pub(super) fn read(path: &Path) -> io::Result<String> {
    const LONGEST: u64 = 1 << 20;
    let mut text = String::new();
    File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Turns offsets into places that people find.
struct Places<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Places<'_> {
    /// Line and column of a byte, both counted from 1, columns in characters.
    fn locate(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }

    fn name(&self, offset: usize) -> String {
        let (line, column) = self.locate(offset);
        format!("{}, line {line}, column {column}", self.path.display())
    }

    fn unknown(&self, offset: usize, key: String, suggestion: String) -> Error {
        Error::Unknown { place: self.name(offset), key, suggestion }
    }
}
