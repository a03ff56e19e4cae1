//! JSON, with comments or without, edited on its concrete syntax tree.

use jsonc_parser::ast::{Object, ObjectProp};
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use jsonc_parser::errors::ParseError;
use jsonc_parser::tokens::{Token, TokenAndRange};
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use serde_json::{Map, Value};

use super::format::{Error, Format, kind};

pub(super) fn value(text: &str, format: Format) -> Result<Value, Error> {
    if format == Format::Json {
        if text.trim().is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        return serde_json::from_str(text).map_err(|error| Error::Syntax {
            line: error.line(),
            reason: crate::text::one_line(&error.to_string(), 200),
        });
    }
    match parse(text, format)?.value() {
        // Nothing but spaces and comments is what a new file begins with.
        None => Ok(Value::Object(Map::new())),
        Some(value) => {
            let unreadable = || Error::Syntax { line: 1, reason: "a value cannot be read".into() };
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

/// Cuts one property out, with the comma and the line that were its own. Comments stay, also those
/// beside it: the syntax tree's own removal takes what is on the same line.
pub(super) fn remove(text: &str, format: Format, path: &[&str]) -> Result<String, Error> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: true };
    let parsed = parse_to_ast(text, &collect, &options(format)).map_err(|error| syntax(&error))?;
    let tokens = parsed.tokens.unwrap_or_default();
    let Some((name, above)) = path.split_last() else { return Ok(text.to_owned()) };
    let mut table = parsed.value.as_ref().and_then(|value| value.as_object());
    for key in above {
        let Some(property) = table.map(|table| only(table, key)).transpose()?.flatten() else {
            return Ok(text.to_owned());
        };
        table = property.value.as_object();
    }
    let Some(property) = table.map(|table| only(table, name)).transpose()?.flatten() else {
        return Ok(text.to_owned());
    };
    let (start, end) = (property.range.start, property.range.end);
    let comma = |token: &&TokenAndRange<'_>| token.token == Token::Comma;
    let after = tokens.iter().find(|token| token.range.start >= end).filter(comma);
    let before = tokens.iter().rfind(|token| token.range.end <= start).filter(comma);
    let mut new = text.to_owned();
    // From behind, so that the places further ahead stay true.
    let rest = match after {
        Some(comma) if text[end..comma.range.start].trim().is_empty() => comma.range.end,
        Some(comma) => {
            new.replace_range(comma.range.start..comma.range.end, "");
            end
        }
        None => end,
    };
    let is_space = |c: char| c == ' ' || c == '\t';
    let indent = text[..start].trim_end_matches(is_space).len();
    let alone = text[rest..].trim_start_matches(is_space);
    let line_ends = alone.is_empty() || alone.starts_with(['\n', '\r']);
    match text[..indent].strip_suffix('\n') {
        Some(line) if line_ends => {
            let line = line.strip_suffix('\r').unwrap_or(line);
            new.replace_range(line.len()..text.len() - alone.len(), "");
        }
        _ => new.replace_range(start..rest, ""),
    }
    if let (None, Some(comma)) = (after, before) {
        new.replace_range(comma.range.start..comma.range.end, "");
    }
    Ok(new)
}

fn only<'o, 'a>(table: &'o Object<'a>, name: &str) -> Result<Option<&'o ObjectProp<'a>>, Error> {
    let mut named = table.properties.iter().filter(|one| one.name.as_str() == name);
    match (named.next(), named.next()) {
        (_, Some(_)) => Err(Error::Twice { at: name.to_owned() }),
        (found, None) => Ok(found),
    }
}

fn fill(table: &CstObject, name: &str, value: &Value) -> Result<(), Error> {
    once(table, name)?;
    let Some(property) = table.get(name) else {
        table.append(name, input(value));
        return Ok(());
    };
    if let (Some(inner), Value::Object(new)) = (property.object_value(), value) {
        return new.iter().try_for_each(|(key, value)| fill(&inner, key, value));
    }
    let old = property.value().and_then(|value| value.to_serde_value());
    if old.as_ref() != Some(value) {
        property.set_value(input(value));
    }
    Ok(())
}

/// Readers take the first or the last of two; we would not know which counts.
fn once(table: &CstObject, name: &str) -> Result<(), Error> {
    let same =
        table.properties().iter().filter(|one| one.decoded_name().as_deref() == Some(name)).count();
    if same > 1 { Err(Error::Twice { at: name.to_owned() }) } else { Ok(()) }
}

fn parse(text: &str, format: Format) -> Result<CstRootNode, Error> {
    CstRootNode::parse(text, &options(format)).map_err(|error| syntax(&error))
}

fn options(format: Format) -> ParseOptions {
    let loose = format == Format::Jsonc;
    ParseOptions {
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
    }
}

fn syntax(error: &ParseError) -> Error {
    let reason = crate::text::one_line(&error.kind().to_string(), 200);
    Error::Syntax { line: error.line_display(), reason }
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
