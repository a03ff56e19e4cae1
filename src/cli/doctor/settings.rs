//! The configuration: which file, what is set, whether it can be read.

use super::finding::Finding;
use crate::config::{Config, Effective, Error, Origin, keys};

/// What to say, and the settings to go on with.
pub fn examine(loaded: Result<Effective, Error>) -> (Vec<Finding>, Config) {
    match loaded {
        Ok(effective) => (describe(&effective), effective.config),
        Err(error) => {
            let remedy = "correct it; until then only `doctor` works, and what follows was \
                          checked with the defaults";
            (vec![Finding::error("settings", error.to_string(), remedy)], Config::default())
        }
    }
}

fn describe(effective: &Effective) -> Vec<Finding> {
    let file = match &effective.file {
        Some(file) => file.display().to_string(),
        None => "none, which is fine".to_owned(),
    };
    let set: Vec<_> = keys()
        .iter()
        .filter_map(|key| match effective.origin(&key.path) {
            Origin::Default => None,
            Origin::File { line, .. } => Some(format!("{} (line {line})", key.path)),
            origin => Some(format!("{} ({origin})", key.path)),
        })
        .collect();
    let settings = match set.as_slice() {
        [] => "all at their defaults".to_owned(),
        set => format!("{}; all others at their defaults", set.join(", ")),
    };
    vec![Finding::ok("file", file), Finding::ok("settings", settings)]
}
