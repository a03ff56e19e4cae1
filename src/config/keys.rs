//! The known keys, read off the schema itself so that no second list can fall behind.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// One setting.
#[derive(Clone, Debug)]
pub struct Key {
    /// Dotted, such as `limits.timeout`, but for the lists that are sections themselves.
    pub path: String,
    pub kind: Kind,
    /// The comment of its field.
    pub meaning: String,
    /// Null where nothing is set by default.
    pub default: Value,
    /// A value that is accepted, to show in messages and in the reference.
    pub example: Value,
}

/// What a setting holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Whole,
    Number,
    YesNo,
    Text,
    Size,
    Texts,
    Wholes,
    /// Texts by name.
    Table,
    /// Tables, by name or in a list.
    Tables,
    Choice(Vec<String>),
}

impl Key {
    /// Empty where the setting is a section itself.
    pub fn section(&self) -> &str {
        self.path.split_once('.').map_or("", |(section, _)| section)
    }

    pub fn name(&self) -> &str {
        self.path.rsplit_once('.').map_or(&self.path, |(_, name)| name)
    }

    /// Its value in a whole configuration.
    pub fn value_in<'a>(&self, config: &'a Value) -> &'a Value {
        match self.section() {
            "" => &config[self.name()],
            section => &config[section][self.name()],
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole => f.write_str("whole number"),
            Self::Number => f.write_str("number"),
            Self::Text => f.write_str("text"),
            Self::Size => f.write_str("size"),
            Self::YesNo => f.write_str("yes or no"),
            Self::Texts => f.write_str("list of texts"),
            Self::Wholes => f.write_str("list of whole numbers"),
            Self::Table => f.write_str("texts by name"),
            Self::Tables => f.write_str("tables"),
            Self::Choice(values) => write!(f, "one of {}", values.join(", ")),
        }
    }
}

/// Every setting, in the order of the schema.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(read_schema);
    &KEYS
}

pub(super) fn find(path: &str) -> Option<&'static Key> {
    keys().iter().find(|key| key.path == path)
}

/// The names of the sections, in the order of the schema.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = keys().iter().map(Key::section).collect();
    sections.retain(|section| !section.is_empty());
    sections.dedup();
    sections
}

/// What to say to somebody who wrote `section.name`: the nearest setting, or what there is.
pub(super) fn suggestion(section: &str, name: &str) -> String {
    let here: Vec<_> = keys().iter().filter(|key| key.section() == section).collect();
    let in_section = nearest(name, here.iter().map(|key| key.name()));
    // The right name in the wrong section is surer than a like name in the right one.
    let elsewhere = || keys().iter().find(|key| key.name() == name);
    if let Some(key) = elsewhere() {
        format!("did you mean `{}`?", key.path)
    } else if let Some(near) = in_section {
        format!("did you mean `{section}.{near}`?")
    } else if here.is_empty() {
        section_suggestion(section)
    } else {
        let names: Vec<_> = here.iter().map(|key| key.name()).collect();
        format!("`[{section}]` has {}", names.join(", "))
    }
}

/// What to say to somebody who wrote `[section]`.
pub(super) fn section_suggestion(section: &str) -> String {
    match nearest(section, sections().into_iter()) {
        Some(near) => format!("did you mean `[{near}]`?"),
        None => format!("there are {}", sections().join(", ")),
    }
}

