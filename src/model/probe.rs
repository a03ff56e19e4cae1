//! Asking an address whether a model server listens there.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

use super::upstream::unreadable;
use super::{Credentials, Error, Fault, FaultKind, Secret, address};
use crate::config::Source;

/// Most bytes of a list of models, decompressed.
const MAX_LIST: usize = 4 * 1024 * 1024;

/// The kinds of servers and where they usually listen, in the order in which they are preferred.
pub const USUAL: [(Source, u16); 5] = [
    (Source::Vllm, 8000),
    (Source::LmStudio, 1234),
    (Source::Ollama, 11434),
    (Source::FastFlowLm, 52625),
    (Source::LlamaCpp, 8080),
];

pub fn name(source: Source) -> &'static str {
    match source {
        Source::Auto => "any server",
        Source::Vllm => "vLLM",
        Source::LmStudio => "LM Studio",
        Source::Ollama => "Ollama",
        Source::FastFlowLm => "FastFlowLM",
        Source::LlamaCpp => "llama.cpp",
        Source::OpenaiCompatible => "OpenAI-compatible server",
        Source::Rehearsal => "rehearsal",
    }
}

/// A client, and what it shows to a server.
#[derive(Clone, Debug)]
pub struct Caller {
    client: Client,
    headers: HeaderMap,
    pub credentials: Credentials,
}

