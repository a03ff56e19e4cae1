//! Discovery against real sockets that answer as the servers do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::choose::USUAL_CONTEXT;
use super::*;
use crate::model::testing::{Server, closed_port};
use crate::model::{LimitsOrigin, Secret};

pub(super) fn list(ids: &[&str], owner: &str) -> Value {
    let data: Vec<_> =
        ids.iter().map(|id| json!({"id": id, "object": "model", "owned_by": owner})).collect();
    json!({"object": "list", "data": data})
}

pub(super) fn settings(url: &str) -> config::Model {
    config::Model {
        url: Some(url.into()),
        // A name that no environment has.
        api_key_env: "SANDBOX_MCP_TEST_NO_SUCH_KEY".into(),
        ..config::Model::default()
    }
}

pub(super) async fn usual(
    config: &config::Model,
    asked: Option<&str>,
    ports: &[(Source, u16)],
) -> Result<Endpoint, Error> {
    let credentials = Credentials {
        variable: "THE_KEY".into(),
        key: Secret::new("sk-1"),
        ..Credentials::default()
    };
    let patience = Patience::silent(Duration::ZERO);
    Search { config, asked, credentials, patience }.usual(ports).await
}

pub(super) async fn discover(
    config: &config::Model,
    model: Option<&str>,
) -> Result<Endpoint, Error> {
    super::discover(config, model, Patience::silent(Duration::from_secs(30))).await
}

pub(super) fn warned(endpoint: &Endpoint, words: &str) -> bool {
    endpoint.warnings.iter().any(|warning| warning.contains(words))
}

#[tokio::test]
async fn vllm_says_how_long_its_context_is() {
    let models = json!({"object": "list", "data": [
        {"id": "org/coder", "object": "model", "owned_by": "vllm", "max_model_len": 40960}]});
    let server = Server::of_json(&[("/v1/models", models)]).await;
    for url in [server.url(), format!("{}/", server.url()), format!("{}/v1/", server.url())] {
        let endpoint = discover(&settings(&url), None).await.expect("found");
        assert_eq!(endpoint.source, Source::Vllm);
        assert_eq!(endpoint.base_url, format!("{}/v1", server.url()));
        assert_eq!((endpoint.model.as_str(), endpoint.context), ("org/coder", 40960));
        assert_eq!(endpoint.limits, LimitsOrigin::Server);
        assert_eq!(endpoint.output, 10240);
        assert!(endpoint.warnings.is_empty(), "{:?}", endpoint.warnings);
        assert!(endpoint.api_key.is_none());
    }
}

#[tokio::test]
async fn lm_studio_prefers_what_is_loaded_and_warns_of_its_small_default() {
    let native = json!({"data": [
        {"id": "embedder", "type": "embeddings", "state": "loaded", "loaded_context_length": 2048},
        {"id": "big", "type": "llm", "state": "not-loaded", "max_context_length": 131_072},
        {"id": "small", "type": "llm", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 4096},
    ]});
    let models = list(&["embedder", "big", "small"], "organization_owner");
    let server = Server::of_json(&[("/v1/models", models), ("/api/v0/models", native)]).await;
    let endpoint = discover(&settings(&server.url()), None).await.expect("found");
    assert_eq!((endpoint.model.as_str(), endpoint.context), ("small", 4096));
    assert!(warned(&endpoint, "--context-length 32768"), "{:?}", endpoint.warnings);
    let endpoint = discover(&settings(&server.url()), Some("big")).await.expect("found");
    assert_eq!((endpoint.limits, endpoint.context), (LimitsOrigin::Assumed, USUAL_CONTEXT));
    assert!(warned(&endpoint, "not in memory yet") && warned(&endpoint, "model.context"));
}

#[tokio::test]
async fn ollama_tells_what_runs_and_else_what_its_file_sets() {
    let running = json!({"models": [{"name": "qwen3:8b", "context_length": 65536}]});
    let models = list(&["llama3:latest", "qwen3:8b"], "library");
    let shown = json!({"parameters": "num_ctx 20000", "capabilities": ["completion"]});
    let server =
        Server::of_json(&[("/v1/models", models), ("/api/ps", running), ("/api/show", shown)])
            .await;
    let endpoint = discover(&settings(&server.url()), None).await.expect("found");
    assert_eq!((endpoint.model.as_str(), endpoint.context), ("qwen3:8b", 65536));
    let endpoint = discover(&settings(&server.url()), Some("llama3")).await.expect("tag left out");
    assert_eq!((endpoint.model.as_str(), endpoint.context), ("llama3:latest", 20000));
    assert!(warned(&endpoint, "cannot call tools"));
}

