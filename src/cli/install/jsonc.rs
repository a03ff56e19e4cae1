//! JSON, with comments or without, edited on its concrete syntax tree.

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::{Map, Value};

use super::document::{Error, Format, kind};

pub(super) fn value(text: &str, format: Format) -> Result<Value, Error> {
    let root = parse(text, format)?;
    match root.value() {
        // Nothing but spaces and comments is what a new file begins with.
        None => Ok(Value::Object(Map::new())),
        Some(value) => {
            let line = 1;
            let unreadable = || Error::Syntax { line, reason: "a value cannot be read".into() };
            value.to_serde_value().ok_or_else(unreadable)
        }
    }
}

pub(super) fn set(
    text: &str,
    format: Format,
    path: &[&str],
    value: &Value,
) -> Result<String, Error> {
    let root = parse(text, format)?;
    let Some((name, above)) = path.split_last() else { return Ok(text.to_owned()) };
    let mut table =
        root.object_value_or_create().ok_or_else(|| wrong("the file", &root_value(&root)))?;
    for key in above {
        once(&table, key)?;
        let found = table.get(key).and_then(|property| property.value()?.to_serde_value());
        table = table
            .object_value_or_create(key)
            .ok_or_else(|| wrong(key, &found.unwrap_or_default()))?;
    }
    fill(&table, name, value)?;
    Ok(root.to_string())
}

pub(super) fn remove(text: &str, format: Format, path: &[&str]) -> Result<String, Error> {
    let root = parse(text, format)?;
    let Some((name, above)) = path.split_last() else { return Ok(text.to_owned()) };
    let mut table = root.object_value();
    for key in above {
        if let Some(table) = &table {
            once(table, key)?;
        }
        table = table.and_then(|table| table.object_value(key));
    }
    if let Some(table) = table {
        once(&table, name)?;
        if let Some(property) = table.get(name) {
            property.remove();
        }
    }
    Ok(root.to_string())
}

fn fill(table: &CstObject, name: &str, value: &Value) -> Result<(), Error> {
    once(table, name)?;
    let Some(property) = table.get(name) else {
        table.append(name, input(value));
        return Ok(());
    };
    match (property.object_value(), value) {
        (Some(inner), Value::Object(new)) => {
            new.iter().try_for_each(|(key, value)| fill(&inner, key, value))
        }
        _ => {
            let old = property.value().and_then(|value| value.to_serde_value());
            if old.as_ref() != Some(value) {
                property.set_value(input(value));
            }
            Ok(())
        }
    }
}

/// Readers take the first or the last of two; we would not know which counts.
fn once(table: &CstObject, name: &str) -> Result<(), Error> {
    let same =
        table.properties().iter().filter(|one| one.decoded_name().as_deref() == Some(name)).count();
    if same > 1 { Err(Error::Twice { at: name.to_owned() }) } else { Ok(()) }
}

fn parse(text: &str, format: Format) -> Result<CstRootNode, Error> {
    let loose = format == Format::Jsonc;
    let options = ParseOptions {
        allow_comments: loose,
        allow_trailing_commas: loose,
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    CstRootNode::parse(text, &options).map_err(|error| Error::Syntax {
        line: error.line_display(),
        reason: crate::text::one_line(&error.kind().to_string(), 200),
    })
}

fn root_value(root: &CstRootNode) -> Value {
    root.value().and_then(|value| value.to_serde_value()).unwrap_or_default()
}

fn wrong(at: &str, found: &Value) -> Error {
    Error::NotATable { at: at.to_owned(), found: kind(found) }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(yes) => CstInputValue::Bool(*yes),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(table) => CstInputValue::Object(
            table.iter().map(|(key, value)| (key.clone(), input(value))).collect(),
        ),
    }
}