/// The candidate that is likely to have been meant, if any is.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const LIKELY: f64 = 0.6;
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (likeness(&word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Misspelt words are near; so is a word that was cut short or drawn out (`api_key`, `mem`).
fn likeness(word: &str, candidate: &str) -> f64 {
    let misspelt = strsim::normalized_damerau_levenshtein(word, candidate);
    let shorter = word.len().min(candidate.len());
    let cut = shorter >= 3 && (candidate.starts_with(word) || word.starts_with(candidate));
    if cut { misspelt.max(0.65) } else { misspelt }
}

fn read_schema() -> Vec<Key> {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let mut keys = Vec::new();
    let mut add = |path: String, schema: &Value, default: &Value| {
        let kind = kind(schema);
        keys.push(Key {
            path,
            meaning: unwrap_lines(schema["description"].as_str().unwrap_or_default()),
            example: example(schema, &kind, default),
            kind,
            default: default.clone(),
        });
    };
    for (section, schema) in properties(&schema) {
        if schema["type"] == "array" {
            add(section.clone(), schema, &defaults[section]);
        }
        for (name, schema) in properties(schema) {
            add(format!("{section}.{name}"), schema, &defaults[section][name]);
        }
    }
    keys
}

fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["properties"].as_object().into_iter().flatten()
}

fn kind(schema: &Value) -> Kind {
    let choices = choices(schema);
    if !choices.is_empty() {
        return Kind::Choice(choices);
    }
    // An optional setting has the type `["string", "null"]`.
    let types = &schema["type"];
    let is = |name: &str| {
        types == name || types.as_array().is_some_and(|all| all.contains(&name.into()))
    };
    match () {
        () if is("integer") => Kind::Whole,
        () if is("number") => Kind::Number,
        () if is("boolean") => Kind::YesNo,
        () if is("array") => match schema["items"]["type"].as_str() {
            Some("integer") => Kind::Wholes,
            Some("object") => Kind::Tables,
            _ => Kind::Texts,
        },
        () if is("object") => match schema["additionalProperties"]["type"].as_str() {
            Some("object") => Kind::Tables,
            _ => Kind::Table,
        },
        () if schema["format"] == "size" => Kind::Size,
        () => Kind::Text,
    }
}

/// The variants of an enum: those without a comment come together, those with one each alone.
fn choices(schema: &Value) -> Vec<String> {
    let together = schema["enum"].as_array().into_iter().flatten();
    let parts = schema["oneOf"].as_array().into_iter().flatten();
    parts
        .flat_map(|part| match part.get("const").and_then(Value::as_str) {
            Some(word) => vec![word.to_owned()],
            None => choices(part),
        })
        .chain(together.filter_map(Value::as_str).map(str::to_owned))
        .collect()
}

fn example(schema: &Value, kind: &Kind, default: &Value) -> Value {
    if let Some(example) = schema["examples"].get(0) {
        return example.clone();
    }
    match kind {
        Kind::Choice(values) => values.last().cloned().into(),
        _ => default.clone(),
    }
}

fn unwrap_lines(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_yields_every_key_of_the_defaults_and_no_other() {
        let defaults = serde_json::to_value(Config::default()).expect("json");
        let mut expected = Vec::new();
        for (section, values) in defaults.as_object().expect("sections") {
            match values.as_object() {
                Some(values) => {
                    expected.extend(values.keys().map(|name| format!("{section}.{name}")));
                }
                None => expected.push(section.clone()),
            }
        }
        let mut known: Vec<_> = keys().iter().map(|key| key.path.clone()).collect();
        expected.sort();
        known.sort();
        assert_eq!(known, expected);
    }

    #[test]
    fn every_key_has_a_meaning_and_an_example() {
        for key in keys() {
            assert!(!key.meaning.is_empty(), "{}", key.path);
            assert!(!key.example.is_null(), "{}", key.path);
        }
        let kind = |path| find(path).map(|key| key.kind.clone());
        assert_eq!(kind("limits.memory"), Some(Kind::Size));
        assert_eq!(kind("limits.cpus"), Some(Kind::Number));
        assert_eq!(kind("limits.concurrency"), Some(Kind::Whole));
        assert_eq!(kind("workspace.roots"), Some(Kind::Texts));
        assert_eq!(kind("engine.host"), Some(Kind::Text));
        assert_eq!(kind("egress.open"), Some(Kind::YesNo));
        assert_eq!(kind("egress.host_ports"), Some(Kind::Wholes));
        assert_eq!(kind("env.pass"), Some(Kind::Table));
        assert_eq!(kind("agent.mcp"), Some(Kind::Tables));
        assert_eq!(kind("credential"), Some(Kind::Tables));
        let profiles = ["lean", "standard", "full"].map(String::from).to_vec();
        assert_eq!(kind("image.profile"), Some(Kind::Choice(profiles)));
        let Some(Kind::Choice(sources)) = kind("model.source") else { panic!("a choice") };
        assert_eq!(sources.len(), 8, "{sources:?}");
        assert_eq!(sources[0], "auto");
    }

    #[test]
    fn the_nearest_is_what_was_meant() {
        for (section, name, expected) in [
            ("limits", "timout", "`limits.timeout`"),
            ("limits", "mem", "`limits.memory`"),
            ("limits", "max-timeout", "`limits.max_timeout`"),
            ("model", "api_key", "`model.api_key_env`"),
            ("limits", "umask", "`sandbox.umask`"),
            ("limits", "colour", "`[limits]` has timeout, max_timeout"),
            ("modle", "colour", "`[model]`"),
            ("zzz", "colour", "there are model, engine"),
        ] {
            let said = suggestion(section, name);
            assert!(said.contains(expected), "{section}.{name}: {said}");
        }
    }
}
