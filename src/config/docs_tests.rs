//! The reference and the example must say what the schema says.

use super::{Config, Environment, Key, LoadOptions, allowed, keys, load};

const REFERENCE: &str = include_str!("../../docs/configuration.md");
const EXAMPLE: &str = include_str!("../../config/example.toml");

/// A value as people write it in the file.
fn written(value: &serde_json::Value) -> String {
    toml::Value::try_from(value).map_or("not set".into(), |value| format!("`{value}`"))
}

/// The row of the reference for one key.
fn row(key: &Key) -> String {
    let allowed: Vec<_> = allowed(&key.path).collect();
    let allowed = match allowed.as_slice() {
        [] => String::new(),
        rules => format!(" Allowed: {}.", rules.join("; ")),
    };
    let Key { path, kind, meaning, default, example } = key;
    let (default, example) = (written(default), written(example));
    format!("| `{path}` | {kind} | {default} | {example} | {meaning}{allowed} |")
}

#[test]
fn the_reference_has_the_right_row_for_each_key_and_no_other() {
    let expected: Vec<_> = keys().iter().map(row).collect();
    let missing: Vec<_> =
        expected.iter().filter(|row| !REFERENCE.contains(row.as_str())).cloned().collect();
    assert!(missing.is_empty(), "put into docs/configuration.md:\n{}", missing.join("\n"));
    let rows: Vec<_> = REFERENCE
        .lines()
        .filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 4)
        .filter(|line| !expected.iter().any(|row| row == line))
        .collect();
    assert!(rows.is_empty(), "take out of docs/configuration.md:\n{}", rows.join("\n"));
}

#[test]
fn the_reference_names_the_environment() {
    for variable in [
        "SANDBOX_MCP_MODEL_URL",
        "SANDBOX_MCP_MODEL",
        "SANDBOX_MCP_SYNC_LIMIT",
        "SANDBOX_MCP_API_KEY",
        "SANDBOX_MCP_CONFIG",
        "SANDBOX_MCP_STATE_DIR",
        "XDG_CONFIG_HOME",
        "XDG_STATE_HOME",
        "XDG_RUNTIME_DIR",
        "DOCKER_HOST",
        "RUST_LOG",
    ] {
        assert!(REFERENCE.contains(&format!("`{variable}`")), "{variable}");
    }
}

fn load_text(text: &str) -> Config {
    let folder = tempfile::tempdir().expect("temp");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, text).expect("write");
    let environment = Environment::of([("HOME", "/home/me")]);
    load(&LoadOptions { file: Some(file), overrides: Vec::new(), environment })
        .expect("a configuration")
        .config
}

#[test]
fn the_example_changes_nothing_until_a_line_is_uncommented() {
    assert_eq!(load_text(EXAMPLE), Config::default());
    // With every `#key = …` line in force, each setting is there once and is accepted.
    let uncommented: Vec<_> = EXAMPLE
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .collect();
    load_text(&uncommented.join("\n"));
    for key in keys() {
        let start = format!("#{} = ", key.name());
        let section = format!("\n[{}]\n", key.section());
        let body = match key.section() {
            "" => EXAMPLE,
            _ => EXAMPLE.split(&section).nth(1).expect(&section),
        };
        let body = body.split("\n[").next().unwrap_or(body);
        assert!(body.lines().any(|line| line.starts_with(&start)), "{} is missing", key.path);
    }
}
