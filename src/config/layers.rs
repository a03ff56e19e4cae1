//! Defaults, the user's file, the environment and the command line, the later over the earlier.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::keys::{self, Key, Kind};
use super::project::{self, Effect, Project};
use super::{Config, Environment, Error, file, validate};
use crate::text::one_line;

/// The word in place of a URL that stands for the rehearsal model.
const REHEARSAL: &str = "rehearsal";

/// What besides the defaults takes part.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The file given by `--config`.
    pub file: Option<PathBuf>,
    pub overrides: Vec<Override>,
    pub environment: Environment,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Override {
    pub flag: &'static str,
    pub key: &'static str,
    pub value: String,
}

/// The variables that give settings, and which. `install` sets the last for hosts whose own limit
/// it has raised.
const VARIABLES: [(&str, &str); 3] = [
    ("SANDBOX_MCP_MODEL_URL", "model.url"),
    ("SANDBOX_MCP_MODEL", "model.model"),
    ("SANDBOX_MCP_SYNC_LIMIT", "mcp.sync_limit"),
];

/// The flags that give settings, and which.
const FLAGS: [(&str, &str); 2] = [("--model-url", "model.url"), ("--model", "model.model")];

impl Override {
    /// As the flag for `key` gives it.
    pub fn of_key(key: &str, value: impl Into<String>) -> Option<Self> {
        let (flag, key) = FLAGS.into_iter().find(|(_, known)| *known == key)?;
        Some(Self::new(flag, key, value))
    }

    pub fn new(flag: &'static str, key: &'static str, value: impl Into<String>) -> Self {
        Self { flag, key, value: value.into() }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    Default,
    File {
        path: PathBuf,
        line: usize,
    },
    /// The project's file in the workspace.
    Project {
        path: PathBuf,
        line: usize,
    },
    Environment {
        variable: &'static str,
    },
    CommandLine {
        flag: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } | Self::Project { path, line } => {
                write!(f, "{}, line {line}", path.display())
            }
            Self::Environment { variable } => write!(f, "environment variable {variable}"),
            Self::CommandLine { flag } => write!(f, "command line, {flag}"),
        }
    }
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Effective {
    pub config: Config,
    /// The user's file, where there is one.
    pub file: Option<PathBuf>,
    /// For each key that is not at its default.
    origins: BTreeMap<String, Origin>,
    /// Settings of the project's file that are not in force.
    pub inert: Vec<String>,
    /// The project's file, where there is one.
    pub project: Option<PathBuf>,
    /// What a person should know about the project's file, in one line.
    pub remark: Option<String>,
}

