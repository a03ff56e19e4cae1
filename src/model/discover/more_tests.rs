//! Servers that load, lock, hide their list, or have more models than those that chat.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::tests::{discover, list, settings, usual, warned};
use super::*;
use crate::model::Secret;
use crate::model::testing::{Line, Seen, Server};

/// A server that looks at the path, and at what it is asked.
async fn server<F>(answer: F) -> Server
where
    F: Fn(&Seen) -> (u16, serde_json::Value) + Clone + Send + Sync + 'static,
{
    Server::start(move |_, seen, mut line: Line| {
        let (status, body) = answer(&seen);
        async move { line.json(status, &body).await }
    })
    .await
}

#[tokio::test]
async fn an_api_is_found_where_it_is() {
    for path in ["/v3", "/api", "/serve/a"] {
        let models = format!("{path}/models");
        let there = server(move |seen| {
            let there = seen.path() == models;
            if there { (200, list(&["m"], "somebody")) } else { (404, json!({"detail": "no"})) }
        })
        .await;
        for given in [path.to_owned(), format!("{path}/"), format!("{path}/chat/completions")] {
            let url = format!("{}{given}", there.url());
            let endpoint = discover(&settings(&url), None).await.expect(&url);
            assert_eq!(endpoint.base_url, format!("{}{path}", there.url()));
        }
    }
    // What speaks most against an address is told.
    let locked = server(|seen| match seen.path() {
        "/v3/models" => (401, json!({"error": "no key"})),
        _ => (404, json!({"detail": "Not Found"})),
    })
    .await;
    let url = format!("{}/v3", locked.url());
    let error = discover(&settings(&url), None).await.expect_err("locked").to_string();
    assert!(error.contains("no key"), "{error}");
}

#[tokio::test]
async fn a_model_that_is_named_needs_no_list() {
    for (status, body) in [
        (200, json!({"object": "list", "data": []})),
        (200, json!([{"id": "other"}])),
        (200, json!(["m"])),
        (200, json!({"error": "Unexpected endpoint or method. (GET /v1/models)"})),
        (500, json!("Internal Server Error")),
        (403, json!({"error": "you may not list"})),
    ] {
        let named = body == json!([{"id": "other"}]);
        let kept = body.clone();
        let there = server(move |seen| {
            let listing = seen.path().ends_with("/models");
            if listing { (status, body.clone()) } else { (400, json!({"error": "no messages"})) }
        })
        .await;
        let asked = if named { "other" } else { "m" };
        let endpoint = discover(&settings(&there.url()), Some(asked)).await.expect("on trust");
        assert_eq!(endpoint.model, asked, "{kept}");
        assert_eq!(endpoint.base_url, format!("{}/v1", there.url()), "{kept}");
        assert_eq!(warned(&endpoint, "on trust"), !kept.is_array(), "{:?}", endpoint.warnings);
    }
    let words = json!({"error": "Unexpected endpoint or method. (GET /v1/models)"});
    let mute = server(move |_| (200, words.clone())).await;
    let error = discover(&settings(&mute.url()), None).await.expect_err("no list").to_string();
    assert!(error.contains("Unexpected endpoint") && error.contains("`model.url`"), "{error}");
    // Where chats are refused as the list is, it is the key.
    let locked = server(|_| (401, json!({"error": "Unauthorized"}))).await;
    discover(&settings(&locked.url()), Some("m")).await.expect_err("locked");
}

#[tokio::test]
async fn a_server_that_loads_is_waited_for_and_one_that_is_gone_is_not() {
    let loading = |ready_at: usize| {
        Server::start(move |number, seen, mut line| async move {
            match (number < ready_at, seen.path()) {
                (true, _) => {
                    let said = json!({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}});
                    line.json(503, &said).await;
                }
                (_, "/v1/models") => line.json(200, &list(&["m"], "llamacpp")).await,
                _ => line.json(404, &json!({})).await,
            }
        })
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let tell = move |line: &str| log.lock().expect("a log").push(line.to_owned());
    let patience = Patience { limit: Duration::from_secs(30), tell: &tell };
    let there = loading(2).await;
    let config = settings(&there.url());
    assert_eq!(super::discover(&config, None, patience).await.expect("ready").model, "m");
    let there = loading(2).await;
    let config = config::Model::default();
    let search =
        Search { config: &config, asked: None, credentials: Credentials::default(), patience };
    let endpoint = search.usual(&[(Source::LlamaCpp, there.port)]).await.expect("ready");
    assert_eq!(endpoint.model, "m");
    let told = told.lock().expect("a log").clone();
    assert_eq!(told.len(), 2, "once for each: {told:?}");
    assert!(told[0].contains("Loading model") && told[0].contains("up to"), "{told:?}");

    let never = loading(usize::MAX).await;
    let short = Patience::silent(Duration::from_millis(100));
    let error = super::discover(&settings(&never.url()), None, short).await.expect_err("loads");
    assert!(matches!(&error, Error::Unusable { fault, .. } if fault.kind == FaultKind::Loading));
}

