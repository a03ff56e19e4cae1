//! Cutting parts of a report to what a host's context bears.

use rmcp::model::JsonObject;
use serde::Serialize;
use serde_json::Value;

use crate::runner::{Report, Swept};
use crate::text;

const FILES: usize = 2048;
const SWEPT: usize = 1024;
const PATH: usize = 160;
const WHY: usize = 64;

/// Empties one part of the answer. Of what was swept, the number stays.
pub(super) fn leave_out(value: &mut JsonObject, part: &str) {
    let Some((section, name)) = part[1..].split_once('/') else { return };
    let Some(place) = value.get_mut(section).and_then(|section| section.get_mut(name)) else {
        return;
    };
    let length = |list: &Value| list.as_array().map_or(0, Vec::len) as u64;
    match name {
        "receipt" => *place = Value::Null,
        "targets" => *place = Value::Array(Vec::new()),
        _ => {
            let listed = length(&place["moved"]) + length(&place["odd"]);
            place["unlisted"] = (place["unlisted"].as_u64().unwrap_or(0) + listed).into();
            place["moved"] = Value::Array(Vec::new());
            place["odd"] = Value::Array(Vec::new());
        }
    }
}

/// Keeps the first of what was swept; the rest is counted.
pub(super) fn shorten_swept(swept: &mut Swept) {
    for item in &mut swept.moved {
        item.path = text::one_line(&item.path, PATH);
        item.why = text::one_line(&item.why, WHY);
        item.kept_as = None; // in the record, by its path
        item.note = item.note.as_deref().map(|note| text::one_line(note, PATH));
    }
    for odd in &mut swept.odd {
        odd.path = text::one_line(&odd.path, PATH);
    }
    let over = fit(&mut swept.moved, SWEPT) + fit(&mut swept.odd, SWEPT / 2);
    swept.unlisted += u64::try_from(over).unwrap_or(u64::MAX);
}

/// Keeps the files that fit; the summary says when there are more.
pub(super) fn shorten_files(report: &mut Report) {
    if fit(&mut report.changes.files, FILES) > 0 {
        report.changes.truncated = true;
    }
}

/// Keeps the first items that take at most `room` bytes together; answers how many went.
pub(super) fn fit<T: Serialize>(items: &mut Vec<T>, mut room: usize) -> usize {
    let fitting = items
        .iter()
        .take_while(|item| {
            let length = serde_json::to_value(item).map_or(0, |value| value.to_string().len()) + 1;
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        })
        .count();
    let over = items.len() - fitting;
    items.truncate(fitting);
    over
}