impl Effective {
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// Puts the layers on top of each other and checks the result.
pub fn load(options: &LoadOptions) -> Result<Effective, Error> {
    load_for(options, None, false)
}

/// As [`load`], with the file of a project between the user's own and the environment. Without
/// trust, only what narrows is taken from it.
pub fn load_for(
    options: &LoadOptions,
    project: Option<&Project>,
    trusted: bool,
) -> Result<Effective, Error> {
    let environment = &options.environment;
    let mut layers = Layers::default();
    let mut inert = Vec::new();
    let file = user_file(options)?;
    if let Some((path, text)) = &file {
        for setting in file::parse(path, text)? {
            let place =
                format!("{}, line {}, column {}", path.display(), setting.line, setting.column);
            let origin = Origin::File { path: path.clone(), line: setting.line };
            layers.set(setting.key, setting.value, &origin, &place)?;
        }
    }
    if let Some(project) = project {
        inert = layers.set_project(project, trusted)?;
    }
    for (variable, key) in VARIABLES {
        if let Some(text) = environment.text(variable)? {
            layers.set_text(key, text, &Origin::Environment { variable })?;
        }
    }
    for Override { flag, key, value } in &options.overrides {
        layers.set_text(key, value.clone(), &Origin::CommandLine { flag })?;
    }

    // Every value was read alone before, so nothing is left to go wrong here.
    let mut config = Config::deserialize(layers.values).map_err(|error| Error::Syntax {
        place: "settings".to_owned(),
        message: error.message().to_owned(),
    })?;
    expand_home(&mut config, environment.home().as_deref());
    let origins = layers.origins;
    let effective = Effective {
        config,
        file: file.map(|(path, _)| path),
        origins,
        inert,
        project: None,
        remark: None,
    };
    validate::check(&effective)?;
    Ok(effective)
}

/// The user's file and its text. One that was named must be there.
fn user_file(options: &LoadOptions) -> Result<Option<(PathBuf, String)>, Error> {
    let variable = || options.environment.get("SANDBOX_MCP_CONFIG").map(PathBuf::from);
    let (named_by, path) = if let Some(path) = options.file.clone() {
        (Some("`--config`"), path)
    } else if let Some(path) = variable() {
        (Some("SANDBOX_MCP_CONFIG"), path)
    } else if let Some(path) = options.environment.user_file() {
        (None, path)
    } else {
        return Ok(None);
    };
    match (file::read(&path), named_by) {
        (Ok(text), _) => Ok(Some((path, text))),
        (Err(error), named_by) if error.kind() == std::io::ErrorKind::NotFound => match named_by {
            Some(named_by) => Err(Error::Missing { named_by, path }),
            None => Ok(None),
        },
        (Err(source), _) => Err(Error::Unreadable { path, source }),
    }
}

/// What has been set so far.
#[derive(Debug, Default)]
struct Layers {
    values: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// Sets a key from a text outside of the file, where nothing tells a number from a word.
    fn set_text(&mut self, key: &str, text: String, origin: &Origin) -> Result<(), Error> {
        let place = origin.to_string();
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let Some(key) = keys::find(key) else {
            let suggestion = keys::suggestion(section, name);
            return Err(Error::Unknown { place, key: key.to_owned(), suggestion });
        };
        let value = match key.kind {
            Kind::Whole
            | Kind::Number
            | Kind::YesNo
            | Kind::Texts
            | Kind::Wholes
            | Kind::Table
            | Kind::Tables => text.parse().unwrap_or(Value::String(text)),
            Kind::Text | Kind::Size | Kind::Choice(_) => Value::String(text),
        };
        self.set(key, value, origin, &place)
    }

    fn set(&mut self, key: &Key, value: Value, origin: &Origin, place: &str) -> Result<(), Error> {
        let mut alone = Table::from_iter([(key.name().to_owned(), value.clone())]);
        if !key.section().is_empty() {
            alone = Table::from_iter([(key.section().to_owned(), Value::Table(alone))]);
        }
        // Each value is read alone first, so that a wrong one is reported with its own place.
        if let Err(error) = Config::deserialize(alone) {
            return Err(match key.kind {
                // What is wrong is further inside.
                Kind::Tables | Kind::Table => Error::Inside {
                    place: place.to_owned(),
                    key: key.path.clone(),
                    message: one_line(error.message(), 300),
                    example: key.example.to_string(),
                },
                _ => wrong_type(key, &value, place),
            });
        }
        if key.path == "model.url" {
            self.settle_source(value.as_str() == Some(REHEARSAL), origin);
            if value.as_str() == Some(REHEARSAL) {
                return Ok(());
            }
        }
        self.put(key, value, origin);
        Ok(())
    }

    /// Takes from a project's file what may be taken, and returns the names of what may not.
    fn set_project(&mut self, project: &Project, trusted: bool) -> Result<Vec<String>, Error> {
        let below: Config = Config::deserialize(self.values.clone()).unwrap_or_default();
        let mut inert = Vec::new();
        for mut setting in project.settings()? {
            let key = setting.key;
            let effect = project::effect(key, &setting.value, &below);
            let place = format!("{}, line {}", project.path().display(), setting.line);
            match effect {
                Effect::Never if trusted => {
                    return Err(Error::NotAProjects { place, key: key.path.clone() });
                }
                Effect::Asks if trusted => {}
                Effect::Narrows => {}
                Effect::Asks | Effect::Never => {
                    inert.push(key.path.clone());
                    continue;
                }
            }
            // What the user protects stays protected.
            if let ("workspace.protected", Value::Array(places)) =
                (key.path.as_str(), &mut setting.value)
            {
                places.extend(below.workspace.protected.iter().cloned().map(Value::String));
            }
            let origin = Origin::Project { path: project.path().to_owned(), line: setting.line };
            self.set(key, setting.value, &origin, &place)?;
        }
        Ok(inert)
    }

