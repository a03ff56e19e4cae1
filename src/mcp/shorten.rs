//! Cutting parts of a report to what a host's context bears.

use rmcp::model::JsonObject;
use serde::Serialize;
use serde_json::Value;

use crate::runner::{Report, Verify};
use crate::text;

const FILES: usize = 1536;
const PATH: usize = 160;
const BEFORE: usize = 192;
const AFTER: usize = 512;
const COMMAND: usize = 80;

/// Empties one part of the answer.
pub(super) fn leave_out(value: &mut JsonObject, part: &str) {
    let Some((section, name)) = part[1..].split_once('/') else { return };
    let Some(place) = value.get_mut(section).and_then(|section| section.get_mut(name)) else {
        return;
    };
    match place {
        Value::Array(list) => list.clear(),
        place => {
            if let Some(output) = place.get_mut("output") {
                *output = "".into();
            }
        }
    }
}

/// Keeps the end of what a check printed: more of one that failed, and most of what counts.
pub(super) fn shorten_verify(verify: &mut Verify) {
    verify.command = text::one_line(&verify.command, COMMAND);
    for (check, most) in [(&mut verify.before, BEFORE), (&mut verify.after, AFTER)] {
        let Some(check) = check else { continue };
        let most = if check.exit_code == Some(0) { PATH } else { most };
        check.output = end_of(&text::clean(&check.output), most);
    }
}

/// The end of `text` that takes at most `room` bytes as JSON, with a mark where it was cut.
fn end_of(text: &str, room: usize) -> String {
    let mut left = room;
    let mut from = text.len();
    for (at, c) in text.char_indices().rev() {
        let length = text::json_length(c);
        if length > left {
            return format!("[{from} bytes cut …]\n{}", &text[from..]);
        }
        left -= length;
        from = at;
    }
    text.to_owned()
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
