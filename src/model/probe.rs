//! Asking an address whether a model server listens there.

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, Url};
use serde_json::Value;

use super::upstream::bearer;
use super::{Fault, FaultKind, Secret, address};
use crate::config::Source;

/// Most bytes of a list of models.
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

/// A model in a server's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub id: String,
    /// Context length, where the list tells it.
    pub context: Option<u64>,
    owner: String,
}

impl Offer {
    /// A model that nobody listed but the user named.
    pub fn named(id: &str) -> Self {
        Self { id: id.to_owned(), context: None, owner: String::new() }
    }
}

/// A server that answered.
#[derive(Clone, Debug)]
pub struct Found {
    pub base: Url,
    pub source: Source,
    pub offers: Vec<Offer>,
    /// The key, if the server asked for one.
    pub key: Option<Secret>,
}

/// One JSON answer of a server, bounded in time and size.
pub async fn get_json(
    client: &Client,
    method: Method,
    url: Url,
    body: Option<Value>,
    key: Option<&Secret>,
    limit: Duration,
) -> Result<Value, Fault> {
    let mut request = client.request(method, url);
    if let Some(value) = key.and_then(|key| bearer(key).ok()) {
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(body) = body {
        request = request.json(&body);
    }
    let exchange = async {
        let mut response =
            request.send().await.map_err(|error| Fault::from_transport(&error, false))?;
        let status = response.status().as_u16();
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
    };
    match tokio::time::timeout(limit, exchange).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Fault::first_byte_timeout(limit)),
    }
}

/// The models that the server at `base` offers.
pub async fn offers(
    client: &Client,
    base: &Url,
    key: Option<&Secret>,
    limit: Duration,
) -> Result<Vec<Offer>, Fault> {
    let url = address::join(base, "/models");
    let list = get_json(client, Method::GET, url, None, key, limit).await?;
    // Anything may listen on port 8080; only this shape is a model server's. (An empty list is
    // `null` at Ollama.)
    let Some(data) = list.get("data").filter(|data| data.is_array() || data.is_null()) else {
        return Err(Fault::new(FaultKind::NotJson, "answers, but not as a model server"));
    };
    let items = data.as_array().map_or(&[][..], Vec::as_slice);
    Ok(items.iter().filter_map(offer).collect())
}

fn offer(item: &Value) -> Option<Offer> {
    let id = item.get("id")?.as_str()?;
    // vLLM and SGLang, LM Studio, several proxies, llama.cpp.
    let context = [
        "/max_model_len",
        "/loaded_context_length",
        "/context_length",
        "/context_window",
        "/meta/n_ctx",
    ]
    .iter()
    .find_map(|path| item.pointer(path)?.as_u64())
    .filter(|length| *length > 0);
    let owner = item.get("owned_by").and_then(Value::as_str).unwrap_or_default();
    Some(Offer { id: id.to_owned(), context, owner: owner.to_lowercase() })
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
