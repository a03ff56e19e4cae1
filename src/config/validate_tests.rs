use super::*;
use crate::config::{Environment, LoadOptions, load};

fn load_text(text: &str) -> Result<Effective, Error> {
    let folder = tempfile::tempdir().expect("temp");
    let file = folder.path().join("c.toml");
    std::fs::write(&file, text).expect("write");
    let environment = Environment::of([("HOME", "/home/me")]);
    load(&LoadOptions { file: Some(file), overrides: Vec::new(), environment })
}

/// `key = value` lines and whether they pass.
fn passes(key: &str, value: &str) -> bool {
    let (section, name) = key.split_once('.').expect("dotted");
    match load_text(&format!("[{section}]\n{name} = {value}\n")) {
        Ok(_) => true,
        Err(Error::NotAllowed { key: refused, allowed, place, .. }) => {
            assert_eq!(refused, key, "{value}: {allowed}");
            assert!(place.ends_with("c.toml, line 2"), "{place}");
            false
        }
        Err(other) => panic!("{key} = {value}: {other}"),
    }
}

#[test]
fn the_defaults_are_allowed_and_each_rule_names_a_key() {
    for rule in RULES {
        assert!((rule.holds)(&Config::default()), "{}", rule.key);
        assert!(crate::config::keys().iter().any(|key| key.path == rule.key), "{}", rule.key);
    }
}

#[test]
fn each_key_has_a_rule_unless_its_type_is_one() {
    for key in crate::config::keys() {
        use crate::config::Kind::{Choice, YesNo};
        let choice = matches!(key.kind, Choice(_) | YesNo);
        assert!(choice || allowed(&key.path).next().is_some(), "{} is not checked", key.path);
    }
}

#[test]
fn values_are_held_to_their_limits() {
    for (key, good, bad) in [
        ("limits.timeout", &["1", "3600"][..], &["0"][..]),
        ("limits.max_timeout", &["300", "604800"], &["0", "299", "604801"]),
        ("limits.concurrency", &["1"], &["0", "1025"]),
        ("limits.memory", &["\"448m\"", "\"64g\""], &["\"447m\"", "0", "\"17t\""]),
        ("limits.cpus", &["0.5", "2", "64.0"], &["0", "0.0", "-1.0", "nan", "inf"]),
        ("limits.pids", &["32"], &["31", "0"]),
        ("limits.tmp", &["\"16m\""], &["\"15m\""]),
        ("limits.home", &["\"2m\""], &["\"1m\""]),
        ("limits.max_requests", &["1"], &["0"]),
        ("limits.task", &["\"1k\""], &["0", "\"2g\""]),
        ("limits.output", &["\"64k\""], &["\"1k\""]),
        ("mcp.heartbeat", &["1", "10"], &["0", "11"]),
        ("mcp.sync_limit", &["0", "5", "86400"], &["4", "86401"]),
        ("history.keep", &["1"], &["0"]),
        ("history.max_age_days", &["1", "36500"], &["0", "36501"]),
        ("history.max_bytes", &["\"1m\"", "\"16t\""], &["0", "\"1k\"", "\"17t\""]),
        ("model.first_byte_timeout", &["1"], &["0", "86401"]),
        ("model.stall_timeout", &["1"], &["0"]),
        ("model.context", &["8192"], &["0", "1023"]),
        ("model.output", &["1"], &["0"]),
        ("model.model", &["\"qwen/qwen3:8b\""], &["\"\"", "\"a b\"", "\"a\\u001bb\""]),
        ("model.api_key_env", &["\"MY_KEY2\""], &["\"\"", "\"sk-proj-1\"", "\"2X\"", "\"A=B\""]),
        (
            "model.headers",
            &["{ Authorization = \"MY_BASIC\", X-Team = \"TEAM\" }"],
            &[
                "{ Authorization = \"Basic bWU6aHVudGVyMg==\" }",
                "{ \"a b\" = \"TEAM\" }",
                "{ Host = \"TEAM\" }",
                "{ Content-Type = \"TEAM\" }",
            ],
        ),
        ("model.ca_bundle", &["\"/ca.pem\"", "\"~/ca.pem\""], &["\"ca.pem\""]),
        (
            "sandbox.user",
            &["\"1000:1000\""],
            &[
                "\"0:0\"",
                "\"1000\"",
                "\"1000:0\"",
                "\"0:1000\"",
                "\"me:me\"",
                "\"-1:5\"",
                "\"+1:5\"",
                "\"4294967295:1\"",
            ],
        ),
        (
            "sandbox.umask",
            &["\"0027\"", "\"022\"", "\"077\""],
            &["\"0\"", "\"999\"", "\"0777\"", "\"u=rwx\"", "\"00027\""],
        ),
        (
            "sandbox.runtime",
            &["\"runsc\"", "\"io.containerd.runc.v2\""],
            &["\"\"", "\"--x\"", "\"a b\""],
        ),
        (
            "image.packages",
            &["[]", "[\"golang-go\", \"g++\"]"],
            &["[\"\"]", "[\"a; rm\"]", "[\"-y\"]", "[\"X11\"]"],
        ),
        ("image.name", &["\"reg:5000/a/b:1@sha256:00\""], &["\"\"", "\"a b\"", "\"-x\""]),
        ("image.base", &["\"debian:bookworm-slim\""], &["\"a\\nRUN x\""]),
        ("image.ca_bundle", &["\"/ca.pem\"", "\"~/ca.pem\""], &["\"ca.pem\"", "\"~other/ca.pem\""]),
        ("image.max_age", &["0", "36500"], &["36501"]),
        ("workspace.objects", &["[\"/srv/a/objects\"]", "[]"], &["[\"/\"]", "[\"a/objects\"]"]),
        ("workspace.roots", &["[\"/srv\"]", "[]"], &["[\"/\"]", "[\"relative\"]", "[\"\"]"]),
        (
            "workspace.protected",
            &["[\"a/b\", \"./c\"]"],
            &[
                "[\"../a\"]",
                "[\"/etc\"]",
                "[\"\"]",
                "[\"a/../..\"]",
                "[\".\"]",
                "[\"a\\u0000b\"]",
                "[\"a\\nb\"]",
            ],
        ),
        (
            "engine.host",
            &["\"unix:///run/docker.sock\"", "\"tcp://127.0.0.1:2375\"", "\"ssh://me@host:22/x\""],
            &[
                "\"/run/docker.sock\"",
                "\"unix://relative\"",
                "\"tcp://host\"",
                "\"ssh://-oProxyCommand=x\"",
                "\"ssh://me:pw@host\"",
                "\"tcp://me:pw@host:1\"",
            ],
        ),
    ] {
        assert_held(key, good, bad);
    }
}

