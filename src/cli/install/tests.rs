use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::around::Around;
use super::clients::{CLIENTS, Client, find};
use super::entry::{self, Scope};
use super::register::{Done, Place, snippet};
use super::standing::{self, Trouble};
use super::{InstallArgs, NAME, ask, picked};

const KEY: &str = "sk-nobody-reads-this";

fn around(base: &Path) -> Around {
    let program = base.join("bin/sandbox-mcp");
    fs::create_dir_all(base.join("bin")).expect("made");
    fs::create_dir_all(base.join("project")).expect("made");
    fs::copy("/bin/true", &program).expect("a program");
    let path = base.join("bin").display().to_string();
    let variables = [
        ("PATH", path.as_str()),
        ("DOCKER_HOST", "unix:///run/user/1/docker.sock"),
        ("SANDBOX_MCP_MODEL_URL", "http://user:word@10.0.0.1:8000/v1"),
        ("SANDBOX_MCP_MODEL", "m"),
        ("SANDBOX_MCP_API_KEY", KEY),
        ("EDITOR", "vi"),
    ];
    Around {
        home: base.join("home"),
        variables: BTreeMap::from(variables.map(|(name, value)| (name.into(), value.into()))),
        project: base.join("project"),
        program,
        longest_run: 4200,
        sync_limit: None,
        key_variable: "SANDBOX_MCP_API_KEY".into(),
    }
}

fn place(client: &'static Client, scope: Scope, around: &Around) -> Place {
    Place::find(client, scope, NAME, around).expect("a place")
}

/// Every client with every scope that it has.
fn all() -> impl Iterator<Item = (&'static Client, Scope)> {
    let scopes = |client: &'static Client| {
        let project = (!client.project.is_empty()).then_some((client, Scope::Project));
        [(client, Scope::User)].into_iter().chain(project)
    };
    CLIENTS.iter().flat_map(scopes)
}

#[test]
fn every_client_is_registered_once_and_removed_without_a_trace() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    for (client, scope) in all() {
        let made = entry::make(client, scope, &around).expect("an entry");
        let written = place(client, scope, &around).register(NAME, &made.entry).expect("written");
        assert_eq!(written, Done::Written { backup: None, kept: None }, "{}", client.id);
        let there = place(client, scope, &around);
        let text = fs::read_to_string(there.path()).expect("text");
        assert_eq!(there.register(NAME, &made.entry).expect("nothing to do"), Done::Already);
        assert_eq!(fs::read_to_string(there.path()).expect("text"), text);
        let ours: Vec<_> = there.ours().map(|(name, entry)| (name, entry.clone())).collect();
        assert_eq!(ours, [(NAME, made.entry.clone())], "{}", client.id);
        let (path, shown) = snippet(client, scope, NAME, &made.entry, &around).expect("a snippet");
        assert_eq!((path.as_path(), shown), (there.path(), text), "{}", client.id);

        let removed = there.unregister(NAME).expect("removed");
        assert!(matches!(removed, Done::Removed { .. }), "{}: {removed:?}", client.id);
        let gone = place(client, scope, &around);
        assert_eq!(gone.ours().count(), 0);
        assert_eq!(gone.unregister(NAME).expect("nothing to do"), Done::NotThere);
    }
}

