//! The stdio server through mcpo, as an `OpenAPI` tool server.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::*;

const KEY: &str = "a key of this test";

struct Mcpo {
    running: Running,
    base: String,
}

impl Mcpo {
    async fn start(python: &Python, house: &House) -> Self {
        let port = free_port();
        let mut command = Command::new(python.program("python"));
        command.arg(python.program("mcpo"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--api-key", KEY]);
        command.args(["--strict-auth", "--", BINARY]);
        house.product.furnish(&mut command);
        command.current_dir(house.workspace.path());
        let mut running = house.product.start(command);
        running.close_stdin();
        running.stderr.says("Uvicorn running on").await;
        Self { running, base: format!("http://127.0.0.1:{port}") }
    }

    async fn ask(&self, path: &str, key: &str, body: Option<&Value>) -> (u16, Value) {
        let method = if body.is_some() { "POST" } else { "GET" };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default())))
            .expect("sound");
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let answer = client.request(request).await.expect("mcpo answers");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Ends it as a service manager does, and everything of it with it.
    async fn stop(self, house: House) {
        self.running.signal(Signal::TERM);
        self.running.wait_within(SOON).await;
        house.close(None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_server_by_mcpo_runs_a_task_and_tells_of_failures() {
    let Some(python) = Python::mcpo() else { return };
    let house = House::new([
        ("note", Script::bash("echo hello > note.txt").then_say("Written.")),
        ("fail", Script::new(Reply::error(400, "no such thing"))),
    ])
    .await;
    let mcpo = Mcpo::start(&python, &house).await;

    let (status, api) = mcpo.ask("/openapi.json", KEY, None).await;
    assert_eq!(status, 200);
    assert!(api["paths"]["/run_in_sandbox"]["post"].is_object(), "{api:#}");
    let (status, told) = mcpo.ask("/run_in_sandbox", KEY, Some(&json!({"task": "note"}))).await;
    assert_eq!((status, &told["status"]), (200, &json!("completed")), "{told:#}");
    assert_eq!(told["answer"], "Written.");
    assert_eq!(house.workspace.read("note.txt"), "hello\n");

    let (status, told) = mcpo.ask("/run_in_sandbox", KEY, Some(&json!({"task": "fail"}))).await;
    assert_eq!(status, 500, "{told:#}");
    assert!(told.to_string().contains("no such thing"), "{told:#}");
    let (status, told) = mcpo.ask("/run_in_sandbox", "x", Some(&json!({"task": "note"}))).await;
    assert!([401, 403].contains(&status), "{status} {told:#}");
    mcpo.stop(house).await;
}
