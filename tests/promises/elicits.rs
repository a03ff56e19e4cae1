//! What tools on the host trust changes only when a person says so: asked by the host where it can,
//! and never on a model's word.

use serde_json::{Value, json};

use crate::common::Mcp;
use crate::outcome::{RUN, Result};

pub(crate) const ELICIT: &str = "elicitation/create";

/// A run that changed a file and what a shell would execute.
pub(crate) fn trusted() -> Result {
    Result::new(&[("a.txt", "old")]).file("a.txt", "new").file(".envrc", "export A=1").kept()
}

async fn client(result: &Result, version: &str) -> Mcp {
    let mut client = Mcp::connect(&result.product, &result.workspace);
    let capabilities = json!({"elicitation": {}});
    if version == "2026-07-28" {
        client.discover_as(capabilities).await;
    } else {
        client.initialize_as(version, capabilities).await;
    }
    client
}

pub(crate) fn arguments() -> Value {
    json!({"name": "apply_changes", "arguments": {"run_id": RUN}})
}

/// Calls the tool, lets the host answer as `said` has it, and gives the result.
async fn answered(client: &mut Mcp, at: usize, said: Value) -> Value {
    let id = client.request("tools/call", arguments()).await;
    let (question, _) = client.asked(ELICIT, at).await;
    client.reply(&question, said).await;
    client.result(id).await
}

pub(crate) fn yes() -> Value {
    json!({"action": "accept", "content": {"allow": true}})
}

pub(crate) fn no() -> Value {
    json!({"action": "accept", "content": {"allow": false}})
}

pub(crate) async fn assert_untouched(result: &Result) {
    assert_eq!(result.workspace.names(), ["a.txt"]);
    assert_eq!(result.workspace.read("a.txt"), "old");
    assert_eq!(result.standing().await, "pending");
}

