//! The official conformance suite, every scenario of every version, check by check.
//!
//! Most of its scenarios call tools, prompts and resources of a server that is made for them. What
//! fails for that reason is listed here, by name and with the reason; a check that fails and is not
//! listed, one that is listed and passes, and a scenario that nobody has looked at each fail the test.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::common::clients::Npm;
use crate::common::{Model, Product, Script, Web, Workspace};

/// The first that knows 2026-07-28. Pinned, so that a test fails for our changes and not for others'.
const SUITE: &str = "@modelcontextprotocol/conformance@0.2.0-alpha.12";

const VERSIONS: [&str; 3] = ["2025-06-18", "2025-11-25", "2026-07-28"];

/// What passes whole, in each version that has it.
const PASS: &[&str] = &[
    "caching",
    "dns-rebinding-protection",
    "http-header-validation",
    "input-required-result-unsupported-methods",
    "input-required-result-validate-input",
    "logging-set-level",
    "ping",
    "prompts-list",
    "resources-list",
    "sep-2164-resource-not-found",
    "server-initialize",
    "server-session-lifecycle",
    "server-sse-multiple-streams",
    "tools-list",
];

const NO_SUCH_TOOL: &str = "it calls a tool that only the suite's own example server has";
const NO_SUCH_PROMPT: &str = "it uses a prompt that only the suite's own example server has";
const NO_SUCH_RESOURCE: &str = "it reads a resource that only the suite's own example server has";
const NO_SUBSCRIPTION: &str = "the server declares no subscriptions: it tells of a run by its end";
const NO_CUSTOM_HEADERS: &str = "no tool wants an argument repeated in a header";

