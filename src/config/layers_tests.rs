use std::fs;

use super::*;
use crate::config::Source;

/// Loads `text` as the user's file, with nothing else set.
fn load_text(text: &str) -> Result<Effective, Error> {
    let folder = tempfile::tempdir().expect("temp");
    let file = folder.path().join("c.toml");
    fs::write(&file, text).expect("write");
    let environment = Environment::of([("HOME", "/home/me")]);
    load(&LoadOptions { file: Some(file), overrides: Vec::new(), environment })
}

/// The message for a file that is refused, without the file's folder.
fn refusal(text: &str) -> String {
    let message = load_text(text).map(|effective| effective.config).expect_err(text).to_string();
    match message.split_once("c.toml, ") {
        Some((_, rest)) => rest.to_owned(),
        None => message,
    }
}

#[test]
fn later_layers_win_and_each_value_knows_its_own() {
    let folder = tempfile::tempdir().expect("temp");
    let home = folder.path().to_str().expect("utf-8");
    fs::create_dir_all(folder.path().join(".config/sandbox-mcp")).expect("make");
    let file = folder.path().join(".config/sandbox-mcp/config.toml");
    fs::write(
        &file,
        "[model]\nurl = \"http://file:1\"\nmodel = \"from-file\"\n\n[limits]\ntimeout = 5\nmemory = 1073741824\n",
    )
    .expect("write");
    let environment = Environment::of([
        ("HOME", home),
        ("SANDBOX_MCP_MODEL_URL", "http://variable:2"),
        ("SANDBOX_MCP_MODEL", "from-variable"),
        ("SANDBOX_MCP_API_KEY", "sk-secret"),
    ]);
    let overrides = vec![Override::new("--model-url", "model.url", "http://flag:3")];
    let effective =
        load(&LoadOptions { file: None, overrides, environment }).expect("a configuration");

    assert_eq!(effective.file.as_deref(), Some(file.as_path()));
    assert_eq!(effective.config.model.url.as_deref(), Some("http://flag:3"));
    assert_eq!(effective.origin("model.url"), &Origin::CommandLine { flag: "--model-url" });
    assert_eq!(effective.config.model.model.as_deref(), Some("from-variable"));
    let variable = Origin::Environment { variable: "SANDBOX_MCP_MODEL" };
    assert_eq!(effective.origin("model.model"), &variable);
    assert_eq!(effective.config.limits.timeout, 5);
    assert_eq!(effective.origin("limits.timeout"), &Origin::File { path: file, line: 6 });
    assert_eq!(effective.config.limits.memory, crate::config::Size::mebibytes(1024));
    assert_eq!(effective.origin("limits.pids"), &Origin::Default);
    assert!(!format!("{effective:?}").contains("sk-secret"));
}

#[test]
fn without_any_file_the_defaults_hold() {
    let environment = Environment::of([("HOME", "/nowhere/at/all")]);
    let effective = load(&LoadOptions { environment, ..LoadOptions::default() }).expect("defaults");
    assert_eq!(effective.config, Config::default());
    assert_eq!(effective.file, None);
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let named = Environment::of([("SANDBOX_MCP_CONFIG", "/nowhere/c.toml")]);
    let options = LoadOptions { environment: named, ..LoadOptions::default() };
    let message = load(&options).expect_err("missing").to_string();
    assert!(message.starts_with("SANDBOX_MCP_CONFIG names `/nowhere/c.toml`"), "{message}");

    let options = LoadOptions { file: Some("/nowhere/d.toml".into()), ..options };
    let message = load(&options).expect_err("missing").to_string();
    assert!(message.starts_with("`--config` names `/nowhere/d.toml`"), "{message}");

    let folder = tempfile::tempdir().expect("temp");
    let options = LoadOptions { file: Some(folder.path().into()), ..options };
    assert!(matches!(load(&options), Err(Error::Unreadable { .. })));
}

