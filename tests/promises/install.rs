//! `install` tells a client of this server without harm to the client's settings, and `doctor` sees it.

use std::fs;
use std::path::PathBuf;

use crate::common::{Finished, Product};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_sandbox-mcp");
const KEY: &str = "sk-nobody-reads-this";

/// With no client anywhere, as far as the search path can tell.
fn product() -> Product {
    Product::without_engine()
        .env("PATH", "/nonexistent")
        .env("DOCKER_HOST", "unix:///no/such/docker.sock")
        .env("SANDBOX_MCP_MODEL_URL", "rehearsal")
        .env("SANDBOX_MCP_API_KEY", KEY)
}

fn write(product: &Product, at: &str, text: &str) -> PathBuf {
    let path = product.folder("home").join(at);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(&path, text).expect("written");
    path
}

async fn of_clients(product: &Product) -> Vec<Value> {
    let told = product.call(["doctor", "--json"]).await;
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let findings = document["findings"].as_array().expect("findings").iter();
    findings.filter(|finding| finding["area"] == "clients").cloned().collect()
}

#[track_caller]
fn says(told: &Finished, code: i32, words: &[&str]) {
    told.assert_code(code);
    let all = format!("{}{}", told.stdout, told.stderr);
    for word in words {
        assert!(all.contains(word), "no `{word}` in {all}");
    }
    assert!(!all.contains(KEY), "{all}");
}