#[test]
fn no_file_ever_holds_a_secret_and_a_shared_one_nothing_of_this_machine() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    for (client, scope) in all() {
        let made = entry::make(client, scope, &around).expect("an entry");
        let text = made.entry.to_string();
        assert!(!text.contains(KEY) && !text.contains("word@"), "{}: {text}", client.id);
        assert!(!text.contains("EDITOR") && !text.contains("\"trust\""), "{}: {text}", client.id);
        if scope == Scope::Project {
            assert_eq!(entry::program(&made.entry), Some("sandbox-mcp"));
            let machine = base.path().to_str().expect("text");
            assert!(!text.contains("docker.sock") && !text.contains(machine), "{text}");
        } else {
            assert_eq!(entry::program(&made.entry), around.program.to_str());
        }
    }
    let noted = |id: &str, scope| {
        entry::make(find(id).expect("a client"), scope, &around).expect("an entry").notes.join("\n")
    };
    let zed = noted("zed", Scope::User);
    assert!(zed.contains("a secret: SANDBOX_MCP_API_KEY, SANDBOX_MCP_MODEL_URL; Zed"), "{zed}");
    let cursor = noted("cursor", Scope::Project);
    assert!(cursor.contains("one machine's: DOCKER_HOST, SANDBOX_MCP_MODEL\n"), "{cursor}");
    assert!(noted("gemini", Scope::User).contains("api_key_env"));
    assert_eq!(noted("claude-code", Scope::User), "");
    let cursor = entry::make(find("cursor").expect("a client"), Scope::User, &around);
    let cursor = cursor.expect("an entry").entry;
    assert_eq!(cursor["env"]["SANDBOX_MCP_API_KEY"], "${env:SANDBOX_MCP_API_KEY}");
    assert_eq!(cursor["env"]["DOCKER_HOST"], "unix:///run/user/1/docker.sock");
    let written = |host: &str| {
        let mut around = around.clone();
        around.variables.insert("SANDBOX_MCP_OTHER".into(), KEY.into());
        around.variables.insert("DOCKER_HOST".into(), host.into());
        let made = entry::make(find("lm-studio").expect("a client"), Scope::User, &around);
        made.expect("an entry").entry["env"].clone()
    };
    let env = written("https://word@docker.example");
    assert!(!env.to_string().contains("word@"), "a user without a password may be a key: {env}");
    assert!(!env.to_string().contains(KEY), "what is not known may be one: {env}");
    assert_eq!(written("ssh://me@docker.example")["DOCKER_HOST"], "ssh://me@docker.example");
    let codex = entry::make(find("codex").expect("a client"), Scope::User, &around);
    let codex = codex.expect("an entry").entry;
    assert!(codex["env_vars"].as_array().expect("names").contains(&json!("SANDBOX_MCP_API_KEY")));
}

#[test]
fn the_users_own_file_is_no_projects_also_where_the_home_is_a_link() {
    let base = tempfile::tempdir().expect("temp");
    let mut around = around(base.path());
    let client = find("cursor").expect("a client");
    fs::create_dir_all(&around.home).expect("made");
    std::os::unix::fs::symlink(&around.home, base.path().join("way")).expect("a link");
    around.project = around.home.canonicalize().expect("there");
    for home in [around.home.clone(), base.path().join("way")] {
        around.home = home;
        let refused = Place::find(client, Scope::Project, NAME, &around).expect_err("refused");
        assert!(refused.to_string().contains("the user's own"), "{refused}");
    }
}

#[test]
fn a_foreign_entry_is_never_touched() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    let client = find("cursor").expect("a client");
    let file = around.home.join(".cursor/mcp.json");
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    for foreign in
        [json!({"command": "npx"}), json!({"url": "http://x"}), json!("sandbox-mcp"), json!(null)]
    {
        let text = json!({"mcpServers": {"sandbox": foreign}}).to_string();
        fs::write(&file, &text).expect("written");
        let place = place(client, Scope::User, &around);
        let entry = entry::make(client, Scope::User, &around).expect("an entry").entry;
        let refused = place.register(NAME, &entry).expect_err("refused").to_string();
        assert!(refused.contains("--name"), "{refused}");
        assert!(place.unregister(NAME).expect_err("refused").to_string().contains("--name"));
        assert_eq!(fs::read_to_string(&file).expect("text"), text);
        place.register("other", &entry).expect("beside it");
    }
}