    /// A URL and the rehearsal exclude one another: the later layer decides between them. Within
    /// one layer the contradiction stays, and is refused when all is checked.
    fn settle_source(&mut self, rehearsal: bool, origin: &Origin) {
        let Some(source) = keys::find("model.source") else { return };
        if rehearsal {
            self.remove("model", "url", "model.url");
            self.put(source, Value::String(REHEARSAL.into()), origin);
            self.origins.insert("model.url".into(), origin.clone());
            return;
        }
        let rehearsing = self.values.get("model").and_then(|model| model.get("source"));
        let earlier = self.origins.get("model.source").is_some_and(|set| !same_layer(set, origin));
        if earlier && rehearsing.and_then(Value::as_str) == Some(REHEARSAL) {
            self.put(source, Value::String("auto".into()), origin);
        }
    }

    fn put(&mut self, key: &Key, value: Value, origin: &Origin) {
        if key.section().is_empty() {
            self.values.insert(key.name().to_owned(), value);
        } else if let Value::Table(section) =
            self.values.entry(key.section()).or_insert_with(|| Value::Table(Table::new()))
        {
            section.insert(key.name().to_owned(), value);
        }
        self.origins.insert(key.path.clone(), origin.clone());
    }

    fn remove(&mut self, section: &str, name: &str, path: &str) {
        if let Some(Value::Table(section)) = self.values.get_mut(section) {
            section.remove(name);
        }
        self.origins.remove(path);
    }
}

fn same_layer(one: &Origin, other: &Origin) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

fn wrong_type(key: &Key, value: &Value, place: &str) -> Error {
    let found = match value {
        Value::String(text) => format!("\"{}\"", one_line(text, 60)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => value.to_string(),
        Value::Datetime(_) => "a date".into(),
        Value::Array(_) => "a list".into(),
        Value::Table(_) => "a table".into(),
    };
    let expected = match &key.kind {
        Kind::Whole => "a whole number that is not negative".into(),
        Kind::Number => "a number".into(),
        Kind::YesNo => "true or false".into(),
        Kind::Wholes => "a list of whole numbers that are not negative".into(),
        Kind::Table => "a table of texts".into(),
        Kind::Tables => "a table of tables, or a list of them".into(),
        Kind::Text => "a text in quotes".into(),
        Kind::Size => "a size in bytes, or with k, m or g".into(),
        Kind::Texts => "a list of texts".into(),
        Kind::Choice(values) => format!("one of {}", values.join(", ")),
    };
    let meant = match (&key.kind, value) {
        (Kind::Choice(values), Value::String(text)) => {
            keys::nearest(text, values.iter().map(String::as_str))
        }
        _ => None,
    };
    Error::Type {
        place: place.to_owned(),
        key: key.path.clone(),
        found,
        expected,
        example: meant.map_or_else(|| key.example.to_string(), |word| format!("\"{word}\"")),
    }
}

/// `~/` is what people write for their home; no shell expands it here.
fn expand_home(config: &mut Config, home: Option<&Path>) {
    let Some(home) = home else { return };
    let mounts = config.mount.iter_mut().map(|mount| &mut mount.path);
    let bundles = [&mut config.image.ca_bundle, &mut config.model.ca_bundle].into_iter().flatten();
    let folders = config.workspace.roots.iter_mut().chain(&mut config.workspace.objects);
    for path in folders.chain(bundles).chain(mounts) {
        if let Ok(below) = path.strip_prefix("~") {
            *path = home.join(below);
        }
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