#[tokio::test]
async fn without_a_name_it_finds_what_is_there_and_nobody_is_asked_in_a_pipe() {
    let product = product();
    says(&product.call(["install"]).await, 2, &["no client was found", "claude-code", "lm-studio"]);
    assert_eq!(of_clients(&product).await, [] as [Value; 0]);

    write(&product, ".cursor/x", "");
    write(&product, ".codex/x", "");
    let told = product.call(["install"]).await;
    says(&told, 2, &["--yes"]);
    assert_eq!(
        told.stdout,
        "sandbox-mcp install codex  # Codex\nsandbox-mcp install cursor  # Cursor\n"
    );
    let seen = of_clients(&product).await;
    assert!(seen.iter().all(|finding| finding["level"] == "ok"), "{seen:#?}");
    assert!(seen[0].to_string().contains("sandbox-mcp install codex"), "{seen:#?}");

    says(
        &product.call(["install", "--yes"]).await,
        0,
        &["Codex: registered", "Cursor: registered"],
    );
    let seen = of_clients(&product).await;
    assert!(seen.iter().all(|finding| finding["level"] == "ok"), "{seen:#?}");
    assert!(seen[0].to_string().contains("starts this program"), "{seen:#?}");
    says(&product.call(["install", "--uninstall", "--yes"]).await, 0, &["Codex: removed"]);
    says(&product.call(["install", "--uninstall"]).await, 2, &["no registration was found"]);
    says(&product.call(["install", "emacs"]).await, 2, &["claude-code"]);
    says(&product.call(["install", "codex", "--name", "a b"]).await, 2, &["letters"]);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_file_keeps_what_it_has_and_a_backup_what_it_had() {
    let product = product();
    let before = "{\n\t// at night\n\t\"theme\": \"dark\",\n}\n";
    let file = product.folder("config").join("zed/settings.json");
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    fs::write(&file, before).expect("written");
    let backup = file.with_file_name("settings.json.sandbox-mcp.bak");

    let told = product.call(["install", "zed"]).await;
    says(&told, 0, &["registered as `sandbox`", "as it was: ", "a secret: SANDBOX_MCP_API_KEY"]);
    let text = fs::read_to_string(&file).expect("text");
    assert!(
        text.starts_with("{\n\t// at night\n\t\"theme\": \"dark\",\n\t\"context_servers\""),
        "{text}"
    );
    assert!(text.contains(BINARY) && !text.contains(KEY), "{text}");
    assert_eq!(fs::read_to_string(&backup).expect("text"), before);

    says(&product.call(["install", "zed"]).await, 0, &["already registered"]);
    assert_eq!(fs::read_to_string(&file).expect("text"), text);
    says(&product.call(["install", "zed", "--uninstall"]).await, 0, &["removed", "before us: "]);
    assert!(fs::read_to_string(&file).expect("text").starts_with("{\n\t// at night\n"));
    assert_eq!(fs::read_to_string(&backup).expect("text"), before);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said_and_nothing_is_written() {
    let product = product();
    let broken = "{\n  \"mcpServers\": {\n    \"a\": 1\n    \"b\": 2\n  }\n}\n";
    let file = write(&product, ".gemini/settings.json", broken);
    says(
        &product.call(["install", "gemini"]).await,
        1,
        &["Gemini CLI", "settings.json", "line 3", "left as it is", "--print"],
    );
    assert_eq!(fs::read_to_string(&file).expect("text"), broken);
    let seen = of_clients(&product).await;
    assert_eq!(seen[0]["level"], "warning", "{seen:#?}");

    let taken = "{\"mcpServers\": {\"sandbox\": {\"command\": \"npx\"}}}";
    let file = write(&product, ".cursor/mcp.json", taken);
    says(&product.call(["install", "cursor"]).await, 1, &["not ours", "--name"]);
    says(&product.call(["install", "cursor", "--uninstall"]).await, 1, &["another program"]);
    assert_eq!(fs::read_to_string(&file).expect("text"), taken);
    says(&product.call(["install", "cursor", "--name", "box"]).await, 0, &["registered as `box`"]);

    says(
        &product.call(["install", "lm-studio", "--scope", "project"]).await,
        1,
        &["no settings of projects"],
    );
    let names = fs::read_dir(product.folder("home").join(".gemini")).expect("a folder").count();
    assert_eq!(names, 1, "no backup, nothing half done");
    product.check_nothing_left().await;
}

#[tokio::test]
async fn print_writes_nothing_and_can_be_pasted() {
    let product = product();
    let told = product.call(["install", "codex", "--print"]).await;
    says(&told, 0, &["~/.codex/config.toml"]);
    let pasted: toml::Table = told.stdout.parse().expect("TOML and nothing else");
    assert_eq!(pasted["mcp_servers"]["sandbox"]["command"].as_str(), Some(BINARY));
    let told = product.call(["install", "vscode", "--print", "--scope", "project"]).await;
    says(&told, 0, &[".vscode/mcp.json", "one machine's: DOCKER_HOST"]);
    let pasted: Value = serde_json::from_str(&told.stdout).expect("JSON and nothing else");
    assert_eq!(pasted["servers"]["sandbox"]["command"], "sandbox-mcp");
    assert_eq!(fs::read_dir(product.folder("home")).expect("a folder").count(), 0);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn doctor_sees_a_registration_that_will_not_do() {
    let product = product();
    write(
        &product,
        ".codex/config.toml",
        &format!(
            "[mcp_servers.sandbox]\ncommand = '{BINARY}'\ntool_timeout_sec = 20\n[mcp_servers.old]\n\
             command = '/gone/sandbox-mcp'\ntool_timeout_sec = 4000\n"
        ),
    );
    let seen = of_clients(&product).await;
    let warned = |words: &str, remedy: &str| {
        seen.iter().any(|finding| {
            finding["level"] == "warning"
                && finding["message"].as_str().is_some_and(|message| message.contains(words))
                && finding["remedy"] == remedy
        })
    };
    assert!(warned("after 20 s", "sandbox-mcp install codex"), "{seen:#?}");
    assert!(warned("is not there", "sandbox-mcp install codex --name old"), "{seen:#?}");
    says(&product.call(["install", "codex"]).await, 0, &["up to date", "as `old` too"]);
    says(
        &product.call(["install", "codex", "--uninstall", "--name", "old"]).await,
        0,
        &["removed"],
    );
    let seen = of_clients(&product).await;
    assert!(seen.iter().all(|finding| finding["level"] == "ok"), "{seen:#?}");
    product.check_nothing_left().await;
}
