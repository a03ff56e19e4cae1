//! A model server that says what a script tells it to, over real HTTP and real SSE.
//!
//! A [`Script`] is a list of [`Reply`]s, given one after the other to the agent's requests. Side
//! requests (titles, capability probes) are answered sensibly and use up nothing of the script.
//! A [`Gate`] holds a reply back until the test opens it, so that order is proven without clocks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use script::*;

use super::PATIENCE;

mod script;

/// `std`'s mutex without the poison: a panicking test has already failed.
mod parking {
    use std::sync::{MutexGuard, PoisonError};

    #[derive(Debug, Default)]
    pub struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

/// What a request wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The agent asks for its next step.
    Step,
    /// A chat request without the agent's tools: a title, a capability probe.
    Side,
    /// The list of models.
    Models,
    Other,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    pub purpose: Purpose,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All that messages of `role` say.
    pub fn said_by(&self, role: &str) -> String {
        let messages = self.body["messages"].as_array().map_or(&[][..], Vec::as_slice);
        let texts =
            messages.iter().filter(|message| message["role"] == role).map(
                |message| match &message["content"] {
                    Value::String(text) => text.clone(),
                    Value::Array(parts) => parts
                        .iter()
                        .filter_map(|part| part["text"].as_str())
                        .collect::<Vec<_>>()
                        .join(""),
                    _ => String::new(),
                },
            );
        texts.collect::<Vec<_>>().join("\n")
    }

    fn is_the_agents(&self) -> bool {
        self.tools().any(|tool| matches!(tool, "bash" | "read" | "edit"))
    }

    pub fn tools(&self) -> impl Iterator<Item = &str> {
        let tools = self.body["tools"].as_array().map_or(&[][..], Vec::as_slice);
        tools.iter().filter_map(|tool| tool["function"]["name"].as_str())
    }
}

struct Route {
    needle: String,
    script: Script,
    used: usize,
}

pub(super) struct State {
    routes: Mutex<Vec<Route>>,
    requests: Mutex<Vec<Request>>,
    changed: tokio::sync::Notify,
    hang_ups: Mutex<usize>,
    key: Option<String>,
    context: u64,
    models: Option<Reply>,
    side: Option<Reply>,
    pub(super) gone: CancellationToken,
    pub(super) vanished: AtomicBool,
}

impl State {
    /// Records the request and decides on its reply.
    pub(super) fn receive(&self, mut request: Request) -> Reply {
        request.purpose = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/models") => Purpose::Models,
            ("POST", "/v1/chat/completions") if request.is_the_agents() => Purpose::Step,
            ("POST", "/v1/chat/completions") => Purpose::Side,
            _ => Purpose::Other,
        };
        let reply = self.decide(&request);
        self.requests.lock().push(request);
        self.changed.notify_waiters();
        reply
    }

    fn decide(&self, request: &Request) -> Reply {
        if let Some(key) = &self.key
            && request.header("authorization") != Some(&format!("Bearer {key}"))
        {
            return Reply::error(401, "Incorrect API key provided");
        }
        match request.purpose {
            Purpose::Models => self.models.clone().unwrap_or_else(|| Reply::Plain {
                status: 200,
                headers: vec![],
                body: json!({"object": "list", "data": [{
                    "id": MODEL, "object": "model", "owned_by": "vllm", "max_model_len": self.context,
                }]})
                .to_string(),
            }),
            Purpose::Step => self.next_of_script(&request.said_by("user")),
            Purpose::Side => self.side.clone().unwrap_or_else(|| side_reply(request)),
            Purpose::Other => Reply::error(404, "Not Found"),
        }
    }

    fn next_of_script(&self, task: &str) -> Reply {
        let mut routes = self.routes.lock();
        let Some(route) = routes.iter_mut().find(|route| task.contains(&route.needle)) else {
            return Reply::error(400, "no route of the script fits this task");
        };
        let last = route.script.0.len() - 1;
        let reply = route.script.0[route.used.min(last)].clone();
        route.used += 1;
        reply
    }

    pub(super) fn hung_up(&self) {
        *self.hang_ups.lock() += 1;
        self.changed.notify_waiters();
    }
}

