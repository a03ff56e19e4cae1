//! One thing that was looked at, how it is, and what to do about it.

use serde::Serialize;

use crate::text::one_line;

/// Words of servers and engines come in here; no sentence of our own is longer.
const LONGEST: usize = 700;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Runs work, but less well or less safely than they could.
    Warning,
    /// Runs do not work.
    Error,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What a check found. There is none that is not ok and has no remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    /// One line, fit for a terminal.
    pub message: String,
    pub remedy: Option<String>,
}

impl Finding {
    pub fn ok(check: &'static str, message: impl AsRef<str>) -> Self {
        let message = one_line(message.as_ref(), LONGEST);
        Self { check, level: Level::Ok, message, remedy: None }
    }

    pub fn warning(check: &'static str, message: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::bad(Level::Warning, check, message, remedy)
    }

    pub fn error(check: &'static str, message: impl AsRef<str>, remedy: impl AsRef<str>) -> Self {
        Self::bad(Level::Error, check, message, remedy)
    }

    pub fn bad(
        level: Level,
        check: &'static str,
        message: impl AsRef<str>,
        remedy: impl AsRef<str>,
    ) -> Self {
        let remedy = Some(one_line(remedy.as_ref(), LONGEST));
        Self { level, remedy, ..Self::ok(check, message) }
    }

    /// A message of another room. By the custom of this project it ends in `; ` and the remedy;
    /// `otherwise` is the remedy of those that do not.
    pub fn told(level: Level, check: &'static str, text: &str, otherwise: &str) -> Self {
        match text.rsplit_once("; ") {
            Some((message, remedy)) => Self::bad(level, check, message, remedy),
            None => Self::bad(level, check, text, otherwise),
        }
    }
}

/// `count` bytes as people say them.
pub fn size(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let scaled = |unit: u32| count as f64 / f64::from(unit);
    match count {
        0..1_000_000 => format!("{:.0} kB", scaled(1000)),
        1_000_000..1_000_000_000 => format!("{:.0} MB", scaled(1_000_000)),
        _ => format!("{:.1} GB", scaled(1_000_000_000)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_message_is_split_where_its_remedy_begins() {
        let found = Finding::told(Level::Error, "x", "it is so; and so; do this", "that");
        assert_eq!(found.message, "it is so; and so");
        assert_eq!(found.remedy.as_deref(), Some("do this"));
        let found = Finding::told(Level::Warning, "x", "it\nis so", "do that");
        assert_eq!(
            (found.message.as_str(), found.remedy.as_deref()),
            ("it is so", Some("do that"))
        );
    }

    #[test]
    fn sizes_are_short() {
        let said = [999, 845_200_000, 52_345_000_000].map(size);
        assert_eq!(said, ["1 kB", "845 MB", "52.3 GB"]);
    }
}