#[test]
fn the_rehearsal_and_an_address_exclude_one_another() {
    let with = |text: &str, variable: &'static str, flag: Option<&str>| {
        let folder = tempfile::tempdir().expect("temp");
        let file = folder.path().join("c.toml");
        fs::write(&file, text).expect("write");
        let environment = Environment::of([("SANDBOX_MCP_MODEL_URL", variable)]);
        let overrides =
            flag.map(|url| Override::new("--model-url", "model.url", url)).into_iter().collect();
        load(&LoadOptions { file: Some(file), overrides, environment })
            .map(|effective| (effective.config.model.source, effective.config.model.url))
    };
    let address = |url: &str| Some(url.to_owned());
    let server = "[model]\nsource = \"vllm\"\nurl = \"http://file:1\"\n";
    let rehearsal = "[model]\nsource = \"rehearsal\"\n";
    assert_eq!(with(server, "", None).expect("ok"), (Source::Vllm, address("http://file:1")));
    assert_eq!(with(server, "rehearsal", None).expect("ok"), (Source::Rehearsal, None));
    assert_eq!(
        with(rehearsal, "http://variable:2", None).expect("ok"),
        (Source::Auto, address("http://variable:2"))
    );
    assert_eq!(
        with(server, "rehearsal", Some("http://flag:3")).expect("ok"),
        (Source::Auto, address("http://flag:3"))
    );
    assert_eq!(
        with("[model]\nurl = \"rehearsal\"\n", "", None).expect("ok"),
        (Source::Rehearsal, None)
    );
    for order in [
        "source = \"rehearsal\"\nurl = \"http://a:1\"",
        "url = \"http://a:1\"\nsource = \"rehearsal\"",
    ] {
        let message = with(&format!("[model]\n{order}\n"), "", None).expect_err("both").to_string();
        assert!(message.contains("remove one of the two"), "{message}");
    }
}

#[test]
fn unknown_names_are_refused_with_their_place_and_the_nearest() {
    for (text, expected) in [
        (
            "[limits]\n\n  timout = 5\n",
            "line 3, column 3: `limits.timout` is not a setting; did you mean `limits.timeout`?",
        ),
        (
            "[limit]\ntimeout = 5\n",
            "line 1, column 2: `[limit]` is not a setting; did you mean `[limits]`?",
        ),
        (
            "timeout = 5\n",
            "line 1, column 1: `timeout` is not a setting; did you mean `limits.timeout`?",
        ),
        (
            "[mcp]\ncolour = 1\n",
            "line 2, column 1: `mcp.colour` is not a setting; `[mcp]` has heartbeat, sync_limit, keep",
        ),
        (
            "[x]\n",
            "line 1, column 2: `[x]` is not a setting; there are model, engine, image, sandbox, limits, workspace, egress, env, git, agent, hooks, mcp, http, history",
        ),
        ("[mcp]\n\"äö\" = 1\n", "line 2, column 1: `mcp.äö`"),
        (
            "mcp = 3\n",
            "line 1, column 1: `mcp` is a single value; it must be a section, such as `[mcp]`",
        ),
        ("[[mcp]]\nheartbeat = 3\n", "`mcp` is a single value"),
        ("limits.timeout.x = 3\n", "line 1, column 8: `limits.timeout` is a table"),
    ] {
        let said = refusal(text);
        assert!(said.contains(expected), "{text:?}: {said}");
    }
}