/// What cannot pass: the scenario, its checks that do not, and why.
const INAPPLICABLE: &[(&str, &[&str], &str)] = &[
    // The specification wants an error for a prompt that is not there, which is what it gets.
    ("completion-complete", &["completion-complete"], NO_SUCH_PROMPT),
    ("elicitation-sep1034-defaults", &["elicitation-sep1034-general"], NO_SUCH_TOOL),
    ("elicitation-sep1330-enums", &["elicitation-sep1330-general"], NO_SUCH_TOOL),
    (
        "http-custom-header-server-validation",
        &[
            "sep-2243-server-no-xmcp-tool",
            "sep-2243-server-decode-base64",
            "sep-2243-server-validate-param-match",
            "sep-2243-server-reject-invalid-param-chars",
            "sep-2243-server-reject-param-mismatch",
        ],
        NO_CUSTOM_HEADERS,
    ),
    ("input-required-result-basic-elicitation", &["sep-2322-elicitation-incomplete"], NO_SUCH_TOOL),
    ("input-required-result-basic-list-roots", &["sep-2322-list-roots-incomplete"], NO_SUCH_TOOL),
    ("input-required-result-basic-sampling", &["sep-2322-sampling-incomplete"], NO_SUCH_TOOL),
    (
        "input-required-result-capability-check",
        &["sep-2322-respect-client-capabilities"],
        NO_SUCH_TOOL,
    ),
    (
        "input-required-result-ignore-extra-params",
        &["sep-2322-ignore-unexpected-params"],
        NO_SUCH_TOOL,
    ),
    (
        "input-required-result-missing-input-response",
        &["sep-2322-missing-response-rerequests"],
        NO_SUCH_TOOL,
    ),
    ("input-required-result-multi-round", &["sep-2322-multi-round-r1"], NO_SUCH_TOOL),
    (
        "input-required-result-multiple-input-requests",
        &["sep-2322-multiple-inputs-incomplete"],
        NO_SUCH_TOOL,
    ),
    ("input-required-result-non-tool-request", &["sep-2322-non-tool-incomplete"], NO_SUCH_PROMPT),
    ("input-required-result-request-state", &["sep-2322-request-state-incomplete"], NO_SUCH_TOOL),
    ("input-required-result-result-type", &["sep-2322-result-type-included"], NO_SUCH_TOOL),
    ("input-required-result-tampered-state", &["sep-2322-reject-tampered-state"], NO_SUCH_TOOL),
    ("json-schema-2020-12", &["json-schema-2020-12-tool-found"], NO_SUCH_TOOL),
    ("prompts-get-embedded-resource", &["prompts-get-embedded-resource"], NO_SUCH_PROMPT),
    ("prompts-get-simple", &["prompts-get-simple"], NO_SUCH_PROMPT),
    ("prompts-get-with-args", &["prompts-get-with-args"], NO_SUCH_PROMPT),
    ("prompts-get-with-image", &["prompts-get-with-image"], NO_SUCH_PROMPT),
    ("resources-read-binary", &["resources-read-binary"], NO_SUCH_RESOURCE),
    ("resources-read-text", &["resources-read-text"], NO_SUCH_RESOURCE),
    ("resources-subscribe", &["resources-subscribe"], NO_SUBSCRIPTION),
    ("resources-templates-read", &["resources-templates-read"], NO_SUCH_RESOURCE),
    ("resources-unsubscribe", &["resources-unsubscribe"], NO_SUBSCRIPTION),
    ("server-sse-polling", &["server-sse-disconnect-resume"], NO_SUCH_TOOL),
    (
        "server-stateless",
        &[
            "sep-2575-server-rejects-undeclared-capability",
            "sep-2575-missing-capability-http-400",
            "sep-2575-http-server-no-independent-requests-on-stream",
            "sep-2575-server-no-log-without-loglevel",
        ],
        NO_SUCH_TOOL,
    ),
    (
        "server-stateless",
        &[
            "sep-2575-server-sends-subscription-ack",
            "sep-2575-server-tags-subscription-id",
            "sep-2575-server-honors-notification-filter",
            "sep-2575-server-sends-prompts-list-changed-on-subscription",
            "sep-2575-server-sends-tools-list-changed-on-subscription",
        ],
        NO_SUBSCRIPTION,
    ),
    ("tools-call-audio", &["tools-call-audio"], NO_SUCH_TOOL),
    ("tools-call-elicitation", &["tools-call-elicitation"], NO_SUCH_TOOL),
    ("tools-call-embedded-resource", &["tools-call-embedded-resource"], NO_SUCH_TOOL),
    ("tools-call-error", &["tools-call-error"], NO_SUCH_TOOL),
    ("tools-call-image", &["tools-call-image"], NO_SUCH_TOOL),
    ("tools-call-mixed-content", &["tools-call-mixed-content"], NO_SUCH_TOOL),
    ("tools-call-sampling", &["tools-call-sampling"], NO_SUCH_TOOL),
    ("tools-call-simple-text", &["tools-call-simple-text"], NO_SUCH_TOOL),
    ("tools-call-with-logging", &["tools-call-with-logging"], NO_SUCH_TOOL),
    ("tools-call-with-progress", &["tools-call-with-progress"], NO_SUCH_TOOL),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_passes_or_is_listed_with_its_reason() {
    let Some(npm) = Npm::with("npm-conformance", &[SUITE]) else { return };
    let front = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = front.local_addr().expect("its address");
    // The suite calls us by the name of what stands in front.
    let port = address.port();
    let names = format!("[http]\nallowed_hosts = [\"localhost:{port}\", \"127.0.0.1:{port}\"]\n");
    let model = Model::start(Script::say("Done.")).await;
    let product = Product::with_model(&model).await.config(&names);
    let workspace = Workspace::new();
    let web = Web::start(&product, &workspace).await;
    // Some scenarios read the first resource that is listed: a run.
    let run = web.greeted().await.tool("run_in_sandbox", json!({"task": "be listed"})).await;
    assert_eq!(run["structuredContent"]["status"], "completed", "{run:#}");
    let bearer = HeaderValue::from_str(&format!("Bearer {}", web.token)).expect("a header");
    let standing = tokio::spawn(bring_the_token(front, web.address, bearer));

    let expected = expected();
    let mut unseen: BTreeSet<_> = expected.keys().cloned().collect();
    let mut wrong = Vec::new();
    for version in VERSIONS {
        let results = product.folder("data").join(version);
        let mut command = Command::from(npm.command("conformance"));
        product.furnish(&mut command);
        command
            .args(["server", "--suite", "all", "--spec-version", version])
            .args(["--url", &format!("http://localhost:{port}/mcp"), "--output-dir"])
            .arg(&results)
            .current_dir(product.folder("data"));
        let mut running = product.start(command);
        running.close_stdin();
        let told = running.wait().await;
        assert!(told.stdout.contains("=== SUMMARY ==="), "{version}: {told:#?}");
        for (scenario, failed) in read(&results) {
            unseen.remove(&scenario);
            if expected.get(&scenario) != Some(&failed) {
                wrong.push((version, scenario, failed));
            }
        }
    }
    standing.abort();
    assert!(wrong.is_empty(), "not as listed, with the checks that do not pass: {wrong:#?}");
    assert!(unseen.is_empty(), "listed and not run: {unseen:?}");
    web.stop().await.assert_code(0);
    product.check_nothing_left().await;
}

/// Each scenario with the checks of it that do not pass.
fn expected() -> BTreeMap<String, BTreeSet<String>> {
    let mut expected: BTreeMap<_, BTreeSet<String>> =
        PASS.iter().map(|name| ((*name).to_owned(), BTreeSet::new())).collect();
    for (name, checks, _reason) in INAPPLICABLE {
        let known = expected.entry((*name).to_owned()).or_default();
        known.extend(checks.iter().map(|check| (*check).to_owned()));
    }
    expected
}

/// Every scenario that was run, with its checks that failed, were warned of or were skipped.
fn read(results: &std::path::Path) -> Vec<(String, BTreeSet<String>)> {
    let folders = std::fs::read_dir(results).expect("results").flatten();
    let scenarios = folders.map(|folder| {
        let name = folder.file_name().into_string().expect("UTF-8");
        // `server-NAME-2026-11-21T19-30-52-886Z`
        let name = name.strip_prefix("server-").and_then(|name| name.get(..name.len() - 25));
        let checks = std::fs::read(folder.path().join("checks.json")).expect("checks");
        let checks: Vec<Value> = serde_json::from_slice(&checks).expect("JSON");
        assert!(!checks.is_empty(), "{name:?} checked nothing");
        let failed = checks.iter().filter(|check| {
            !["SUCCESS", "INFO"].contains(&check["status"].as_str().unwrap_or_default())
        });
        let failed = failed.map(|check| check["id"].as_str().expect("an id").to_owned());
        (name.expect("a name").to_owned(), failed.collect())
    });
    scenarios.collect()
}

/// The suite cannot send a token, so this stands in front and adds it to everything.
async fn bring_the_token(front: TcpListener, server: SocketAddr, bearer: HeaderValue) {
    while let Ok((stream, _)) = front.accept().await {
        let bearer = bearer.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(request, server, bearer.clone()));
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn pass(
    mut request: Request<Incoming>,
    server: SocketAddr,
    bearer: HeaderValue,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    request.headers_mut().insert("authorization", bearer);
    let sent = async {
        let stream = TcpStream::connect(server).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        sender.send_request(request).await.ok()
    };
    if let Some(response) = sent.await {
        return Ok(response.map(BodyExt::boxed));
    }
    let nothing = Empty::new().map_err(|never| match never {}).boxed();
    let mut response = Response::new(nothing);
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    Ok(response)
}