pub(crate) async fn assert_refused(result: &Result, answer: &Value, kind: &str) {
    let told = &answer["structuredContent"];
    assert_eq!(answer["isError"], true, "{answer:#}");
    assert_eq!(told["error"]["kind"], kind, "{told:#}");
    assert_eq!(told["protected"][0]["path"], ".envrc", "{told:#}");
    assert!(
        told["error"]["hint"].as_str().is_some_and(|hint| hint.contains("nothing was changed"))
    );
    assert_untouched(result).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_asked_and_their_yes_carries_it_over() {
    for version in ["2025-06-18", "2025-11-25"] {
        let result = trusted();
        let mut client = client(&result, version).await;
        let id = client.request("tools/call", arguments()).await;
        let (question, params) = client.asked(ELICIT, 0).await;
        let message = params["message"].as_str().expect("a message");
        assert!(message.contains("- `.envrc` (added): shells or version managers"), "{message}");
        assert!(message.contains(&format!("sandbox-mcp diff {RUN}")), "{message}");
        let schema = &params["requestedSchema"];
        assert_eq!(schema["properties"]["allow"]["type"], "boolean", "{schema:#}");
        assert_eq!(schema["required"], json!(["allow"]));
        assert_untouched(&result).await;
        client.reply(&question, yes()).await;
        let done = client.result(id).await;
        assert_eq!(done["structuredContent"]["state"], "applied", "{done:#}");
        assert_eq!(result.workspace.read(".envrc"), "export A=1");
        client.close().await.assert_code(0);
        result.product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_not_a_yes_changes_nothing() {
    let result = trusted();
    for (said, kind) in [
        (json!({"action": "decline"}), "not_answered"),
        (json!({"action": "decline", "content": {"allow": true}}), "not_answered"),
        (json!({"action": "accept", "content": {"allow": false}}), "declined"),
        (json!({"action": "cancel"}), "not_answered"),
        (json!({"action": "accept"}), "not_asked"),
        (json!({"action": "accept", "content": {"allow": "yes"}}), "not_asked"),
        (json!({"action": "maybe", "content": {"allow": true}}), "not_asked"),
        (json!({}), "not_asked"),
        (json!({"roots": []}), "not_asked"),
    ] {
        let mut client = client(&result, "2025-11-25").await;
        let answer = answered(&mut client, 0, said).await;
        assert_refused(&result, &answer, kind).await;
        client.close().await.assert_code(0);
    }
    // A host that says that it can ask, and cannot.
    let mut client = client(&result, "2025-11-25").await;
    let id = client.request("tools/call", arguments()).await;
    let (question, _) = client.asked(ELICIT, 0).await;
    let error = json!({"code": -32601, "message": "no\u{1b}[31m such method"});
    client.send(&json!({"jsonrpc": "2.0", "id": question, "error": error})).await;
    let answer = client.result(id).await;
    assert_refused(&result, &answer, "not_asked").await;
    assert!(!answer.to_string().contains("u001b"), "{answer:#}");
    // Looking asks nobody.
    let dry = json!({"run_id": RUN, "dry_run": true});
    let answer = client.tool("apply_changes", dry).await;
    assert_refused(&result, &answer, "protected").await;
    let part = client.tool("apply_changes", json!({"run_id": RUN, "only": ["a.txt"]})).await;
    assert_eq!(part["structuredContent"]["state"], "partly_applied", "{part:#}");
    let asked = client.frames().iter().filter(|frame| frame["method"] == ELICIT).count();
    assert_eq!(asked, 1);
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_no_stands_and_nobody_is_asked_until_they_are_tired() {
    let result = trusted();
    let mut client = client(&result, "2025-11-25").await;
    // Some hosts decline by themselves: that is nobody's no, and the user can do it by hand.
    for (at, action) in ["cancel", "decline", "decline"].into_iter().enumerate() {
        let answer = answered(&mut client, at, json!({ "action": action })).await;
        assert_refused(&result, &answer, "not_answered").await;
        let next = answer["structuredContent"]["next"].as_str().expect("what to do next");
        assert!(next.contains(&format!("`sandbox-mcp apply {RUN} --allow-protected`")), "{next}");
        assert!(!answer.to_string().contains("said no\""), "{answer:#}");
    }
    let answer = client.tool("apply_changes", json!({"run_id": RUN})).await;
    assert_refused(&result, &answer, "not_asked").await;
    client.close().await.assert_code(0);

    for version in ["2025-11-25", "2026-07-28"] {
        let mut client = self::client(&result, version).await;
        let answer = if version == "2026-07-28" {
            let (state, _) = question(&mut client).await;
            let no = json!({"allow": no()});
            again(&mut client, &state, no, json!({"run_id": RUN})).await
        } else {
            answered(&mut client, 0, no()).await
        };
        assert_refused(&result, &answer, "declined").await;
        for (run, only) in [(RUN, json!([])), (" 20260101-000000-aaaa\n", json!([".envrc"]))] {
            let part = json!({"run_id": run, "only": only});
            let answer = client.tool("apply_changes", part).await;
            assert_refused(&result, &answer, "not_asked").await;
            assert!(answer.to_string().contains("has said no"), "{answer:#}");
        }
        client.close().await.assert_code(0);
    }
    result.product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_waited_for_without_end_and_a_late_yes_is_none() {
    let mut result = trusted();
    result.product = result.product.config("[mcp]\nsync_limit = 5\n");
    let mut client = client(&result, "2025-11-25").await;
    let id = client.request("tools/call", arguments()).await;
    let (question, _) = client.asked(ELICIT, 0).await;
    let answer = client.result(id).await;
    assert_refused(&result, &answer, "not_answered").await;
    client.reply(&question, yes()).await;
    client.ping().await;
    assert_untouched(&result).await;

    // A call that its host withdraws has no answer, and takes its question with it.
    let id = client.request("tools/call", arguments()).await;
    let (question, _) = client.asked(ELICIT, 1).await;
    client.cancel(id).await;
    client.reply(&question, yes()).await;
    client.ping().await;
    assert_untouched(&result).await;
    client.close().await.assert_code(0);

    // Nor does a host that leaves.
    let mut client = self::client(&result, "2025-11-25").await;
    client.request("tools/call", arguments()).await;
    client.asked(ELICIT, 0).await;
    client.close().await.assert_code(0);
    assert_untouched(&result).await;
    result.product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_about_is_what_is_carried_over() {
    let result = trusted();
    let mut client = client(&result, "2025-11-25").await;
    // Somebody works in the folder while the person thinks.
    let id = client.request("tools/call", arguments()).await;
    let (question, _) = client.asked(ELICIT, 0).await;
    result.workspace.write(".envrc", "mine");
    client.reply(&question, yes()).await;
    let answer = client.result(id).await;
    assert_eq!(answer["structuredContent"]["error"]["kind"], "conflict", "{answer:#}");
    assert_eq!(result.workspace.read(".envrc"), "mine");
    assert_eq!(result.workspace.read("a.txt"), "old");
    std::fs::remove_file(result.workspace.at(".envrc")).expect("removed");

    // The same path with another content, and one path more.
    let asked = result.manifest();
    let result = result.file("x/.vscode/tasks.json", "{}");
    let mut more = result.manifest();
    more.changes.sort_by(|one, other| one.path.cmp(&other.path));
    let mut other = asked.clone();
    let envrc = other.changes.iter_mut().find(|one| one.path.to_string() == ".envrc");
    envrc.expect("there").after = asked.changes[1].after.clone();
    for (at, manifest) in [(1, other), (2, more)] {
        result.keep(&asked);
        let id = client.request("tools/call", arguments()).await;
        let (question, _) = client.asked(ELICIT, at).await;
        result.keep(&manifest);
        client.reply(&question, yes()).await;
        let answer = client.result(id).await;
        assert_refused(&result, &answer, "protected").await;
    }
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_to_ask_it_says_how_a_person_does_it() {
    for capabilities in [json!({}), json!({"elicitation": {"url": {}}})] {
        let result = trusted();
        let mut client = Mcp::connect(&result.product, &result.workspace);
        client.initialize_as("2025-11-25", capabilities).await;
        let answer = client.tool("apply_changes", json!({"run_id": RUN})).await;
        assert_refused(&result, &answer, "protected").await;
        let hint = answer["structuredContent"]["error"]["hint"].as_str().expect("a hint");
        assert!(hint.contains("sandbox-mcp apply RUN --allow-protected"), "{hint}");
        // A model's own yes is none.
        let own = json!({"run_id": RUN, "allow_protected": true});
        let refused = client.tool("apply_changes", own).await;
        assert!(refused["isError"] == true && refused.to_string().contains("allow_protected"));
        assert_untouched(&result).await;
        client.close().await.assert_code(0);
        result.product.call(["apply", RUN, "--allow-protected"]).await.assert_code(0);
        assert_eq!(result.workspace.names(), [".envrc", "a.txt"]);
        result.product.check_nothing_left().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_about_more_than_they_can_read() {
    let mut result = Result::new(&[("a.txt", "old")]);
    for number in 0..30 {
        result = result.file(&format!("{number}/.envrc"), "x");
    }
    let result = result.kept();
    let mut client = client(&result, "2025-11-25").await;
    let answer = client.tool("apply_changes", json!({"run_id": RUN})).await;
    let told = &answer["structuredContent"]["error"];
    assert_eq!(told["kind"], "protected", "{answer:#}");
    assert!(told["hint"].as_str().is_some_and(|hint| hint.contains("fewer")), "{told:#}");
    assert_untouched(&result).await;
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}

/// What a host of 2026-07-28 is answered: the question's name and its text.
async fn question(client: &mut Mcp) -> (String, String) {
    let asked = client.ask("tools/call", arguments()).await;
    assert_eq!(asked["resultType"], "input_required", "{asked:#}");
    let request = &asked["inputRequests"]["allow"];
    assert_eq!(request["method"], ELICIT, "{asked:#}");
    let state = asked["requestState"].as_str().expect("a state").to_owned();
    (state, request["params"]["message"].as_str().expect("a message").to_owned())
}

async fn again(client: &mut Mcp, state: &str, responses: Value, arguments: Value) -> Value {
    let params = json!({
        "name": "apply_changes", "arguments": arguments,
        "requestState": state, "inputResponses": responses,
    });
    client.ask("tools/call", params).await
}

#[tokio::test(flavor = "multi_thread")]
async fn from_2026_on_the_question_is_the_answer_and_good_for_one() {
    let result = trusted();
    let same = || json!({"run_id": RUN});
    let all = |said: Value| json!({"allow": said});

    for (said, kind) in [
        (all(json!({"action": "decline"})), "not_answered"),
        (all(no()), "declined"),
        (all(json!({"action": "cancel"})), "not_answered"),
        (all(json!({"action": "accept"})), "not_asked"),
        (all(json!({"action": "maybe", "content": {"allow": true}})), "not_asked"),
        (json!({"other": {"action": "accept", "content": {"allow": true}}}), "not_asked"),
        (json!({}), "not_asked"),
    ] {
        let mut client = client(&result, "2026-07-28").await;
        let (state, message) = question(&mut client).await;
        assert!(message.contains("- `.envrc` (added)"), "{message}");
        let answer = again(&mut client, &state, said, same()).await;
        assert_refused(&result, &answer, kind).await;
        // Whoever said no cannot be outvoted by a second call.
        let answer = again(&mut client, &state, all(yes()), same()).await;
        assert!(answer.to_string().contains("no open question"), "{answer:#}");
        client.close().await.assert_code(0);
    }
    let mut client = client(&result, "2026-07-28").await;
    // A made-up question, and a yes to another one.
    let answer = again(&mut client, &"0".repeat(32), all(yes()), same()).await;
    assert!(answer["isError"] == true, "{answer:#}");
    let (state, _) = question(&mut client).await;
    let other = json!({"run_id": RUN, "only": [".envrc"]});
    let answer = again(&mut client, &state, all(yes()), other).await;
    assert!(answer.to_string().contains("no open question"), "{answer:#}");
    assert_untouched(&result).await;
    // What changed while the person thought.
    let (state, _) = question(&mut client).await;
    result.workspace.write("a.txt", "mine");
    let answer = again(&mut client, &state, all(yes()), same()).await;
    assert_eq!(answer["structuredContent"]["error"]["kind"], "conflict", "{answer:#}");
    result.workspace.write("a.txt", "old");
    assert_untouched(&result).await;

    let (state, _) = question(&mut client).await;
    let answer = again(&mut client, &state, all(yes()), same()).await;
    assert_eq!(answer["structuredContent"]["state"], "applied", "{answer:#}");
    assert_eq!(result.workspace.read(".envrc"), "export A=1");
    let asked = client.frames().iter().filter(|frame| frame["method"] == ELICIT).count();
    assert_eq!(asked, 0, "the server asks nothing unasked");
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;

    // A host of that version that cannot ask.
    let result = trusted();
    let mut client = Mcp::connect(&result.product, &result.workspace);
    client.discover().await;
    let answer = client.tool("apply_changes", same()).await;
    assert_refused(&result, &answer, "protected").await;
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}

/// A yes to a file is no trust in what it asks for: that is had by its exact content, at a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn trust_in_a_project_cannot_be_had_by_a_question() {
    let asks = "[env]\nset = { FROM_PROJECT = \"yes\" }\n";
    let result = Result::new(&[]).file(".sandbox-mcp.toml", asks).kept();
    let mut client = client(&result, "2025-11-25").await;
    let done = answered(&mut client, 0, yes()).await;
    assert_eq!(done["structuredContent"]["state"], "applied", "{done:#}");
    assert_eq!(result.workspace.read(".sandbox-mcp.toml"), asks);
    let folder = result.workspace.path().to_str().expect("utf-8");
    let shown = result.product.call(["trust", "--show", folder]).await;
    assert!(shown.stdout.contains("FROM_PROJECT"), "{shown:#?}");
    assert!(shown.stdout.contains("not trusted"), "{shown:#?}");
    let listed = client.ask("tools/list", json!({})).await;
    let tools = listed["tools"].as_array().expect("tools");
    let names: Vec<_> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(!names.iter().any(|name| name.contains("trust")), "{names:?}");
    client.close().await.assert_code(0);
    result.product.check_nothing_left().await;
}
