//! What a user opens is open, exactly that, and the report says so.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::Value;

use crate::common::{Answer, Gate, Part};
use crate::common::{Model, Product, Script, Workspace, engine};

/// Runs a shell script in a sandbox with this configuration; returns what it printed, and the
/// report.
async fn run(config: &str, env: &[(&str, &str)], script: &str) -> (String, Value) {
    let workspace = Workspace::new();
    let model = Model::start(Script::bash(script).then(crate::common::Reply::say("Done."))).await;
    let mut product = Product::with_model(&model).await.config(config);
    for (name, value) in env {
        product = product.env(name, value);
    }
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    product.check_nothing_left().await;
    (model.step(2).await.said_by("tool"), report)
}

#[tokio::test]
async fn variables_are_handed_in_by_their_names_and_what_is_missing_is_said() {
    let config = "
        [env]
        set = { FLAVOUR = \"two words\" }
        pass = { GH_TOKEN = \"MY_GH_TOKEN\", SHORT = \"FROM_HOOK\", NONE = \"NOT_SET_ANYWHERE\" }
        [git]
        name = \"Ada Lovelace\"
        email = \"ada@example.com\"
        [hooks]
        before_start = \"echo noise; export FROM_HOOK=short-lived-$MY_GH_TOKEN\"
    ";
    let script = "
        echo flavour=$FLAVOUR gh=$GH_TOKEN short=$SHORT none=${NONE-unset} outer=${MY_GH_TOKEN-unset}
        git init -q . && git commit -q --allow-empty -m x && git log -1 --format='by=%an <%ae> %cn'
        echo zone=$TZ proxy=$http_proxy $no_proxy
        grep -l -a gh-secret /proc/[0-9]*/cmdline 2>/dev/null | wc -l
    ";
    let (seen, report) =
        run(config, &[("MY_GH_TOKEN", "gh-secret"), ("TZ", "Europe/Berlin")], script).await;
    assert!(
        seen.contains(
            "flavour=two words gh=gh-secret short=short-lived-gh-secret none=unset outer=unset"
        ),
        "{seen}"
    );
    assert!(seen.contains("by=Ada Lovelace <ada@example.com> Ada Lovelace"), "{seen}");
    assert!(seen.contains("zone=Europe/Berlin proxy=http://127.0.0.1:4142 localhost,"), "{seen}");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("NOT_SET_ANYWHERE") && remarks.contains("NONE"), "{remarks}");
    assert!(!report.to_string().contains("gh-secret"), "{report}");
}

#[tokio::test]
async fn commits_are_by_whom_git_here_names_and_need_neither_hooks_nor_keys() {
    let workspace = Workspace::new();
    let made =
        std::process::Command::new("git").args(["init", "-q"]).arg(workspace.path()).status();
    assert!(made.expect("git").success());
    let settings = workspace.read(".git/config");
    let signing = "[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = /nowhere/gpg\n";
    workspace.write(".git/config", &format!("{settings}{signing}"));
    workspace.write(".git/hooks/pre-commit", "#!/bin/sh\nexec /nowhere/lint\n");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(workspace.at(".git/hooks/pre-commit"), runs).expect("chmod");
    workspace.hand_over();
    let commit = "echo x > a; git add a; git commit -qm one; git log -1 --format='by=%an <%ae> %cn'; git lfs version";
    let model = Model::start(Script::bash(commit).then(crate::common::Reply::say("Done."))).await;
    let product = Product::with_model(&model).await;
    let user = "[user]\n\tname = Grace Hopper\n\temail = grace@example.com\n";
    std::fs::write(product.folder("home").join(".gitconfig"), user).expect("settings");
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    product.check_nothing_left().await;
    let seen = model.step(2).await.said_by("tool");
    assert!(seen.contains("by=Grace Hopper <grace@example.com> Grace Hopper"), "{seen}");
    assert!(seen.contains("git-lfs/"), "{seen}");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("hooks (pre-commit)"), "{remarks}");
    assert!(remarks.contains("commit.gpgsign"), "{remarks}");
}