#[test]
fn wrong_types_are_refused_with_an_example() {
    for (text, expected) in [
        (
            "[limits]\ntimeout = \"long\"\n",
            "line 2, column 11: `limits.timeout` is \"long\"; it must be a whole number that is not negative, such as `300`",
        ),
        ("[limits]\ntimeout = -1\n", "`limits.timeout` is -1; it must be a whole number"),
        (
            "[limits]\npids = 99999999999\n",
            "`limits.pids` is 99999999999; it must be a whole number",
        ),
        (
            "[limits]\nmemory = \"4 gallons\"\n",
            "it must be a size in bytes, or with k, m or g, such as `\"4g\"`",
        ),
        ("[limits]\ncpus = \"two\"\n", "it must be a number, such as `2.0`"),
        (
            "[model]\nurl = 8000\n",
            "`model.url` is 8000; it must be a text in quotes, such as `\"http",
        ),
        ("[model]\nsource = \"ollma\"\n", "it must be one of auto, vllm, lm_studio, ollama"),
        ("[model]\nsource = \"ollma\"\n", "such as `\"ollama\"`"),
        (
            "[workspace]\nroots = \"~/projects\"\n",
            "it must be a list of texts, such as `[\"~/projects\"]`",
        ),
        ("[workspace]\nroots = [1]\n", "`workspace.roots` is a list; it must be a list of texts"),
    ] {
        let said = refusal(text);
        assert!(said.contains(expected), "{text:?}: {said}");
    }
}

#[test]
fn what_is_not_toml_is_refused_without_being_quoted() {
    let said = refusal("[model]\nmodel = sk-secret\n");
    assert!(said.starts_with("line 2, column "), "{said}");
    assert!(!said.contains("sk-secret"), "{said}");
    assert!(refusal("[model]\nmodel = \"a\"\nmodel = \"b\"\n").starts_with("line 3"));
}

#[test]
fn overrides_are_read_by_the_kind_of_their_key() {
    let with = |key, value| {
        let overrides = vec![Override::new("--flag", key, value)];
        let environment = Environment::of([]);
        load(&LoadOptions { file: None, overrides, environment })
    };
    assert_eq!(with("limits.timeout", "7").expect("ok").config.limits.timeout, 7);
    assert_eq!(with("model.model", "7").expect("ok").config.model.model.as_deref(), Some("7"));
    let said = with("limits.timeout", "soon").expect_err("no number").to_string();
    assert!(said.starts_with("command line, --flag: `limits.timeout` is \"soon\""), "{said}");
    let said = with("limits.timeout", "7\ny = 2").expect_err("no number").to_string();
    assert!(said.contains("it must be a whole number"), "{said}");
    assert!(matches!(with("limits.x", "7"), Err(Error::Unknown { .. })));
}

#[test]
fn a_tilde_is_the_home() {
    let text = "[workspace]\nroots = [\"~/projects\", \"~\", \"/srv/work\"]\n[image]\nca_bundle = \"~/ca.pem\"\n";
    let config = load_text(text).expect("ok").config;
    let roots = ["/home/me/projects", "/home/me", "/srv/work"].map(PathBuf::from);
    assert_eq!(config.workspace.roots, roots);
    assert_eq!(config.image.ca_bundle.as_deref(), Some(Path::new("/home/me/ca.pem")));
}

#[test]
fn files_from_other_systems_are_read() {
    let text = "\u{feff}# a comment\r\n[limits]\r\ntimeout = 9\r\n";
    assert_eq!(load_text(text).expect("ok").config.limits.timeout, 9);
    let text = "limits = { timeout = 8 }\nmodel.model = \"a\"\n";
    assert_eq!(load_text(text).expect("ok").config.limits.timeout, 8);
    assert!(refusal("[limits.timeout]\nx = 1\n").contains("`limits.timeout` is a table"));
    assert!(refusal("[limits]\n[limits.x]\ny = 1\n").contains("`limits.x` is not a setting"));
}

/// No text, however broken, does more than be refused.
#[test]
fn broken_files_are_only_refused() {
    let good = include_str!("../../config/example.toml").replace("\n#", "\n");
    let bytes: Vec<char> = good.chars().collect();
    for cut in (0..bytes.len()).step_by(7) {
        let mut broken: String = bytes[..cut].iter().collect();
        let _ = file::parse(Path::new("c.toml"), &broken);
        broken.push_str("\"\u{202e}[[=\n");
        broken.extend(&bytes[cut..]);
        let _ = file::parse(Path::new("c.toml"), &broken);
    }
}
