//! A client's settings file as text: read, and changed at one place with all else left as it was.
//!
//! Editors work on syntax trees that keep comments, order and spacing. Whatever they do is checked
//! afterwards: the new text must parse, and hold what the old one held but for the one change.

use serde_json::{Map, Value};

use super::format::kind;
pub use super::format::{Error, Format};
use super::{jsonc, tomled};

const MARK: char = '\u{feff}';

/// A text that parses.
#[derive(Clone, Debug)]
pub struct Document {
    format: Format,
    /// As it is on disk.
    text: String,
    value: Value,
}

impl Document {
    pub fn parse(bytes: Vec<u8>, format: Format) -> Result<Self, Error> {
        let text = String::from_utf8(bytes).map_err(|_| Error::NotText)?;
        let value = value_of(&text, format)?;
        Ok(Self { format, text, value })
    }

    pub fn empty(format: Format) -> Self {
        Self { format, text: String::new(), value: Value::Object(Map::new()) }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is below these keys.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.value, |value, key| value.get(key))
    }

    /// What is in a table; nothing where there is no such table.
    pub fn entries(&self, table: &str) -> impl Iterator<Item = (&str, &Value)> {
        let table = self.value.get(table).and_then(Value::as_object);
        table.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }

    /// With `value` at `path`. Tables are filled up, and what they hold besides stays.
    pub fn with(&self, path: &[&str], value: &Value) -> Result<Self, Error> {
        let mut expected = self.value.clone();
        put(&mut expected, path, value)?;
        let edit = |text: &str| match self.format {
            Format::Json | Format::Jsonc => jsonc::set(text, self.format, path, value),
            Format::Toml => tomled::set(text, path, value),
        };
        self.edited(edit, &[expected])
    }

    /// Without what is at `path`.
    pub fn without(&self, path: &[&str]) -> Result<Self, Error> {
        let mut expected = self.value.clone();
        let Some((name, above)) = path.split_last() else { return Ok(self.clone()) };
        let table = above.iter().try_fold(&mut expected, |value, key| value.get_mut(key));
        let Some(table) = table.and_then(Value::as_object_mut) else { return Ok(self.clone()) };
        table.shift_remove(*name);
        let emptied = table.is_empty();
        let mut expected = vec![expected];
        // A TOML table that was only ever named by what is in it is gone with the last of it.
        if let (true, Format::Toml, [servers]) = (emptied, self.format, above) {
            let mut without = expected[0].clone();
            without.as_object_mut().map(|table| table.shift_remove(*servers));
            expected.push(without);
        }
        let edit = |text: &str| match self.format {
            Format::Json | Format::Jsonc => jsonc::remove(text, self.format, path),
            Format::Toml => tomled::remove(text, path),
        };
        self.edited(edit, &expected)
    }

    fn edited(
        &self,
        edit: impl Fn(&str) -> Result<String, Error>,
        expected: &[Value],
    ) -> Result<Self, Error> {
        let (mark, text) = match self.text.strip_prefix(MARK) {
            Some(rest) => (true, rest),
            None => (false, self.text.as_str()),
        };
        let mut new = edit(text)?;
        if !new.ends_with('\n') && (text.is_empty() || text.ends_with('\n')) {
            new.push('\n');
        }
        if mark {
            new.insert(0, MARK);
        }
        let value = value_of(&new, self.format).map_err(|_| Error::SideEffect)?;
        if expected.contains(&value) {
            Ok(Self { format: self.format, text: new, value })
        } else {
            Err(Error::SideEffect)
        }
    }
}

fn value_of(text: &str, format: Format) -> Result<Value, Error> {
    let text = text.strip_prefix(MARK).unwrap_or(text);
    let value = match format {
        Format::Json | Format::Jsonc => jsonc::value(text, format)?,
        Format::Toml => tomled::value(text)?,
    };
    match value {
        Value::Object(_) => Ok(value),
        other => Err(Error::NotATable { at: "the file".into(), found: kind(&other) }),
    }
}

/// What the editors do, on plain values.
fn put(value: &mut Value, path: &[&str], new: &Value) -> Result<(), Error> {
    let Some((key, rest)) = path.split_first() else {
        fill(value, new);
        return Ok(());
    };
    let found = kind(value);
    let Some(table) = value.as_object_mut() else {
        return Err(Error::NotATable { at: (*key).to_owned(), found });
    };
    let below = table.entry(*key).or_insert_with(|| Value::Object(Map::new()));
    if !below.is_object() && !rest.is_empty() {
        return Err(Error::NotATable { at: (*key).to_owned(), found: kind(below) });
    }
    put(below, rest, new)
}

fn fill(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in new {
                fill(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (old, new) => *old = new.clone(),
    }
}
