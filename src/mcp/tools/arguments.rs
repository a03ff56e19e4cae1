//! Reading the arguments of a call, for a caller that is a model: all that is wrong is said at
//! once, each point names the argument and what is allowed, so that the next attempt is right.
//!
//! Several hosts send every argument as a text, whatever their model wrote. Where the schema wants
//! another type, a text that spells a value of that type is that value; a text stays a text.

use std::borrow::Cow;

use rmcp::model::JsonObject;
use serde_json::Value;

/// What is wrong with the arguments of a call.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub(in crate::mcp) struct BadArguments(Vec<String>);

/// Takes arguments out one by one and remembers what was wrong.
pub(super) struct Reader {
    given: JsonObject,
    problems: Vec<String>,
}

impl Reader {
    /// Arguments that are not among `known` are refused: a model that believes in one would also
    /// believe that it had an effect.
    pub fn new(given: JsonObject, known: &[&str]) -> Self {
        let problems = given
            .keys()
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| unknown(name, known))
            .collect();
        Self { given, problems }
    }

    /// A text that must be there; what it may hold is the runner's to say.
    pub fn required_text(&mut self, name: &str) -> String {
        match self.take(name) {
            Some(Value::String(text)) => text,
            Some(other) => self.wrong(name, "a string", &other),
            None => {
                self.problems.push(format!("`{name}` is missing (a string)"));
                String::new()
            }
        }
    }

    /// A text that may be absent.
    pub fn text(&mut self, name: &str) -> Option<String> {
        match self.optional(name)? {
            Value::String(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&mut self, name: &str) -> Vec<String> {
        const WANTED: &str = "a list of strings";
        match self.optional(name) {
            None => Vec::new(),
            Some(Value::String(text)) => match serde_json::from_str(&text) {
                Ok(Value::Array(items)) => self.items(name, items),
                _ => vec![text],
            },
            Some(Value::Array(items)) => self.items(name, items),
            Some(other) => self.wrong(name, WANTED, &other),
        }
    }

    fn items(&mut self, name: &str, items: Vec<Value>) -> Vec<String> {
        let mut texts = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text),
                other => self.problems.push(format!(
                    "`{name}` must be a list of strings, but item {} is {}",
                    at + 1,
                    describe(&other)
                )),
            }
        }
        texts
    }

    /// A positive whole number; `60.0` counts, as some languages write `60`.
    pub fn seconds(&mut self, name: &str) -> Option<u64> {
        const WANTED: &str = "a whole number of seconds, 1 or more";
        let value = self.optional(name)?;
        match whole(&meant(&value)) {
            Some(number) if number > 0 => Some(number),
            _ => self.wrong(name, WANTED, &value),
        }
    }

    /// A whole number within bounds.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.optional(name)?;
        match whole(&meant(&value)) {
            Some(number) if (least..=most).contains(&number) => Some(number),
            _ if most == u64::MAX => {
                self.wrong(name, &format!("a whole number, {least} or more"), &value)
            }
            _ => self.wrong(name, &format!("a whole number from {least} to {most}"), &value),
        }
    }

    /// Yes or no.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let value = self.optional(name)?;
        match *meant(&value) {
            Value::Bool(flag) => Some(flag),
            _ => self.wrong(name, "true or false", &value),
        }
    }

    /// One of some words, each standing for a value. `read-only`, as the command line has it, is
    /// `read_only` here.
    pub fn one_of<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.optional(name)?;
        let chosen = value
            .as_str()
            .map(|word| word.replace('-', "_"))
            .and_then(|word| choices.iter().find(|(choice, _)| *choice == word))
            .map(|(_, chosen)| *chosen);
        if chosen.is_none() {
            let words: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            self.wrong::<()>(name, &format!("one of {}", quoted(&words)), &value);
        }
        chosen
    }

    pub fn finish(self) -> Result<(), BadArguments> {
        if self.problems.is_empty() { Ok(()) } else { Err(BadArguments(self.problems)) }
    }

    /// `null` is how some hosts write an argument that was left out.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.given.remove(name).filter(|value| !value.is_null())
    }

    /// Many models fill in `""` for what they leave open, and hosts that send texts only `"null"`.
    fn optional(&mut self, name: &str) -> Option<Value> {
        let is_left_out = |text: &str| matches!(text.trim(), "" | "null");
        self.take(name).filter(|value| !value.as_str().is_some_and(is_left_out))
    }

    fn wrong<T: Default>(&mut self, name: &str, wanted: &str, got: &Value) -> T {
        self.problems.push(format!("`{name}` must be {wanted}, not {}", describe(got)));
        T::default()
    }
}

/// Tells an optional yes, for readers ahead of the tool.
pub(in crate::mcp) fn is_yes(value: Option<&Value>) -> bool {
    value.is_some_and(|value| *meant(value) == true)
}

/// The number or the yes or no that a text spells, for arguments that are no texts.
fn meant(value: &Value) -> Cow<'_, Value> {
    let Value::String(text) = value else { return Cow::Borrowed(value) };
    // `True` is how Python writes it.
    match serde_json::from_str(&text.trim().to_ascii_lowercase()) {
        Ok(meant @ (Value::Number(_) | Value::Bool(_))) => Cow::Owned(meant),
        _ => Cow::Borrowed(value),
    }
}

fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        // 2^53: beyond it a float no longer names one whole number.
        let exact = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        exact.then_some(number as u64)
    })
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the string `{}`", crate::text::one_line(text, 60)),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let name = crate::text::one_line(name, 60);
    let near = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| format!("did you mean `{candidate}`? "))
        .unwrap_or_default();
    format!("`{name}` is not an argument; {near}allowed are {}", quoted(known))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KNOWN: &[&str] = &["task", "mode", "timeout", "model"];

    fn reader(given: Value) -> Reader {
        let Value::Object(given) = given else { panic!("an object") };
        Reader::new(given, KNOWN)
    }

    #[test]
    fn an_unknown_argument_is_named_with_the_nearest_and_all_known_ones() {
        let mut reader = reader(json!({"task": "x", "time_out": 3}));
        reader.required_text("task");
        assert_eq!(
            reader.finish().expect_err("unknown").to_string(),
            "`time_out` is not an argument; did you mean `timeout`? \
             allowed are `task`, `mode`, `timeout`, `model`",
        );
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let mut reader = reader(json!({"task": 7, "mode": "fast", "timeout": "1m", "model": []}));
        reader.required_text("task");
        assert_eq!(reader.one_of("mode", &[("direct", 1), ("read_only", 2)]), None);
        assert_eq!(reader.seconds("timeout"), None);
        assert_eq!(reader.text("model"), None);
        assert_eq!(
            reader.finish().expect_err("wrong").to_string(),
            "`task` must be a string, not 7; \
             `mode` must be one of `direct`, `read_only`, not the string `fast`; \
             `timeout` must be a whole number of seconds, 1 or more, not the string `1m`; \
             `model` must be a string, not an array",
        );
    }

    #[test]
    fn what_is_left_out_may_be_null_or_blank() {
        for blank in [json!(null), json!(""), json!(" "), json!("null"), json!(" null ")] {
            let mut reader = reader(json!({"task": "null", "mode": blank, "timeout": blank}));
            assert_eq!(reader.required_text("task"), "null", "what must be there is a text");
            assert_eq!(reader.one_of("mode", &[("direct", 1)]), None);
            assert_eq!(reader.seconds("timeout"), None);
            assert_eq!(reader.finish(), Ok(()), "{blank}");
            let mut reader = self::reader(json!({"task": blank, "mode": blank, "model": blank}));
            assert_eq!(reader.flag("mode"), None);
            assert_eq!(reader.text("model"), None);
            assert_eq!(reader.texts("task"), [""; 0]);
            assert_eq!(reader.finish(), Ok(()), "{blank}");
        }
    }

    #[test]
    fn a_text_is_another_type_only_where_one_is_wanted() {
        let mut reader = reader(json!({
            "task": "[\"a\"]", "mode": "true", "timeout": " 60 ", "model": "7",
        }));
        assert_eq!(reader.required_text("task"), "[\"a\"]");
        assert_eq!(reader.text("model").as_deref(), Some("7"));
        assert_eq!(reader.flag("mode"), Some(true));
        assert_eq!(reader.seconds("timeout"), Some(60));
        assert_eq!(reader.finish(), Ok(()));
        assert!(is_yes(Some(&json!("True"))) && !is_yes(Some(&json!("yes"))) && !is_yes(None));

        let texts = |given: Value| {
            let mut reader = self::reader(json!({ "task": given }));
            let texts = reader.texts("task");
            reader.finish().map(|()| texts).map_err(|error| error.to_string())
        };
        assert_eq!(texts(json!("[\"a\", \"[b]\"]")).expect("a list"), ["a", "[b]"]);
        assert_eq!(texts(json!("[fix] the \"b\"")).expect("one"), ["[fix] the \"b\""]);
        let wrong = "`task` must be a list of strings, but item 2 is 7; \
                     `task` must be a list of strings, but item 3 is null";
        assert_eq!(texts(json!("[\"a\", 7, null]")).expect_err("wrong"), wrong);
        assert_eq!(texts(json!(["a", 7, null])).expect_err("wrong"), wrong);
    }

    #[test]
    fn words_may_be_written_as_on_the_command_line() {
        let mut reader = reader(json!({"mode": "read-only"}));
        assert_eq!(reader.one_of("mode", &[("direct", 1), ("read_only", 2)]), Some(2));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_missing_task_is_said() {
        let mut reader = reader(json!({}));
        reader.required_text("task");
        assert_eq!(
            reader.finish().expect_err("missing").to_string(),
            "`task` is missing (a string)"
        );
    }

    #[test]
    fn numbers_and_flags_say_what_they_may_be() {
        let mut reader = reader(json!({"task": 0, "mode": "yes", "timeout": 3, "model": false}));
        assert_eq!(reader.number("task", 1, u64::MAX), None);
        assert_eq!(reader.flag("mode"), None);
        assert_eq!(reader.number("timeout", 0, 2), None);
        assert_eq!(reader.flag("model"), Some(false));
        assert_eq!(
            reader.finish().expect_err("wrong").to_string(),
            "`task` must be a whole number, 1 or more, not 0; \
             `mode` must be true or false, not the string `yes`; \
             `timeout` must be a whole number from 0 to 2, not 3",
        );
    }

    #[test]
    fn seconds_are_whole_and_positive() {
        let asked = |value: Value| {
            let mut reader = reader(json!({"timeout": value}));
            (reader.seconds("timeout"), reader.finish().is_ok())
        };
        assert_eq!(asked(json!(90)), (Some(90), true));
        assert_eq!(asked(json!(90.0)), (Some(90), true));
        assert_eq!(asked(json!("90.0")), (Some(90), true));
        for wrong in
            [json!(0), json!(-1), json!(1.5), json!(1e300), json!(true), json!("0"), json!("9 s")]
        {
            assert_eq!(asked(wrong.clone()), (None, false), "{wrong}");
        }
    }
}
