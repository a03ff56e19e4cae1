//! `sandbox-mcp config` tells every effective value and where it came from; mistakes are found.

use crate::common::Product;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn values_and_their_origins() {
    let product = Product::without_engine()
        .config("[limits]\ntimeout = 77\nmemory = \"1g\"\n\n[model]\nmodel = \"from-the-file\"\n")
        .env("SANDBOX_MCP_MODEL", "from-the-environment");

    let table = product.call(["config"]).await;
    table.assert_code(0);
    let line = |key: &str| {
        let found = table.stdout.lines().find(|line| line.starts_with(key));
        found.unwrap_or_else(|| panic!("{key} is not told: {}", table.stdout)).to_owned()
    };
    let timeout = line("timeout = ");
    assert!(timeout.contains("77") && timeout.contains("config.toml, line 2"), "{timeout}");
    let model = line("model = ");
    assert!(
        model.contains("from-the-environment") && model.contains("SANDBOX_MCP_MODEL"),
        "{model}"
    );
    let pids = line("pids = ");
    assert!(pids.contains("512") && pids.contains("default"), "{pids}");

    let json = product.call(["config", "--json"]).await;
    json.assert_code(0);
    let values: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(values["config"]["model"]["model"], "from-the-environment");
    assert_eq!(values["config"]["limits"]["timeout"], 77);
    assert_eq!(values["origins"]["limits.timeout"]["from"], "file");
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_key() {
    let product = Product::without_engine().config("[limits]\ntimeout = 5\n\ntimeuot = 7\n");
    for args in [&["config"][..], &["policy"], &["run", "x"]] {
        let told = product.call(args.iter().copied()).await;
        assert_eq!(told.code, Some(2), "{args:?}: {told:#?}");
        for words in ["timeuot", "timeout", "4", "config.toml"] {
            assert!(told.stderr.contains(words), "{args:?} does not name {words}: {}", told.stderr);
        }
    }
    product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_refused_with_what_is_allowed() {
    for (toml, words) in [
        ("[limits]\nmemory = \"lots\"\n", &["memory", "lots"][..]),
        ("[model]\nsource = \"vlm\"\n", &["vlm", "vllm"]),
        ("[limits]\ntimeout = 0\n", &["timeout"]),
        ("[limits\n", &["config.toml", "1"]),
    ] {
        let product = Product::without_engine().config(toml);
        let told = product.call(["config"]).await;
        assert_eq!(told.code, Some(2), "{toml}: {told:#?}");
        for word in words {
            assert!(told.stderr.contains(word), "{toml} does not name {word}: {}", told.stderr);
        }
        product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_can_be_named_in_two_ways() {
    let product = Product::without_engine().config("[limits]\ntimeout = 77\n");
    let other = product.folder("data").join("other.toml");
    std::fs::write(&other, "[limits]\ntimeout = 88\n").expect("a file");
    let other = other.to_str().expect("UTF-8").to_owned();
    let told = product.call(["--config", &other, "config"]).await;
    assert!(told.stdout.contains("88") && !told.stdout.contains("77"), "{}", told.stdout);
    let product = product.env("SANDBOX_MCP_CONFIG", &other);
    let told = product.call(["config"]).await;
    assert!(told.stdout.contains("88") && !told.stdout.contains("77"), "{}", told.stdout);
    product.check_nothing_left().await;
}