#[tokio::test]
async fn llama_cpp_tells_the_context_of_a_slot() {
    let props = json!({"default_generation_settings": {"n_ctx": 8192}});
    let server =
        Server::of_json(&[("/v1/models", list(&["m.gguf"], "llamacpp")), ("/props", props)]).await;
    let endpoint = discover(&settings(&server.url()), None).await.expect("found");
    assert_eq!(
        (endpoint.source, endpoint.context, endpoint.output),
        (Source::LlamaCpp, 8192, 2048)
    );
    assert!(warned(&endpoint, "-c 32768"));
}

#[tokio::test]
async fn settings_fill_in_what_is_not_told_and_cannot_stretch_what_is() {
    let told = json!({"data": [{"id": "m", "owned_by": "vllm", "max_model_len": 32768}]});
    let told = Server::of_json(&[("/v1/models", told)]).await;
    let untold = Server::of_json(&[("/v1/models", list(&["m"], "somebody"))]).await;
    let with = |url: &str, context, output| config::Model { context, output, ..settings(url) };

    let endpoint = discover(&with(&told.url(), Some(100_000), None), None).await.expect("found");
    assert_eq!((endpoint.context, endpoint.limits), (32768, LimitsOrigin::Server));
    assert!(warned(&endpoint, "100000"));
    let endpoint =
        discover(&with(&told.url(), Some(20_000), Some(1000)), None).await.expect("found");
    assert_eq!((endpoint.context, endpoint.output), (20_000, 1000));
    let endpoint = discover(&with(&untold.url(), Some(64_000), None), None).await.expect("found");
    assert_eq!((endpoint.context, endpoint.limits), (64_000, LimitsOrigin::Configuration));
    let endpoint = discover(&with(&told.url(), None, Some(99_999)), None).await.expect("found");
    assert!(endpoint.output < endpoint.context && warned(&endpoint, "99999"));
}

#[tokio::test]
async fn a_model_that_is_not_there_is_answered_with_those_that_are() {
    let server = Server::of_json(&[("/v1/models", list(&["a", "b"], "vllm"))]).await;
    let error =
        discover(&settings(&server.url()), Some("c")).await.expect_err("unknown").to_string();
    assert!(error.contains("`c`") && error.contains("`a`, `b`"), "{error}");
    let config = config::Model { model: Some("b".into()), ..settings(&server.url()) };
    assert_eq!(discover(&config, None).await.expect("configured").model, "b");
}

#[tokio::test]
async fn a_named_server_that_fails_is_told_with_its_own_words() {
    let port = closed_port().await;
    let error =
        discover(&settings(&format!("http://127.0.0.1:{port}")), None).await.expect_err("closed");
    assert!(
        matches!(&error, Error::Unusable { fault, .. } if fault.kind == FaultKind::ConnectionRefused)
    );
    assert!(error.to_string().contains("start the model server"), "{error}");

    let locked = Server::start(|_, _, mut line| async move {
        line.json(401, &json!({"error": "Unauthorized"})).await;
    })
    .await;
    let error = discover(&settings(&locked.url()), None).await.expect_err("locked").to_string();
    assert!(error.contains("Unauthorized") && error.contains("api_key_env"), "{error}");

    let page =
        Server::start(|_, _, mut line| async move { line.reply(200, "", "<html>hi</html>").await })
            .await;
    let error = discover(&settings(&page.url()), None).await.expect_err("a page").to_string();
    assert!(error.contains("not JSON"), "{error}");

    let empty = Server::of_json(&[("/v1/models", json!({"object": "list", "data": null}))]).await;
    let error = discover(&settings(&empty.url()), None).await.expect_err("empty").to_string();
    assert!(error.contains("offers no model"), "{error}");
}

#[tokio::test]
async fn a_server_without_a_list_is_used_if_the_model_is_named() {
    let server = Server::of_json(&[]).await;
    let endpoint = discover(&settings(&server.url()), Some("m")).await.expect("on trust");
    assert_eq!(endpoint.model, "m");
    assert!(warned(&endpoint, "on trust"));
    discover(&settings(&server.url()), None).await.expect_err("which model?");
}