#[tokio::test]
async fn values_are_neither_in_what_the_engine_knows_nor_in_the_record() {
    let gate = Gate::default();
    let last = Answer::new([Part::Text("Done.".into())]).behind(&gate);
    let model = Model::start(Script::bash("true").then(last)).await;
    let product = Product::with_model(&model)
        .await
        .config("[env]\npass = { A = \"A_SECRET\" }\nset = { B = \"value-of-b\" }\n")
        .env("A_SECRET", "value-of-a");
    let workspace = Workspace::new();
    let run = product.start_run(&workspace, ["--json", "go"]);
    model.step(2).await;
    let outside = engine::inspect(&product.container_of(&run).await).to_string();
    gate.open();
    let finished = run.wait().await;
    for secret in ["value-of-a", "value-of-b"] {
        assert!(!outside.contains(secret), "{outside}");
        assert!(!finished.stdout.contains(secret) && !finished.stderr.contains(secret));
    }
    finished.assert_status("completed");
    product.check_nothing_left().await;
    let records = walk(&product.folder("state"));
    assert!(!records.is_empty());
    for (name, content) in records {
        assert!(!content.contains("value-of-"), "{name}");
    }
}

fn walk(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            let content = String::from_utf8_lossy(&std::fs::read(&path).expect("readable")).into();
            found.push((path.display().to_string(), content));
        }
    }
    found
}

#[tokio::test]
async fn a_hook_that_fails_stops_the_run_before_a_sandbox_is_made() {
    let model = Model::start(Script::say("never")).await;
    let product = Product::with_model(&model)
        .await
        .config("[hooks]\nbefore_start = \"echo log in first >&2; false\"\n");
    let workspace = Workspace::new();
    let finished = product.run(&workspace, ["--json", "go"]).await;
    let report = finished.assert_status("sandbox_error");
    assert_eq!(report["error"]["kind"], "hook");
    assert!(report["error"]["message"].as_str().expect("text").contains("log in first"));
    assert_eq!(report["usage"]["requests"], 0);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn shared_material_can_be_read_and_not_written() {
    let shared = tempfile::Builder::new().prefix("ss-").tempdir_in("/tmp").expect("a folder");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(shared.path(), readable).expect("chmod");
    std::fs::write(shared.path().join("a.md"), "shared words").expect("a file");
    let config =
        format!("[[mount]]\npath = \"{}\"\ntarget = \"/mnt/docs\"\n", shared.path().display());
    let script = "cat /mnt/docs/a.md; echo x 2>&1 >/mnt/docs/b.md; touch /mnt/docs/a.md; ls /mnt";
    let (seen, _) = run(&config, &[], script).await;
    assert!(seen.contains("shared words") && seen.contains("Read-only file system"), "{seen}");
    assert_eq!(std::fs::read_dir(shared.path()).expect("a folder").count(), 1);
}

#[tokio::test]
async fn the_engines_socket_cannot_be_shared() {
    let model = Model::start(Script::say("never")).await;
    let workspace = Workspace::new();
    for path in ["/var/run/docker.sock", "/run", "/etc", "/"] {
        let product = Product::with_model(&model)
            .await
            .config(&format!("[[mount]]\npath = \"{path}\"\ntarget = \"/mnt/x\"\n"));
        let finished = product.run(&workspace, ["--json", "go"]).await;
        if path == "/" {
            finished.assert_code(2);
        } else {
            assert_eq!(finished.assert_status("sandbox_error")["error"]["kind"], "mount", "{path}");
        }
        product.check_nothing_left().await;
    }
}

/// Says hello to each connection, and counts them.
fn greeter() -> (u16, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut head = [0; 1024];
            let _ = stream.read(&mut head);
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello",
            );
        }
    });
    (port, count)
}