#[test]
fn an_older_registration_is_brought_up_to_date_and_what_a_person_set_stays() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    let client = find("codex").expect("a client");
    let file = around.home.join(".codex/config.toml");
    fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    let old = "[mcp_servers.sandbox]\n# moved since\ncommand = \"/old/sandbox-mcp\" # here\nargs = \
               [\"--quiet\"]\nenabled = false\nsupports_parallel_tool_calls = \
               false\nstartup_timeout_sec = 90.5\ntool_timeout_sec = 60\nenv_vars = \
               [\"MINE\"]\n[mcp_servers.sandbox.env]\nRUST_LOG = \"debug\"\n";
    fs::write(&file, old).expect("written");
    let entry = entry::make(client, Scope::User, &around).expect("an entry").entry;
    let done = place(client, Scope::User, &around).register(NAME, &entry).expect("written");
    // There was no backup yet, so even this state is worth keeping.
    assert!(matches!(done, Done::Refreshed { backup: Some(_), kept: None }), "{done:?}");

    let text = fs::read_to_string(&file).expect("text");
    assert!(text.contains("# moved since") && text.contains("# here"), "{text}");
    let now = place(client, Scope::User, &around);
    let (_, now) = now.ours().next().expect("ours");
    assert_eq!(now["command"].as_str(), around.program.to_str());
    assert_eq!(now["args"], json!(["--quiet"]));
    assert_eq!(now["enabled"], false);
    assert_eq!(now["supports_parallel_tool_calls"], false);
    assert_eq!(now["startup_timeout_sec"], 90.5);
    assert_eq!(now["tool_timeout_sec"], 4800);
    assert_eq!(now["env_vars"][0], "MINE");
    assert_eq!(now["env"]["RUST_LOG"], "debug");
    assert!(now["env"][entry::SYNC_LIMIT].is_string());
}

#[test]
fn the_file_that_is_there_is_the_one_that_is_used() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    let client = find("opencode").expect("a client");
    let folder = around.home.join(".config/opencode");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("opencode.jsonc"), "{ // mine\n}\n").expect("written");
    let entry = entry::make(client, Scope::User, &around).expect("an entry").entry;
    let place = place(client, Scope::User, &around);
    place.register(NAME, &entry).expect("written");
    assert!(!folder.join("opencode.json").exists());
    let text = fs::read_to_string(folder.join("opencode.jsonc")).expect("text");
    assert!(text.starts_with("{ // mine\n"), "{text}");
    assert_eq!(
        fs::read_to_string(folder.join("opencode.jsonc.sandbox-mcp.bak")).expect("text"),
        "{ // mine\n}\n"
    );

    let mut moved = around.clone();
    moved.variables.insert("CODEX_HOME".into(), base.path().join("cx").display().to_string());
    moved.variables.insert("XDG_CONFIG_HOME".into(), base.path().join("xc").display().to_string());
    let at = |id: &str| {
        let place = Place::find(find(id).expect("a client"), Scope::User, NAME, &moved);
        place.expect("a place").path().strip_prefix(base.path()).expect("below").to_owned()
    };
    assert_eq!(at("codex"), Path::new("cx/config.toml"));
    assert_eq!(at("zed"), Path::new("xc/zed/settings.json"));
    assert_eq!(at("claude-code"), Path::new("home/.claude.json"));

    // In the home folder, the project's file would be the user's own.
    let at_home = Around { project: around.home.clone(), ..around.clone() };
    let codex = find("codex").expect("a client");
    let refused = Place::find(codex, Scope::Project, NAME, &at_home).expect_err("refused");
    assert!(refused.to_string().contains("the user's own"), "{refused}");
    let studio = find("lm-studio").expect("a client");
    Place::find(studio, Scope::Project, NAME, &around).expect_err("it has no projects");
}

