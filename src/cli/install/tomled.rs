//! TOML, edited on its concrete syntax tree.

use serde_json::Value;
use toml_edit::{Array, DocumentMut, InlineTable, Item, Table, TableLike};

use super::format::{Error, kind};

pub(super) fn value(text: &str) -> Result<Value, Error> {
    toml::from_str(text).map_err(|error| syntax(text, error.span(), error.message()))
}

pub(super) fn set(text: &str, path: &[&str], value: &Value) -> Result<String, Error> {
    edit(text, |document| {
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        let mut table: &mut dyn TableLike = document.as_table_mut();
        let mut inline = false;
        for key in above {
            if table.get(key).is_none() {
                let mut new = Table::new();
                new.set_implicit(true);
                let new = if inline { InlineTable::new().into() } else { Item::Table(new) };
                table.insert(key, new);
            }
            let Some(item) = table.get_mut(key) else { return Err(Error::SideEffect) };
            inline = item.is_inline_table();
            let found = item.type_name();
            let wrong = || Error::NotATable { at: (*key).to_owned(), found };
            table = item.as_table_like_mut().ok_or_else(wrong)?;
        }
        fill(table, inline, name, value)
    })
}

pub(super) fn remove(text: &str, path: &[&str]) -> Result<String, Error> {
    edit(text, |document| {
        let Some((name, above)) = path.split_last() else { return Ok(()) };
        let mut table: &mut dyn TableLike = document.as_table_mut();
        for key in above {
            match table.get_mut(key).and_then(Item::as_table_like_mut) {
                Some(below) => table = below,
                None => return Ok(()),
            }
        }
        table.remove(name);
        Ok(())
    })
}

fn edit(
    text: &str,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), Error>,
) -> Result<String, Error> {
    // The editor writes plain line ends of its own, so that a file of the other kind is edited as
    // one of this kind.
    let lines = text.matches('\n').count();
    let windows = lines > 0 && text.matches("\r\n").count() == lines;
    let mut plain = if windows { text.replace("\r\n", "\n") } else { text.to_owned() };
    if !plain.is_empty() && !plain.ends_with('\n') {
        plain.push('\n');
    }
    let mut document: DocumentMut = plain
        .parse()
        .map_err(|error: toml_edit::TomlError| syntax(&plain, error.span(), error.message()))?;
    // What it cannot give back as it was, it would change elsewhere too.
    if document.to_string() != plain {
        return Err(Error::SideEffect);
    }
    change(&mut document)?;
    let new = document.to_string();
    Ok(if windows { new.replace('\n', "\r\n") } else { new })
}

fn fill(table: &mut dyn TableLike, inline: bool, name: &str, value: &Value) -> Result<(), Error> {
    let Some(item) = table.get_mut(name) else {
        let new = if inline { Item::Value(plain(value)?) } else { item(value)? };
        table.insert(name, new);
        return Ok(());
    };
    let inline = item.is_inline_table();
    if let (Some(inner), Value::Object(new)) = (item.as_table_like_mut(), value) {
        return new.iter().try_for_each(|(key, value)| fill(inner, inline, key, value));
    }
    let mut new = plain(value)?;
    if let Some(old) = item.as_value() {
        *new.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(new);
    Ok(())
}

fn item(value: &Value) -> Result<Item, Error> {
    let Value::Object(entries) = value else { return Ok(Item::Value(plain(value)?)) };
    let mut table = Table::new();
    for (key, value) in entries {
        table.insert(key, item(value)?);
    }
    Ok(Item::Table(table))
}

fn plain(value: &Value) -> Result<toml_edit::Value, Error> {
    Ok(match value {
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(plain).collect::<Result<Array, _>>()?.into(),
        Value::Object(entries) => {
            let mut table = InlineTable::new();
            for (key, value) in entries {
                table.insert(key, plain(value)?);
            }
            table.into()
        }
        // TOML has no word for nothing.
        Value::Null => {
            return Err(Error::NotATable { at: "a value".into(), found: kind(value) });
        }
    })
}

fn syntax(text: &str, span: Option<std::ops::Range<usize>>, message: &str) -> Error {
    let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    Error::Syntax { line, reason: crate::text::one_line(message, 200) }
}