#[tokio::test]
async fn a_port_of_this_machine_is_reachable_when_opened_and_no_other_is() {
    let (open, opened) = greeter();
    let (closed, not_opened) = greeter();
    let config = format!("[egress]\nhost_ports = [{open}]\n");
    let script = format!(
        "echo open=$(curl -s -m 5 http://127.0.0.1:{open}/); \
         curl -s -m 5 http://127.0.0.1:{closed}/ || echo closed=$?; \
         curl -s -m 5 --noproxy '' -x http://127.0.0.1:4142 http://127.0.0.1:{closed}/ | tail -c 300"
    );
    let (seen, report) = run(&config, &[], &script).await;
    assert!(seen.contains("open=hello") && seen.contains("closed=7"), "{seen}");
    assert!(opened.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    assert_eq!(not_opened.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(report["egress"]["allowed"], 1, "{}", report["egress"]);
    assert_eq!(report["egress"]["refused"], 1, "{}", report["egress"]);
}

#[tokio::test]
async fn what_was_refused_is_explained_inside_recorded_outside_and_can_be_learnt() {
    let script = "
        curl -sS -m 5 https://api.example.com/ 2>&1; curl -sS -m 5 http://plain.example.com/ 2>&1
        python3 -c 'import urllib.request as r; r.urlopen(\"https://python.example.com\", timeout=5)' 2>&1 | tail -1
    ";
    let workspace = Workspace::new();
    let model = Model::start(Script::bash(script).then(crate::common::Reply::say("Done."))).await;
    let product = Product::with_model(&model).await;
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let seen = model.step(2).await.said_by("tool");
    assert!(seen.contains("403"), "{seen}");
    assert!(seen.contains("[egress]") && seen.contains("plain.example.com"), "{seen}");
    assert_eq!(report["egress"]["allowed"], 0);
    assert_eq!(report["egress"]["refused"], 3, "{}", report["egress"]);
    let targets = report["egress"]["targets"].to_string();
    for host in ["api.example.com", "plain.example.com", "python.example.com"] {
        assert!(targets.contains(host), "{targets}");
    }

    let shown = product.call(["egress", "learn", "last"]).await;
    shown.assert_code(0);
    assert!(shown.stdout.contains("api.example.com:443  1 times"), "{}", shown.stdout);
    assert!(shown.stdout.contains("--add api.example.com,"), "{}", shown.stdout);
    let id = report["run_id"].as_str().expect("an id");
    let added = product.call(["egress", "learn", id, "--add", "api.example.com"]).await;
    added.assert_code(0);
    let policy = product.call(["policy"]).await;
    assert!(policy.stdout.contains("proxy to api.example.com"), "{}", policy.stdout);
    product.call(["egress", "learn", "last", "--add", "*.example.com"]).await.assert_code(2);
    product.call(["egress", "learn", "20200101-000000-aaaa"]).await.assert_code(2);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_projects_settings_are_inert_until_trusted_and_again_after_a_change() {
    let workspace = Workspace::named("/var/tmp", "sw-");
    let asks = "[env]\nset = { FROM_PROJECT = \"yes\" }\n[limits]\npids = 300\n";
    workspace.write(".sandbox-mcp.toml", asks);
    let script = "echo value=${FROM_PROJECT-none} pids=$(cat /sys/fs/cgroup/pids*/pids.max /sys/fs/cgroup/pids.max 2>/dev/null)";
    let product = Product::new().await;
    let look = async || {
        let model =
            Model::start(Script::bash(script).then(crate::common::Reply::say("Done."))).await;
        let args = ["--json", "--model-url", &model.url(), "go"];
        let report = product.run(&workspace, args).await.assert_status("completed");
        (model.step(2).await.said_by("tool"), report["remarks"].to_string())
    };
    let (seen, remarks) = look().await;
    assert!(seen.contains("value=none pids=300"), "narrowing holds without trust: {seen}");
    assert!(remarks.contains("is not trusted") && remarks.contains("env.set"), "{remarks}");

    let folder = workspace.path().to_str().expect("utf-8");
    product.call(["trust", folder]).await.assert_code(2); // nobody is there to ask
    let trusted = product.call(["trust", "--yes", folder]).await;
    trusted.assert_code(0);
    assert!(trusted.stdout.contains("env.set = { FROM_PROJECT = \"yes\" }"), "{}", trusted.stdout);
    let (seen, remarks) = look().await;
    assert!(seen.contains("value=yes") && remarks == "[]", "{seen} {remarks}");

    workspace.write(".sandbox-mcp.toml", &asks.replace("yes", "changed"));
    let (seen, remarks) = look().await;
    assert!(seen.contains("value=none"), "{seen}");
    assert!(remarks.contains("has changed since it was trusted"), "{remarks}");
    product.call(["trust", "--revoke", folder]).await.assert_code(0);
    product.check_nothing_left().await;
}

#[tokio::test]
async fn an_mcp_server_of_the_configuration_serves_the_agent_inside() {
    let server = r#"
import json, sys
for line in sys.stdin:
    ask = json.loads(line)
    if "id" not in ask: continue
    method = ask["method"]
    if method == "initialize":
        result = {"protocolVersion": ask["params"]["protocolVersion"], "capabilities": {"tools": {}}, "serverInfo": {"name": "notes", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "recall", "description": "Recalls", "inputSchema": {"type": "object", "properties": {}}}]}
    elif method == "tools/call":
        import os
        result = {"content": [{"type": "text", "text": "recalled " + os.environ["WHO"]}]}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": ask["id"], "result": result}), flush=True)
"#;
    let workspace = Workspace::new();
    workspace.write("notes.py", server);
    let script = Script::call("notes_recall", serde_json::json!({}));
    let model = Model::start(script.then(crate::common::Reply::say("Done."))).await;
    let product = Product::with_model(&model).await.config(
        "[agent.mcp.notes]\ncommand = [\"python3\", \"/workspace/notes.py\"]\nenv = { WHO = \"ada\" }\n\
         [agent.mcp.far]\nurl = \"https://mcp.example.com/v1\"\n",
    );
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("completed");
    let remarks = report["remarks"].to_string();
    assert!(remarks.contains("mcp.example.com") && remarks.contains("egress.allow"), "{remarks}");
    let seen = model.step(2).await.said_by("tool");
    assert!(seen.contains("recalled ada"), "{seen}");
    product.check_nothing_left().await;
}

#[tokio::test]
async fn a_socket_in_the_workspace_leads_nowhere_in_any_mode() {
    let views = [("direct", ""), ("read-only", ""), ("isolated", "overlay"), ("isolated", "copy")];
    for (mode, isolation) in views {
        let workspace = Workspace::new();
        let listener =
            std::os::unix::net::UnixListener::bind(workspace.at("engine.sock")).expect("bound");
        listener.set_nonblocking(true).expect("set");
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(workspace.at("engine.sock"), open).expect("chmod");
        let script =
            "curl -sS -m 3 --unix-socket /workspace/engine.sock http://x/ 2>&1; echo code=$?";
        let model =
            Model::start(Script::bash(script).then(crate::common::Reply::say("Done."))).await;
        let product = Product::with_model(&model).await;
        let product = match isolation {
            "" => product,
            isolation => product.config(&format!("[workspace]\nisolation = \"{isolation}\"\n")),
        };
        let args = ["--json", "--mode", mode, "go"];
        let report = product.run(&workspace, args).await.assert_status("completed");
        assert!(model.step(2).await.said_by("tool").contains("code=7"));
        let told = report["remarks"].to_string().contains("engine.sock");
        assert_eq!(told, mode == "read-only", "{}", report["remarks"]);
        let reached = listener.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(reached, Err(std::io::ErrorKind::WouldBlock), "{mode}: it was reached");
        product.check_nothing_left().await;
    }
}

#[tokio::test]
async fn the_model_servers_own_port_is_not_opened_past_the_relay() {
    let model = Model::start(Script::say("never")).await;
    let port =
        model.url().rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse::<u16>().ok());
    let config = format!("[egress]\nhost_ports = [{}]\n", port.expect("a port"));
    let product = Product::with_model(&model).await.config(&config);
    let workspace = Workspace::new();
    let report = product.run(&workspace, ["--json", "go"]).await.assert_status("sandbox_error");
    assert_eq!(report["error"]["kind"], "egress");
    product.check_nothing_left().await;
}
