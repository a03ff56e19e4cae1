//! The command by which the caller checks the result: run by us, before the agent and after it, in
//! the same sandbox, when no process of the agent lives.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::follow::{End, Seen, Workplace};
use super::story::millis;
use crate::sandbox::{Line, Order};
use crate::text::clean;

/// How much of the command's output is kept: its end.
const OUTPUT: usize = 2048;

// Evidence, where the answer is a claim. (Comments of these two are on the wire if they have three
// strokes.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verify {
    pub command: String,
    pub before: Option<Check>,
    // None where the run ended in a way that left nothing to check.
    pub after: Option<Check>,
    /// Exit code 0 after the agent.
    pub passed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    // None where it was not done in time.
    pub exit_code: Option<i64>,
    // The end of what it printed. Untrusted.
    pub output: String,
    pub timed_out: bool,
    pub duration_ms: u64,
}

impl Verify {
    pub fn of(command: &str) -> Self {
        Self { command: command.to_owned(), before: None, after: None, passed: false }
    }
}

impl Check {
    pub fn passed(&self) -> bool {
        self.exit_code == Some(0)
    }

    /// The shell found nothing to run.
    pub fn could_not_start(&self) -> bool {
        matches!(self.exit_code, Some(126 | 127))
    }

    /// In a few words.
    pub fn label(&self) -> String {
        match self.exit_code {
            Some(code) => format!("exit code {code}"),
            None => "not done in time".into(),
        }
    }
}

/// Runs the command; it is ended when `until` has passed.
pub async fn check(
    place: &mut Workplace<'_>,
    command: &str,
    environment: &[(String, String)],
    until: Instant,
) -> Result<Check, End> {
    let began = Instant::now();
    // One stream, in the order in which it was written; the command itself stays as it is.
    let argv = ["/bin/sh", "-c", "exec /bin/sh -c \"$0\" 2>&1", command].map(str::to_owned);
    place.order(&Order { argv: &argv, environment, task: &[] })?;
    let mut output = Tail::default();
    let mut timed_out = false;
    loop {
        let bound = (!timed_out).then_some(until);
        match place.next(bound).await? {
            Seen::Passed => {
                timed_out = true;
                place.sandbox.stop().map_err(|error| End::Broken(error.into()))?;
            }
            // A fault of the model is nothing to the check, whatever it asked of it.
            Seen::Traffic(traffic) => place.story.traffic(&traffic),
            Seen::Line(Line::Stdout(line) | Line::Stderr(line)) => output.add(&line),
            Seen::Line(Line::TooLong { bytes }) => {
                output.add(&format!("[a line of {bytes} bytes]"));
            }
            Seen::Line(Line::Ended(ended)) => {
                return Ok(Check {
                    exit_code: (!timed_out).then_some(ended.code),
                    output: output.text(),
                    timed_out,
                    duration_ms: millis(began.elapsed()),
                });
            }
        }
    }
}

/// The end of an output of any length.
#[derive(Debug, Default)]
struct Tail(String);

impl Tail {
    fn add(&mut self, line: &str) {
        // Before it is cleaned, it may have many times the bytes that are left of it.
        let line = last(line, 8 * OUTPUT);
        self.0.push_str(&clean(line));
        self.0.push('\n');
        if self.0.len() > 4 * OUTPUT {
            self.0 = last(&self.0, 2 * OUTPUT).to_owned();
        }
    }

    fn text(&self) -> String {
        last(self.0.trim_end(), OUTPUT).to_owned()
    }
}

/// The end of a text, in at most so many bytes.
fn last(text: &str, bytes: usize) -> &str {
    let from = text.len().saturating_sub(bytes);
    let from = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept_and_clean() {
        let mut tail = Tail::default();
        for number in 0..100_000 {
            tail.add(&format!("line {number} \u{1b}[31mä"));
        }
        let text = tail.text();
        assert!(text.len() <= OUTPUT && text.len() > OUTPUT - 8, "{}", text.len());
        assert!(text.ends_with("line 99999 ä"), "{text}");
        let mut tail = Tail::default();
        tail.add(&"ä".repeat(1 << 20));
        assert_eq!(tail.text(), "ä".repeat(OUTPUT / 2));
        let mut tail = Tail::default();
        tail.add("");
        assert_eq!(tail.text(), "");
    }

    #[test]
    fn only_zero_passes() {
        let check = |exit_code| Check {
            exit_code,
            output: String::new(),
            timed_out: exit_code.is_none(),
            duration_ms: 1,
        };
        assert!(check(Some(0)).passed());
        for code in [Some(1), Some(127), Some(137), None] {
            assert!(!check(code).passed());
        }
        assert!(check(Some(127)).could_not_start() && !check(Some(1)).could_not_start());
    }
}
