//! The tool for the Tools page, loaded by `Open WebUI`'s own loader.

use super::*;

struct Chat {
    /// The lines of live status, in order.
    statuses: Vec<String>,
    /// What a person finds among the sources of the answer.
    source: String,
    /// What a person was asked.
    asked: Vec<Value>,
    result: String,
    stopped: bool,
}

/// One `Open WebUI`, in which any number of chats are had.
struct WebUi {
    house: House,
    running: Running,
    seen: usize,
}

impl WebUi {
    fn start(python: &Python, house: House) -> Self {
        let mut command = python.script("chat.py");
        command.arg(TOOL).env("OPENAI_API_KEY", "not for the binary");
        let running = house.start(command);
        Self { house, running, seen: 0 }
    }

    /// The lines up to one that has one of these.
    async fn lines(&mut self, last: &[&str]) -> Vec<Value> {
        let seen = self.seen;
        let read = |text: &str, _| {
            let lines = text.lines().skip(seen).map(serde_json::from_str::<Value>);
            // The last may still be on its way.
            let lines: Vec<_> = lines.map_while(Result::ok).collect();
            let end = lines.iter().position(|line| last.iter().any(|key| !line[*key].is_null()))?;
            Some(lines[..=end].to_vec())
        };
        let errors = || self.running.stderr.text();
        let lines = self.running.stdout.until(&format!("{last:?}; {}", errors()), read).await;
        self.seen += lines.len();
        lines
    }

    async fn chat(&mut self, asked: &Value) -> Chat {
        if self.seen == 0 {
            self.lines(&["specs"]).await;
        }
        self.running.feed(format!("{asked}\n").as_bytes()).await;
        let lines = self.lines(&["result", "stopped"]).await;
        let events = |kind: &'static str| {
            let lines = lines.iter().map(|line| &line["event"]);
            lines.filter(move |event| event["type"] == kind).map(|event| &event["data"])
        };
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let done = events("status").filter(|data| data["done"] == true).count();
        assert_eq!(done, 1, "the status ends once: {lines:#?}");
        let last = lines.last().expect("lines");
        Chat {
            statuses: events("status").map(|data| text(&data["description"])).collect(),
            source: events("source").map(|data| text(&data["document"][0])).collect(),
            asked: lines.iter().map(|l| l["asked"].clone()).filter(Value::is_object).collect(),
            result: last["result"].as_str().unwrap_or_default().to_owned(),
            stopped: last["stopped"] == true,
        }
    }

    async fn close(self, web: Option<Web>) {
        self.running.wait().await.assert_code(0);
        self.house.close(web).await;
    }
}

fn run_id(told: &str) -> &str {
    told.split('`').find(|word| leftovers::is_run_id(word)).expect("a run's id")
}

fn by_binary(house: &House, more: Value) -> Value {
    let mut valves = json!({ "binary": BINARY, "workspace": house.workspace.path() });
    let Value::Object(more) = more else { panic!("more valves: {more}") };
    valves.as_object_mut().expect("object").extend(more);
    valves
}

fn by_server(web: &Web, token: &str) -> Value {
    json!({ "url": web.url(), "token": token })
}

fn task(valves: &Value, text: &str) -> Value {
    json!({ "method": "run_in_sandbox", "valves": valves, "arguments": { "task": text } })
}

fn with(mut asked: Value, key: &str, value: Value) -> Value {
    asked[key] = value;
    asked
}

/// Asserts that a person is told what is wrong and what to do, and that the chat counts it as an
/// error.
#[track_caller]
fn assert_told(chat: &Chat, wrong: &str, todo: &str) {
    let (what, rest) = chat.result.split_once("**What to do:**").expect("what to do");
    assert!(what.starts_with("Error: ") && what.contains(wrong), "{}", chat.result);
    assert!(rest.contains(todo), "{}", chat.result);
}