#[tokio::test]
async fn redirects_and_proxies_are_not_followed() {
    let other = Server::of_json(&[("/v1/models", list(&["m"], "vllm"))]).await;
    let target = other.url();
    let server = Server::start(move |_, _, mut line| {
        let target = target.clone();
        async move { line.reply(302, &format!("location: {target}/v1/models\r\n"), "").await }
    })
    .await;
    let error = discover(&settings(&server.url()), None).await.expect_err("a redirect").to_string();
    assert!(error.contains("redirects are not followed"), "{error}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_usual_ports_are_asked_together_and_the_first_in_order_wins() {
    let ollama = Server::of_json(&[("/v1/models", list(&["o:latest"], "library"))]).await;
    let vllm = Server::of_json(&[("/v1/models", list(&["v"], "vllm"))]).await;
    let page =
        Server::start(|_, _, mut line| async move { line.reply(200, "", "It works!").await }).await;
    let ports = [
        (Source::LmStudio, closed_port().await),
        (Source::LlamaCpp, page.port),
        (Source::Vllm, vllm.port),
        (Source::Ollama, ollama.port),
    ];
    let config = config::Model::default();
    let endpoint = usual(&config, None, &ports).await.expect("found");
    assert_eq!((endpoint.model.as_str(), endpoint.tried.len()), ("v", 4));
    assert!(endpoint.tried[0].outcome.contains("refused"), "{:?}", endpoint.tried);
    assert!(endpoint.tried[1].outcome.contains("not JSON"), "{:?}", endpoint.tried);
    let endpoint = usual(&config, Some("o"), &ports).await.expect("the one that has it");
    assert_eq!(endpoint.source, Source::Ollama);
    let error = usual(&config, Some("x"), &ports).await.expect_err("nobody has it").to_string();
    assert!(error.contains("`v`, `o:latest`"), "{error}");
    let only = config::Model { source: Source::Ollama, ..config::Model::default() };
    assert_eq!(usual(&only, None, &ports).await.expect("found").source, Source::Ollama);
}

#[tokio::test]
async fn nobody_found_is_told_port_by_port_within_two_seconds() {
    let silent = Server::start(|_, _, mut line| async move { line.hung_up().await }).await;
    let empty = Server::of_json(&[("/v1/models", json!({"data": null}))]).await;
    let ports = [
        (Source::Vllm, silent.port),
        (Source::LmStudio, closed_port().await),
        (Source::Ollama, empty.port),
    ];
    let started = Instant::now();
    let error =
        usual(&config::Model::default(), None, &ports).await.expect_err("nobody").to_string();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    for (_, port) in ports {
        assert!(error.contains(&format!(":{port}/v1")), "{error}");
    }
    for words in [
        "did not begin an answer",
        "refused",
        "offers no model",
        "ollama serve",
        "--model-url rehearsal",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[tokio::test]
async fn the_key_goes_only_to_a_server_that_asks_for_one() {
    let open = Server::of_json(&[("/v1/models", list(&["m"], "vllm"))]).await;
    let config = config::Model::default();
    let endpoint = usual(&config, None, &[(Source::Vllm, open.port)]).await.expect("found");
    assert!(endpoint.api_key.is_none());
    assert!(open.seen().iter().all(|seen| seen.header("authorization").is_none()));

    let locked = Server::start(|_, seen, mut line| async move {
        match seen.header("authorization") {
            Some("Bearer sk-1") => line.json(200, &list(&["m"], "vllm")).await,
            _ => line.json(401, &json!({"error": "Unauthorized"})).await,
        }
    })
    .await;
    let endpoint = usual(&config, None, &[(Source::Vllm, locked.port)]).await.expect("found");
    assert_eq!(endpoint.api_key, Secret::new("sk-1"));
}

#[tokio::test]
async fn a_server_on_ipv6_only_is_found() {
    let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else { return };
    let server = Server::start_on(listener, |_, _, mut line| async move {
        line.json(200, &list(&["six"], "vllm")).await;
    });
    let port = server.port;
    let endpoint =
        usual(&config::Model::default(), None, &[(Source::Vllm, port)]).await.expect("found");
    assert_eq!(endpoint.base_url, format!("http://[::1]:{port}/v1"));
}

#[tokio::test]
async fn the_rehearsal_is_chosen_by_either_name_and_by_nothing_else() {
    for config in [
        settings("rehearsal"),
        config::Model {
            source: Source::Rehearsal,
            model: Some("qwen".into()),
            ..config::Model::default()
        },
    ] {
        let endpoint = discover(&config, None).await.expect("always there");
        assert!(endpoint.is_rehearsal() && endpoint.output < endpoint.context);
        discover(&config, Some("rehearsal")).await.expect("its own name");
        discover(&config, Some("qwen")).await.expect_err("another's name");
    }
    let needs = config::Model { source: Source::OpenaiCompatible, ..config::Model::default() };
    let error = discover(&needs, None).await.expect_err("where?").to_string();
    assert!(error.contains("model.url"), "{error}");
}
