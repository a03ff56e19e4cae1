//! `sandbox-mcp config`: the settings in force and where each came from.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use serde_json::json;

use crate::config::{Effective, Key, keys};
use crate::text::one_line;

/// Prints every setting, as TOML that could be a configuration file or as one JSON object.
pub fn run(effective: &Effective, json: bool, out: &mut impl Write) -> Result<()> {
    if json { as_json(effective, out) } else { as_toml(effective, out) }
}

fn as_json(effective: &Effective, out: &mut impl Write) -> Result<()> {
    let origins: BTreeMap<_, _> =
        keys().iter().map(|key| (&key.path, effective.origin(&key.path))).collect();
    let all = json!({ "file": effective.file, "config": effective.config, "origins": origins });
    serde_json::to_writer_pretty(&mut *out, &all)?;
    writeln!(out)
}

fn as_toml(effective: &Effective, out: &mut impl Write) -> Result<()> {
    match &effective.file {
        Some(file) => writeln!(out, "# file: {}", one_line(&file.to_string_lossy(), 500))?,
        None => writeln!(out, "# file: none")?,
    }
    let values = serde_json::to_value(&effective.config)?;
    let lines: Vec<_> =
        keys().iter().map(|key| (key, setting(key, &values[key.section()][key.name()]))).collect();
    // Comments stand in one column, but one long value does not push them all off the screen.
    let width = lines.iter().map(|(_, line)| line.chars().count()).filter(|n| *n <= 48).max();
    let width = width.unwrap_or_default();
    let mut section = "";
    for (key, line) in &lines {
        if key.section() != section {
            section = key.section();
            writeln!(out, "\n[{section}]")?;
        }
        let origin = one_line(&effective.origin(&key.path).to_string(), 500);
        writeln!(out, "{line:width$}  # {origin}")?;
    }
    Ok(())
}

/// One line of TOML. What has no value is a comment, as TOML has no way to say so.
fn setting(key: &Key, value: &serde_json::Value) -> String {
    match toml::Value::try_from(value) {
        Ok(value) => format!("{} = {value}", key.name()),
        Err(_) => format!("# {} is not set", key.name()),
    }
}