#[test]
fn a_registration_that_does_not_work_is_seen() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    let of =
        |id: &str, entry: &Value| standing::examine(find(id).expect("a client"), entry, &around);
    for (client, scope) in all() {
        let entry = entry::make(client, scope, &around).expect("an entry").entry;
        assert_eq!(standing::examine(client, &entry, &around), [], "{}: {entry}", client.id);
    }
    let gone = json!({"command": "/gone/sandbox-mcp"});
    assert_eq!(of("cursor", &gone), [Trouble::Missing("/gone/sandbox-mcp".into())]);
    fs::create_dir(base.path().join("other")).expect("made");
    let other = base.path().join("other/sandbox-mcp");
    fs::copy("/bin/true", &other).expect("a program");
    let entry = json!({"command": other});
    assert_eq!(of("cursor", &entry), [Trouble::Another(other)]);

    // With a limit of its own, each is measured against when the server answers.
    let program = around.program.to_str().expect("text");
    let cut = |id: &str, rest: Value| {
        let mut entry = json!({"command": program});
        entry.as_object_mut().expect("a table").extend(rest.as_object().expect("a table").clone());
        of(id, &entry)
    };
    assert_eq!(cut("codex", json!({})), []);
    assert_eq!(cut("codex", json!({"tool_timeout_sec": 30})), [Trouble::CutShort(30)]);
    let patient = json!({"env": {"SANDBOX_MCP_SYNC_LIMIT": "0"}, "tool_timeout_sec": 120.5});
    assert_eq!(cut("codex", patient), [Trouble::CutShort(120)]);
    assert_eq!(cut("claude-code", json!({})), []);
    assert_eq!(cut("claude-code", json!({"timeout": 600_000})), [Trouble::CutShort(600)]);
    assert_eq!(cut("claude-code", json!({"timeout": 999})), []);
    assert_eq!(cut("opencode", json!({"timeout": 5000})), []);
    let mut hurried = around.clone();
    hurried.variables.insert("MCP_TOOL_TIMEOUT".into(), "60000".into());
    let claude = find("claude-code").expect("a client");
    let plain = json!({"command": program});
    assert_eq!(standing::examine(claude, &plain, &hurried), [Trouble::CutShort(60)]);
    let ours = entry::make(claude, Scope::User, &hurried).expect("an entry").entry;
    assert_eq!(standing::examine(claude, &ours, &hurried), []);
}

#[test]
fn an_answer_is_numbers_or_all_or_nothing() {
    let found: Vec<_> = CLIENTS.iter().take(3).collect();
    let ids = |answer| picked(answer, &found).map(|all| all.iter().map(|one| one.id).collect());
    let some = |ids: &[&'static str]| Some(ids.to_vec());
    assert_eq!(ids(" 2, 1 2\n"), some(&["codex", "claude-code"]));
    assert_eq!(ids("ALL"), some(&["claude-code", "codex", "gemini"]));
    assert_eq!(ids("\n"), some(&[]));
    for nonsense in ["0", "4", "one", "1 x", "-1"] {
        assert_eq!(ids(nonsense), None, "{nonsense}");
    }
}

#[test]
fn a_person_is_asked_until_the_answer_is_one() {
    let base = tempfile::tempdir().expect("temp");
    let around = around(base.path());
    let found: Vec<_> = CLIENTS.iter().take(2).collect();
    let entry = entry::make(found[1], Scope::User, &around).expect("an entry").entry;
    place(found[1], Scope::User, &around).register(NAME, &entry).expect("written");
    let args = InstallArgs {
        client: None,
        scope: Scope::User,
        print: false,
        uninstall: false,
        name: NAME.into(),
        yes: false,
    };
    let answered = |mut answers: &[u8]| {
        let mut out = Vec::new();
        let picked = ask(&found, &around, &args, &mut answers, &mut out).expect("asked");
        let ids: Vec<_> = picked.iter().map(|client| client.id).collect();
        (ids, String::from_utf8(out).expect("text"))
    };
    let (ids, shown) = answered(b"seven\n2\n");
    assert_eq!(ids, ["codex"]);
    assert!(shown.contains("1  Claude Code (not registered)"), "{shown}");
    assert!(shown.contains("2  Codex (registered)"), "{shown}");
    assert_eq!(shown.matches("Numbers").count(), 2, "{shown}");
    assert_eq!(answered(b"").0, [""; 0]);
}