#[tokio::test]
async fn the_key_is_sent_to_a_server_that_lists_to_everybody_and_answers_nobody() {
    let locked = server(|seen| {
        let known = seen.header("authorization") == Some("Bearer sk-1");
        match (seen.path(), known) {
            ("/v1/models", _) => (200, list(&["m"], "llamacpp")),
            (_, false) => (401, json!({"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})),
            ("/props", true) => (200, json!({"default_generation_settings": {"n_ctx": 65536}, "total_slots": 4})),
            _ => (400, json!({"error": "no messages"})),
        }
    })
    .await;
    let ports = [(Source::LlamaCpp, locked.port)];
    let endpoint = usual(&config::Model::default(), None, &ports).await.expect("found");
    assert_eq!(endpoint.api_key, Secret::new("sk-1"));
    assert_eq!((endpoint.context, endpoint.slots), (65536, Some(4)));
    let first = &locked.seen()[0];
    assert_eq!(first.header("authorization"), None, "not before it was asked for");
}

#[tokio::test]
async fn an_embedding_model_is_never_chosen() {
    let shown = |name: &str| match name {
        "qwen3:8b" => json!({"capabilities": ["completion", "tools", "vision"]}),
        "old:7b" => json!({"capabilities": ["completion"]}),
        _ => json!({"capabilities": ["embedding"]}),
    };
    // One of them is in memory.
    let ollama = |ids: &'static [&'static str]| {
        server(move |seen| match seen.path() {
            "/v1/models" => (200, list(ids, "library")),
            "/api/ps" => (200, json!({"models": [{"name": "snowflake:latest"}]})),
            "/api/show" => (200, shown(seen.json()["model"].as_str().unwrap_or_default())),
            _ => (404, json!({})),
        })
    };
    let there = ollama(&["snowflake:latest", "old:7b", "qwen3:8b"]).await;
    let endpoint = discover(&settings(&there.url()), None).await.expect("one that can");
    assert_eq!(endpoint.model, "qwen3:8b");
    assert!(endpoint.vision);
    let there = ollama(&["snowflake:latest", "old:7b"]).await;
    let endpoint = discover(&settings(&there.url()), None).await.expect("one that chats");
    assert_eq!(endpoint.model, "old:7b");
    assert!(warned(&endpoint, "cannot call tools"));
    let there = ollama(&["snowflake:latest"]).await;
    let error = discover(&settings(&there.url()), None).await.expect_err("none").to_string();
    assert!(error.contains("offers no model"), "{error}");
}

#[tokio::test]
async fn a_routers_model_in_memory_is_chosen_and_others_have_their_context() {
    let item = |id: &str, value: &str| json!({"id": id, "owned_by": "llamacpp", "status": {"value": value, "args": ["--ctx-size", "65536"]}});
    let models = json!({"data": [item("alpha", "unloaded"), item("beta", "loaded")]});
    let router = Server::of_json(&[
        ("/v1/models", models),
        ("/props", json!({"role": "router", "default_generation_settings": {"n_ctx": 0}})),
    ])
    .await;
    let endpoint = discover(&settings(&router.url()), None).await.expect("found");
    assert_eq!((endpoint.model.as_str(), endpoint.context), ("beta", 65536));
    assert!(endpoint.warnings.is_empty(), "{:?}", endpoint.warnings);
    let endpoint = discover(&settings(&router.url()), Some("alpha")).await.expect("found");
    assert_eq!(endpoint.context, 65536);
    assert!(warned(&endpoint, "not in memory yet"));
}

#[tokio::test]
async fn pictures_are_for_models_that_see() {
    let native = json!({"data": [
        {"id": "see", "type": "vlm", "state": "loaded", "loaded_context_length": 65536},
        {"id": "read", "type": "llm", "state": "loaded", "loaded_context_length": 65536}]});
    let models = list(&["see", "read"], "organization_owner");
    let server = Server::of_json(&[("/v1/models", models), ("/api/v0/models", native)]).await;
    let of = |model: &'static str, vision| {
        let config = config::Model { vision, ..settings(&server.url()) };
        async move { discover(&config, Some(model)).await.expect("found").vision }
    };
    assert!(of("see", None).await);
    assert!(!of("read", None).await);
    assert!(of("read", Some(true)).await && !of("see", Some(false)).await, "settings win");
}