#[tokio::test(flavor = "multi_thread")]
async fn is_loaded_and_described() {
    let Some(python) = Python::open_webui() else { return };
    let product = Product::without_engine();
    let run = |script: &'static str| async {
        let mut command = Command::from(python.script(script));
        command.arg(TOOL).env("DATA_DIR", product.folder("data"));
        let mut running = product.start(command);
        running.close_stdin();
        let ended = running.wait().await;
        ended.assert_code(0);
        ended.stdout
    };
    let told: Value = serde_json::from_str(&run("chat.py").await).expect("JSON");
    assert_eq!(told["frontmatter"]["title"], "Coding sandbox", "{told:#}");
    // It would be installed by pip at each start.
    assert_eq!(told["frontmatter"].get("requirements"), None);
    let specs_of = told["specs"].as_array().expect("specs");
    let names: Vec<_> = specs_of.iter().map(|spec| spec["name"].as_str().expect("name")).collect();
    assert_eq!(names, ["apply_changes", "discard_changes", "run_in_sandbox", "show_run"]);
    let arguments = &specs_of[2]["parameters"];
    assert_eq!(arguments["required"], json!(["task"]), "{arguments:#}");
    let properties = arguments["properties"].as_object().expect("properties");
    assert_eq!(properties.len(), 2, "{arguments:#}");
    for spec in specs_of {
        for (name, property) in spec["parameters"]["properties"].as_object().expect("object") {
            assert!(property["description"].is_string(), "{name} of {spec:#}");
        }
    }
    assert!(told["specs"].to_string().len() < 2_000, "every word costs context");
    // The loader rewrites these, wherever they stand.
    let source = std::fs::read_to_string(TOOL).expect("the tool");
    for word in ["from utils", "from apps", "from main", "from config"] {
        assert!(!source.contains(word), "{word}");
    }

    let told = run("rendering.py").await;
    assert!(told.contains(" attacks"), "{told}");
    product.leftovers().check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_the_work_and_decides_on_the_changes() {
    let Some(python) = Python::open_webui() else { return };
    let answer = "Written.\n```\n![x](http://evil.example/?q=1)\n<img src=http://evil.example>";
    let script = Script::bash("printf '```\\n' > note.md").then_say(answer);
    let house = House::new([("note", script)]).await;
    let mut webui = WebUi::start(&python, house);
    let valves = by_binary(&webui.house, json!({}));

    let done = webui.chat(&task(&valves, "a note")).await;
    assert!(done.statuses.iter().any(|line| line.contains("working")), "{:?}", done.statuses);
    let last = done.statuses.last().expect("a status");
    assert!(last.starts_with("completed in ") && last.ends_with("1 file changed"), "{last}");
    assert!(done.result.starts_with("**Sandbox run completed in "), "{}", done.result);
    assert!(done.result.contains("- added `note.md`"), "{}", done.result);
    assert!(done.result.contains("````diff\ndiff --git a/note.md b/note.md"), "{}", done.result);
    assert!(done.result.contains("own words** (not checked"), "{}", done.result);
    assert!(!done.result.contains("![") && !done.result.contains("<img"), "{}", done.result);
    assert_eq!(done.source, done.result, "it can be looked up, whatever the model makes of it");
    assert!(!webui.house.workspace.has("note.md"), "nothing is changed before a person says so");

    let id = run_id(&done.result).to_owned();
    let decide = |method: &str, confirm: Value| {
        json!({
            "method": method, "valves": valves, "arguments": { "run_id": id }, "confirm": confirm,
        })
    };
    // Whatever the page says besides yes is no.
    for answer in [json!(false), json!({ "error": "timeout" }), json!("true")] {
        let refused = webui.chat(&decide("apply_changes", answer)).await;
        assert_told(&refused, "no person has agreed", &format!("sandbox-mcp apply {id}"));
        assert!(refused.asked[0].to_string().contains("`note.md`"), "{:?}", refused.asked);
        assert!(!webui.house.workspace.has("note.md"));
    }
    let elsewhere = Workspace::new();
    let asked = with(decide("apply_changes", json!(true)), "valves", {
        json!({ "binary": BINARY, "workspace": elsewhere.path() })
    });
    assert_told(&webui.chat(&asked).await, "another folder", "set up for that folder");

    let applied = webui.chat(&decide("apply_changes", json!(true))).await;
    assert!(applied.result.contains("- `note.md`"), "{}", applied.result);
    assert_eq!(webui.house.workspace.read("note.md"), "```\n");
    let shown = webui.chat(&decide("show_run", json!(false))).await;
    assert!(shown.result.contains("**Changes**, applied"), "{}", shown.result);
    let again = webui.chat(&decide("discard_changes", json!(true))).await;
    assert_told(&again, "no changes to decide on", "show_run");
    for odd in ["last", "../x", "--help"] {
        let asked =
            json!({ "method": "show_run", "valves": valves, "arguments": { "run_id": odd } });
        assert_told(&webui.chat(&asked).await, "is no run id", "run_in_sandbox gave");
    }
    webui.close(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_narrows_and_never_widens() {
    let Some(python) = Python::open_webui() else { return };
    let script = Script::bash("echo x > note.txt").then_say("1").then_say("2");
    let house = House::new([("note", script)]).await;
    let mut webui = WebUi::start(&python, house);
    let valves = by_binary(&webui.house, json!({ "mode": "direct", "timeout": 100 }));
    let asked =
        with(task(&valves, "a note"), "user_valves", json!({ "mode": "read_only", "timeout": 50 }));
    let narrowed = webui.chat(&asked).await;
    assert!(narrowed.result.contains("mode read only"), "{}", narrowed.result);
    assert!(!webui.house.workspace.has("note.txt"));

    let valves =
        by_binary(&webui.house, json!({ "mode": "read_only", "verify": "echo no; exit 3" }));
    let asked = with(
        task(&valves, "a note"),
        "user_valves",
        json!({ "mode": "isolated", "timeout": 9999 }),
    );
    let kept = webui.chat(&asked).await;
    assert!(kept.result.contains("mode read only"), "{}", kept.result);
    // Work that does not stand its check is no success, whatever the agent says.
    assert!(kept.result.starts_with("Error: **sandbox run completed, but its check failed,"));
    assert!(kept.result.contains("`echo no; exit 3`: FAILED"), "{}", kept.result);
    webui.close(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_chat_ends_the_run_and_says_so() {
    let Some(python) = Python::open_webui() else { return };
    let house = House::new([("note", Script::bash(HANG))]).await;
    let mut webui = WebUi::start(&python, house);
    let web = Web::start(&webui.house.product, &webui.house.workspace).await;
    for valves in [by_binary(&webui.house, json!({})), by_server(&web, &web.token)] {
        let stopped =
            webui.chat(&with(task(&valves, "a note"), "stop_at", json!("under way"))).await;
        assert!(stopped.stopped, "{}", stopped.result);
        let last = stopped.statuses.last().expect("a status");
        assert_eq!(last, "stopped; the sandbox is removed", "{:?}", stopped.statuses);
        // Told is what is: at this moment, not soon.
        assert!(leftovers::owned("container", web.server.pid).is_empty());
        let run = last_run(&webui.house.product).await;
        assert_eq!(run["status"], "cancelled", "{run:#}");
        webui.house.product.leftovers().watch_run(run["run_id"].as_str().expect("an id"));
    }
    webui.close(Some(web)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_a_server_it_is_the_same_and_a_broken_connection_loses_nothing() {
    let Some(python) = Python::open_webui() else { return };
    // The chat shows at most one line a second: a command that ends sooner may never be seen.
    let note = Script::bash("echo hello > note.txt; sleep 3").then_say("Written.");
    let slow = Script::bash("sleep 4; echo again > note.txt").then_say("Again.");
    let house = House::new([("note", note), ("slow", slow)]).await;
    let mut webui = WebUi::start(&python, house);
    let web = Web::start(&webui.house.product, &webui.house.workspace).await;
    let valves = by_server(&web, &web.token);

    let done = webui.chat(&task(&valves, "a note")).await;
    assert!(done.result.contains("```diff\n") && done.result.contains("+hello"), "{}", done.result);
    assert!(done.statuses.iter().any(|line| line.contains("bash")), "{:?}", done.statuses);
    let decide = json!({
        "method": "apply_changes", "valves": valves, "confirm": true,
        "arguments": { "run_id": run_id(&done.result) },
    });
    let applied = webui.chat(&decide).await;
    assert!(applied.result.contains("- `note.txt`"), "{}", applied.result);
    assert_eq!(webui.house.workspace.read("note.txt"), "hello\n");

    let cut = webui.chat(&with(task(&valves, "slow"), "cut_at", json!("sleep 4"))).await;
    let lost = |line: &String| line.contains("connection was lost");
    assert!(cut.statuses.iter().any(lost), "{:?}", cut.statuses);
    assert!(cut.result.contains("Again.") && cut.result.contains("+again"), "{}", cut.result);

    let refused = webui.chat(&task(&by_server(&web, "another"), "a note")).await;
    assert_told(&refused, "answers 401", "sandbox-mcp token");
    let odd = webui.chat(&task(&by_server(&web, "no\ntoken"), "a note")).await;
    assert_told(&odd, "is no token", "sandbox-mcp token");
    let url = web.url().replace("/mcp", "/elsewhere");
    let lost = webui.chat(&task(&json!({ "url": url, "token": web.token }), "a note")).await;
    assert_told(&lost, "answers 404", "/mcp");
    web.server.signal(Signal::TERM);
    web.server.wait_within(SOON).await.assert_code(0);
    let gone = webui.chat(&task(&valves, "a note")).await;
    assert_told(&gone, "no answer from", "serve --http");
    webui.close(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_with_what_to_do() {
    let Some(python) = Python::open_webui() else { return };
    let house = House::new([("note", Script::new(Reply::error(400, "no such thing")))]).await;
    let mut webui = WebUi::start(&python, house);
    let missing = webui
        .chat(&task(&by_binary(&webui.house, json!({ "binary": "/nowhere/x" })), "a note"))
        .await;
    assert_told(&missing, "cannot be started: No such file", "install sandbox-mcp");
    // No agent can put a program there.
    webui.house.workspace.write("planted", "#!/bin/sh\ntouch /workspace/planted-ran\n");
    let planted = webui.house.workspace.at("planted");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(planted, executable).expect("chmod");
    for program in ["./planted", "planted"] {
        let valves = by_binary(&webui.house, json!({ "binary": program }));
        let told = webui.chat(&task(&valves, "a note")).await;
        assert_told(&told, "cannot be started: No such file", "whole path");
    }
    for folder in ["", "relative", "/nowhere"] {
        let valves = by_binary(&webui.house, json!({ "workspace": folder }));
        assert_told(&webui.chat(&task(&valves, "a note")).await, "`workspace`", "administrator");
    }
    let valves = by_binary(&webui.house, json!({ "workspace": "/etc" }));
    assert_told(&webui.chat(&task(&valves, "a note")).await, "/etc", "correct what it names");
    let valves = by_binary(&webui.house, json!({ "model_url": "http://127.0.0.1:9" }));
    assert_told(
        &webui.chat(&task(&valves, "a note")).await,
        "model unreachable",
        "start the model server",
    );
    let failed = webui.chat(&task(&by_binary(&webui.house, json!({})), "a note")).await;
    assert!(failed.result.starts_with("Error: **sandbox run model error"), "{}", failed.result);
    assert!(failed.statuses.last().is_some_and(|line| line.starts_with("model error in")));
    webui.close(None).await;

    let product = Product::without_engine().env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    let model = Model::start(Script::say("never asked")).await;
    let house = House { model, product, workspace: Workspace::new(), relay: 0 };
    let mut webui = WebUi::start(&python, house);
    let url = webui.house.model.url();
    let valves = by_binary(&webui.house, json!({ "model_url": url }));
    let told = webui.chat(&task(&valves, "a note")).await;
    assert_told(&told, "sandbox error", "sandbox-mcp doctor");
    webui.close(None).await;
}