/// A title, or for a probe with tools of its own a call of the first one and then some words.
fn side_reply(request: &Request) -> Reply {
    let asked_back = !request.said_by("tool").is_empty();
    match request.tools().next() {
        Some(tool) if !asked_back => {
            let name = tool.to_owned();
            let schema = &request.body["tools"][0]["function"]["parameters"];
            Reply::call(&name, example_of(schema))
        }
        _ => Reply::say("A scripted title"),
    }
}

/// The smallest arguments that a JSON schema asks for.
fn example_of(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let names = required.iter().filter_map(Value::as_str);
            let pairs =
                names.map(|name| (name.to_owned(), example_of(&schema["properties"][name])));
            Value::Object(pairs.collect())
        }
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        _ => schema["enum"][0].as_str().map_or_else(|| json!("x"), |word| json!(word)),
    }
}

/// The id of the one model.
pub const MODEL: &str = "scripted-model";

/// A running model server on a loopback port; it ends when dropped.
pub struct Model {
    pub address: std::net::SocketAddr,
    state: Arc<State>,
}

/// How to start one that is not the usual.
#[derive(Default)]
pub struct Options {
    /// Requests without this key get 401.
    pub key: Option<String>,
    /// `max_model_len`.
    pub context: Option<u64>,
    /// What `GET /v1/models` gets instead of the list.
    pub models: Option<Reply>,
    /// What side requests get instead of a title or a tool call.
    pub side: Option<Reply>,
    /// Where it listens, unless on this machine's loopback.
    pub listener: Option<std::net::TcpListener>,
}

impl Model {
    pub async fn start(script: Script) -> Self {
        Self::routed([("", script)]).await
    }

    /// The first route whose needle is in the user's words gets the request.
    pub async fn routed<const N: usize>(routes: [(&str, Script); N]) -> Self {
        Self::with(Options::default(), routes).await
    }

    pub async fn with<const N: usize>(options: Options, routes: [(&str, Script); N]) -> Self {
        let routes = routes.map(|(needle, script)| {
            assert!(!script.0.is_empty(), "an empty script");
            Route { needle: needle.into(), script, used: 0 }
        });
        let state = Arc::new(State {
            routes: Mutex::new(Vec::from(routes)),
            requests: Mutex::default(),
            changed: tokio::sync::Notify::new(),
            hang_ups: Mutex::default(),
            key: options.key,
            context: options.context.unwrap_or(131_072),
            models: options.models,
            side: options.side,
            gone: CancellationToken::new(),
            vanished: AtomicBool::new(false),
        });
        let address = super::wire::serve(state.clone(), options.listener).await;
        Self { address, state }
    }

    /// The address of a port on which nothing listens.
    pub fn refused_url() -> String {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
        format!("http://{}/v1", port.expect("a loopback port"))
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().clone()
    }

    /// The agent's own requests so far.
    pub fn steps(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.purpose == Purpose::Step).collect()
    }

    /// Waits until the agent has asked for its `count`th step and gives that request.
    pub async fn step(&self, count: usize) -> Request {
        self.until(&format!("step {count} of the agent"), || self.steps().get(count - 1).cloned())
            .await
    }

    /// Waits until a client has left in the middle of an answer.
    pub async fn left_by_a_client(&self) {
        self.until("a client that hangs up", || (*self.state.hang_ups.lock() > 0).then_some(()))
            .await;
    }

    /// What the tools answered, all of it that reached the model.
    pub fn tool_results(&self) -> String {
        self.steps().last().map(|request| request.said_by("tool")).unwrap_or_default()
    }

    async fn until<T>(&self, what: &str, probe: impl Fn() -> Option<T>) -> T {
        let wait = async {
            loop {
                let changed = self.state.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(value) = probe() {
                    return value;
                }
                changed.await;
            }
        };
        let seen = || {
            let requests = self.requests();
            requests
                .iter()
                .map(|r| format!("{} {} {:?}", r.method, r.path, r.purpose))
                .collect::<Vec<_>>()
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| {
            panic!("the model server waited in vain for {what}; it saw {:?}", seen())
        })
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.state.gone.cancel();
    }
}
