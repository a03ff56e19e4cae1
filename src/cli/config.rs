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
        keys().iter().map(|key| (key, setting(key, key.value_in(&values)))).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, LoadOptions, Override, load};

    fn effective(file: &str) -> (tempfile::TempDir, Effective) {
        let folder = tempfile::tempdir().expect("temp");
        let path = folder.path().join("c.toml");
        std::fs::write(&path, file).expect("write");
        let environment = Environment::of([
            ("SANDBOX_MCP_MODEL", "from-variable"),
            ("SANDBOX_MCP_API_KEY", "sk-secret"),
        ]);
        let overrides = vec![Override::new("--model-url", "model.url", "http://flag:3/v1")];
        let options = LoadOptions { file: Some(path), overrides, environment };
        (folder, load(&options).expect("a configuration"))
    }

    fn printed(effective: &Effective, json: bool) -> String {
        let mut out = Vec::new();
        run(effective, json, &mut out).expect("written");
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn the_printed_settings_are_a_configuration_that_says_the_same() {
        let text = "[limits]\n\ncpus = 3\n[workspace]\nroots = [\"/a \\\"b\\\" # c\"]\n";
        let (folder, first) = effective(text);
        let toml = printed(&first, false);
        let file = folder.path().join("c.toml");
        for expected in [
            format!("# file: {}\n", file.display()),
            "\n[model]\nsource = \"auto\"".to_owned(),
            "url = \"http://flag:3/v1\"".to_owned(),
            "# command line, --model-url\n".to_owned(),
            "# environment variable SANDBOX_MCP_MODEL\n".to_owned(),
            "# context is not set".to_owned(),
            format!("# {}, line 3\n", file.display()),
        ] {
            assert!(toml.contains(&expected), "{expected}: {toml}");
        }
        assert!(!toml.contains("sk-secret"));
        assert_eq!(effective(&toml).1.config, first.config);
    }

    #[test]
    fn programs_get_values_and_origins() {
        let (_keep, effective) = effective("[limits]\npids = 64\n");
        let json = printed(&effective, true);
        assert!(!json.contains("sk-secret"));
        let all: serde_json::Value = serde_json::from_str(&json).expect("json");
        assert_eq!(all["config"]["limits"]["pids"], 64);
        assert_eq!(all["config"]["engine"]["host"], serde_json::Value::Null);
        assert_eq!(all["origins"]["limits.pids"]["from"], "file");
        assert_eq!(all["origins"]["limits.pids"]["line"], 2);
        assert_eq!(all["origins"]["model.url"]["flag"], "--model-url");
        assert_eq!(all["origins"]["mcp.heartbeat"]["from"], "default");
        assert_eq!(all["origins"].as_object().map(serde_json::Map::len), Some(keys().len()));
    }
}