#[test]
fn the_values_for_http_are_held_to_their_limits() {
    for (key, good, bad) in [
        (
            "http.allowed_hosts",
            &["[]", "[\"a.example:9000\", \"[fd00::1]\"]"][..],
            &["[\"http://a\"]", "[\"\"]"][..],
        ),
        (
            "http.allowed_origins",
            &["[\"https://a.example\", \"http://b:80\"]"],
            &["[\"a.example\"]", "[\"https://a/\"]", "[\"*\"]", "[\"null\"]"],
        ),
        ("http.sessions", &["1", "100000"], &["0", "100001"]),
        ("http.session_idle", &["1", "604800"], &["0", "604801"]),
        ("http.connections", &["4", "10000"], &["3", "10001"]),
        ("http.ping", &["1", "300"], &["0", "301"]),
    ] {
        assert_held(key, good, bad);
    }
}

#[track_caller]
fn assert_held(key: &str, good: &[&str], bad: &[&str]) {
    for value in good {
        assert!(passes(key, value), "{key} = {value} is refused");
    }
    for value in bad {
        assert!(!passes(key, value), "{key} = {value} passes");
    }
}

#[test]
fn server_addresses_are_whole_and_hold_no_secret() {
    for good in [
        "http://127.0.0.1:8000/v1",
        "https://models.example",
        "http://[::1]:1234",
        "http://localhost:11434/",
    ] {
        assert!(is_server_url(good), "{good}");
    }
    for bad in [
        "",
        "localhost:8000",
        "127.0.0.1",
        "ftp://a",
        "http://",
        "http://:80",
        "http://a:0",
        "http://a:99999",
        "http://a:b",
        "http://me:pw@a",
        "http://@a",
        "http://a/?key=1",
        "http://a/#x",
        "http://a b",
        "http:///v1",
        "unix:///x",
    ] {
        assert!(!is_server_url(bad), "{bad}");
    }
}

#[test]
fn a_refusal_never_repeats_a_secret() {
    for text in [
        "[model]\nurl = \"http://me:hunter2@host\"\n",
        "[model]\nurl = \"http://host/?key=hunter2\"\n",
        "[model]\nurl = \"host/#hunter2\"\n",
        "[model]\nurl = \"me:hunter2@host\"\n",
        "[model]\napi_key_env = \"sk-hunter2\"\n",
        "[model]\napi_key = \"hunter2\"\n",
        "[engine]\nhost = \"tcp://me:hunter2@host:1\"\n",
    ] {
        let said = load_text(text).expect_err(text).to_string();
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_message_names_key_value_and_what_is_allowed() {
    let said = load_text("[limits]\nmemory = \"64m\"\n").expect_err("too little").to_string();
    let expected = "c.toml, line 2: `limits.memory` is \"64m\"; allowed: \"448m\" to \"16t\" (OpenCode is killed with less)";
    assert!(said.ends_with(expected), "{said}");
    let said = load_text("[limits]\nmax_timeout = 60\n").expect_err("too little").to_string();
    assert!(said.contains("`limits.max_timeout` is 60; allowed: `limits.timeout` to"), "{said}");
    let said = load_text("[limits]\ntimeout = 7200\n").expect_err("too much").to_string();
    assert!(said.contains("settings: `limits.max_timeout` is 3600"), "{said}");
}
