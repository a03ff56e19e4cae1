//! A gateway in front of a scripted server, and an agent that talks to it over its real socket.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Egress, Gateway, Limits, Options, Traffic};
use crate::config::Source;
use crate::model::{Endpoint, Fault, Secret};

pub const KEY: &str = "sk-very-secret-value";

pub struct Bench {
    pub gateway: Gateway,
    pub place: TempDir,
    client: reqwest::Client,
}

pub fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        source: Source::OpenaiCompatible,
        base_url: format!("{url}/v1"),
        model: "ours".into(),
        api_key: Secret::new(KEY),
        ..Endpoint::rehearsal()
    }
}

/// Short enough for tests, long enough for a busy machine.
pub fn limits() -> Limits {
    Limits {
        first_byte_timeout: Duration::from_millis(600),
        stall_timeout: Duration::from_millis(400),
        header_time: Duration::from_millis(400),
        body_time: Duration::from_millis(400),
        ..Limits::default()
    }
}

impl Bench {
    pub async fn open(url: &str) -> Self {
        Self::with(endpoint(url), limits()).await
    }

    pub async fn with(endpoint: Endpoint, limits: Limits) -> Self {
        let place = tempfile::tempdir().expect("a temporary folder");
        let folder = place.path().join("run");
        let options = Options { folder, owner: None, endpoint, limits, egress: Egress::default() };
        let gateway = Gateway::open(options).await.expect("a gateway");
        let client = crate::model::testing::client_on(&gateway.folder().join("model.sock"));
        Self { gateway, place, client }
    }

    pub async fn post(&self, body: &Value) -> reqwest::Response {
        let request = self.client.post("http://sandbox/v1/chat/completions").body(body.to_string());
        request.header("authorization", "Bearer from-inside").send().await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.client.get(format!("http://sandbox{path}")).send().await.expect("an answer")
    }

    /// A streamed question; the whole answer.
    pub async fn ask(&self) -> (u16, String) {
        let response = self.post(&question()).await;
        let status = response.status().as_u16();
        (status, response.text().await.expect("a text"))
    }

    pub async fn dial(&self) -> UnixStream {
        UnixStream::connect(self.gateway.folder().join("model.sock")).await.expect("a connection")
    }

    /// Sends bytes as they are and returns all that comes back until the other side closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.dial().await;
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _ = timeout(Duration::from_secs(5), reading).await.expect("the gateway hangs");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Every event so far.
    pub fn told(&mut self) -> Vec<Traffic> {
        std::iter::from_fn(|| self.gateway.try_next_event()).collect()
    }

    /// The one fault so far.
    pub fn fault(&mut self) -> Fault {
        let faults: Vec<_> = self
            .told()
            .into_iter()
            .filter_map(|event| match event {
                Traffic::Faulted(fault) => Some(fault),
                _ => None,
            })
            .collect();
        let record = self.gateway.record();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(record.last_fault.as_ref(), faults.first());
        assert_eq!(record.faults, 1);
        faults.into_iter().next().expect("one fault")
    }
}

pub fn question() -> Value {
    json!({"model": "theirs", "stream": true, "messages": [{"role": "user", "content": "hi"}]})
}