impl Caller {
    pub fn new(client: Client, credentials: Credentials) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        credentials.apply(&mut headers)?;
        Ok(Self { client, headers, credentials })
    }

    /// The key, where it is shown.
    pub fn key(&self) -> Option<Secret> {
        self.credentials.key.clone()
    }

    pub async fn get(&self, url: Url, limit: Duration) -> Result<Value, Fault> {
        self.ask(Method::GET, url, None, limit).await
    }

    pub async fn post(&self, url: Url, body: &Value, limit: Duration) -> Result<Value, Fault> {
        self.ask(Method::POST, url, Some(body), limit).await
    }

    /// One JSON answer of a server, bounded in time and size.
    async fn ask(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Value, Fault> {
        let mut request = self.client.request(method, url).headers(self.headers.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        let answered = tokio::time::timeout(limit, exchange(request)).await;
        let answer = answered.unwrap_or_else(|_| Err(Fault::first_byte_timeout(limit)));
        answer.map_err(|fault| self.credentials.explain(fault))
    }

    /// Whether a chat would be refused for want of a key. The question is no chat, so that it loads
    /// no model and computes nothing: a server that looks at keys does so first.
    pub async fn is_locked_out(&self, base: &Url, limit: Duration) -> bool {
        self.chat_refusal(base, limit)
            .await
            .is_some_and(|fault| fault.kind == FaultKind::Unauthorized)
    }

    /// What the server says to a request for a chat that has nothing in it.
    pub async fn chat_refusal(&self, base: &Url, limit: Duration) -> Option<Fault> {
        let url = address::join(base, "/chat/completions");
        self.post(url, &json!({}), limit).await.err()
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> Result<Value, Fault> {
    let mut response =
        request.send().await.map_err(|error| Fault::from_transport(&error, false))?;
    let status = response.status().as_u16();
    if let Some(fault) = unreadable(response.headers()) {
        return Err(fault);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| Fault::from_transport(&error, true))?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_LIST {
            return Err(Fault::new(FaultKind::NotJson, "the answer is far too long"));
        }
    }
    if !(200..300).contains(&status) {
        return Err(Fault::from_status(status, &bytes));
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| Fault::from_misfit("something that is not JSON", &bytes))
}

/// A server that answered.
#[derive(Clone, Debug)]
pub struct Found {
    pub base: Url,
    pub source: Source,
    pub offers: Vec<Offer>,
    /// What it is asked by, with the key if it wants one.
    pub caller: Caller,
}

impl Found {
    /// An answer of the server's own API, beside the common one.
    pub async fn native(&self, path: &str, limit: Duration) -> Option<Value> {
        self.caller.get(address::join(&address::root(&self.base), path), limit).await.ok()
    }
}

/// The models that a server lists.
#[derive(Clone, Debug)]
pub struct List {
    pub offers: Vec<Offer>,
    /// Whether it has the common shape. Anything may listen on port 8080, and only this shape is a
    /// model server's; where the user named the address, others are read as well.
    pub is_common: bool,
}

/// The models that the server at `base` offers.
pub async fn list(caller: &Caller, base: &Url, limit: Duration) -> Result<List, Fault> {
    let list = caller.get(address::join(base, "/models"), limit).await?;
    // An empty list is `null` at Ollama.
    let common = list.get("data").filter(|data| data.is_array() || data.is_null());
    let other = [list.get("models"), list.get("data"), Some(&list)];
    let Some(data) = common.or_else(|| other.into_iter().flatten().find(|data| data.is_array()))
    else {
        // LM Studio says 200 to a path that it does not know.
        if list.get("error").is_some_and(|error| !error.is_null()) {
            let fault = Fault::from_error_object(list.to_string().as_bytes());
            return Err(caller.credentials.explain(fault));
        }
        return Err(Fault::new(FaultKind::NotJson, "answers, but not as a model server"));
    };
    let items = data.as_array().map_or(&[][..], Vec::as_slice);
    Ok(List { offers: items.iter().filter_map(Offer::read).collect(), is_common: common.is_some() })
}

/// A model in a server's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub id: String,
    /// Context length, where the list tells it.
    pub context: Option<u64>,
    /// Most tokens of one answer, likewise.
    pub output: Option<u64>,
    /// Whether it is in memory: told by a server that lists others too.
    pub loaded: Option<bool>,
    /// The model can see pictures.
    pub vision: Option<bool>,
    /// The list says that it is for something else than chats.
    pub is_unsuited: bool,
    owner: String,
}

impl Offer {
    /// A model that nobody listed but the user named.
    pub fn named(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    fn read(item: &Value) -> Option<Self> {
        if let Some(id) = item.as_str() {
            return Some(Self::named(id));
        }
        let id = ["id", "name", "model"].iter().find_map(|key| item.get(key)?.as_str())?;
        // vLLM and SGLang, LM Studio, several proxies, LiteLLM, llama.cpp and its router.
        let context = first_number(
            item,
            &[
                "/max_model_len",
                "/loaded_context_length",
                "/context_length",
                "/context_window",
                "/max_input_tokens",
                "/meta/n_ctx",
            ],
        );
        let status = item.pointer("/status/value").and_then(Value::as_str);
        Some(Self {
            id: id.to_owned(),
            context: context.or_else(|| context_of_arguments(item.pointer("/status/args")?)),
            output: first_number(item, &["/max_output_tokens"]),
            loaded: status.map(|status| status == "loaded"),
            vision: sees(item),
            is_unsuited: is_unsuited(item),
            owner: item.get("owned_by").and_then(Value::as_str).unwrap_or_default().to_lowercase(),
        })
    }
}

pub fn first_number(value: &Value, paths: &[&str]) -> Option<u64> {
    paths.iter().find_map(|path| value.pointer(path)?.as_u64().filter(|number| *number > 0))
}

/// The context of one slot, by the arguments that llama-server's router starts a model with.
fn context_of_arguments(arguments: &Value) -> Option<u64> {
    let words: Vec<&str> = arguments.as_array()?.iter().filter_map(Value::as_str).collect();
    let value = |names: &[&str]| {
        words.iter().enumerate().find_map(|(at, word)| {
            let joined =
                || names.iter().find_map(|name| word.strip_prefix(name)?.strip_prefix('='));
            let value = if names.contains(word) { words.get(at + 1).copied() } else { joined() };
            value?.parse::<u64>().ok()
        })
    };
    // Zero is the model's own, which nobody tells before it is loaded.
    let context = value(&["--ctx-size", "-c"]).filter(|tokens| *tokens > 0)?;
    let divided = words.contains(&"--no-kv-unified");
    let slots = value(&["--parallel", "-np"]).filter(|slots| divided && *slots > 0);
    Some(context / slots.unwrap_or(1))
}

/// The words under a key, whether it holds one, a list, or names with yes or no.
fn words_under<'a>(item: &'a Value, key: &str) -> Vec<&'a str> {
    match item.pointer(key) {
        Some(Value::String(word)) => vec![word],
        Some(Value::Array(words)) => words.iter().filter_map(Value::as_str).collect(),
        Some(Value::Object(words)) => {
            let set = words.iter().filter(|(_, value)| **value == true);
            set.map(|(word, _)| word.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether the list says that a model can see pictures; `None` where it says nothing.
pub fn sees(item: &Value) -> Option<bool> {
    if let Some(told) = item.get("supports_vision").and_then(Value::as_bool) {
        return Some(told);
    }
    let places =
        ["/architecture/input_modalities", "/input_modalities", "/modalities", "/capabilities"];
    let words: Vec<&str> = places.iter().flat_map(|place| words_under(item, place)).collect();
    let pictures = |word: &&str| matches!(*word, "vision" | "image" | "multimodal");
    let sees = words.iter().any(pictures) || item.get("type").is_some_and(|kind| kind == "vlm");
    (sees || !words.is_empty()).then_some(sees)
}

/// Whether the list says that a model is for embeddings and the like.
pub fn is_unsuited(item: &Value) -> bool {
    let words: Vec<&str> = ["/type", "/task", "/mode", "/labels", "/capabilities"]
        .iter()
        .flat_map(|place| words_under(item, place))
        .collect();
    let chats = words
        .iter()
        .any(|word| matches!(*word, "completion" | "chat" | "completion_chat" | "tools"));
    let other = |word: &&str| ["embed", "rerank"].iter().any(|mark| word.contains(mark));
    !chats && words.iter().any(other)
}

/// The kind of a server, from how it signs its list and else from its port.
pub fn recognise(base: &Url, offers: &[Offer]) -> Source {
    let owner = offers.first().map_or("", |offer| offer.owner.as_str());
    match owner {
        "vllm" => Source::Vllm,
        "llamacpp" => Source::LlamaCpp,
        "library" => Source::Ollama,
        "organization_owner" | "organization-owner" => Source::LmStudio,
        other if other.contains("flm") => Source::FastFlowLm,
        other if other.contains("sglang") => Source::OpenaiCompatible,
        _ => USUAL
            .iter()
            .find(|(_, port)| base.port_or_known_default() == Some(*port))
            .map_or(Source::OpenaiCompatible, |(source, _)| *source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_tells_what_it_can() {
        let router = |args: &[&str]| {
            let item = json!({"id": "m", "status": {"value": "unloaded", "args": args}});
            let offer = Offer::read(&item).expect("an offer");
            assert_eq!(offer.loaded, Some(false));
            offer.context
        };
        assert_eq!(router(&["llama-server", "--ctx-size", "65536"]), Some(65536));
        assert_eq!(router(&["-c", "32768", "--parallel", "4", "--no-kv-unified"]), Some(8192));
        assert_eq!(router(&["--ctx-size=32768", "-np", "4"]), Some(32768));
        assert_eq!(router(&["-c", "0"]), None);
        let lite = json!({"id": "m", "max_input_tokens": 16384, "max_output_tokens": 4096});
        let lite = Offer::read(&lite).expect("an offer");
        assert_eq!((lite.context, lite.output), (Some(16384), Some(4096)));
        for (item, vision, unsuited) in [
            (json!({"id": "a"}), None, false),
            (json!({"id": "a", "type": "vlm"}), Some(true), false),
            (json!({"id": "a", "type": "embeddings"}), None, true),
            (json!({"id": "a", "capabilities": ["completion", "vision"]}), Some(true), false),
            (json!({"id": "a", "capabilities": ["embedding"]}), Some(false), true),
            (
                json!({"id": "a", "capabilities": {"completion_chat": true, "vision": false}}),
                Some(false),
                false,
            ),
            (
                json!({"id": "a", "architecture": {"input_modalities": ["text", "image"]}}),
                Some(true),
                false,
            ),
        ] {
            let offer = Offer::read(&item).expect("an offer");
            assert_eq!((offer.vision, offer.is_unsuited), (vision, unsuited), "{item}");
        }
    }
}
