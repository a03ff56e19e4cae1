//! What the servers tell about themselves beyond the common list of models: which model is in
//! memory, what each can do, and how much context it was really loaded with. Best effort: a server
//! that does not answer here is used all the same.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::address;
use super::probe::{Found, Offer, first_number as number, is_unsuited, sees};
use crate::config::Source;

/// Ours is a local server that has just answered, so this is long.
const PATIENCE: Duration = Duration::from_millis(600);
/// Most models that are asked one by one what they can do.
const MOST: usize = 24;

/// What a server tells about its models.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The models in memory, with the context they were loaded with.
    pub loaded: Vec<(String, Option<u64>)>,
    /// Models that cannot chat.
    pub unsuited: Vec<String>,
    /// Models that can see pictures.
    pub seeing: Vec<String>,
    /// Whether the server says at all what is in memory.
    pub tells: bool,
}

/// What a server tells about one model, where it tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Traits {
    pub context: Option<u64>,
    pub vision: Option<bool>,
    pub tools: Option<bool>,
    pub is_unsuited: bool,
    /// How many requests are worked on at once.
    pub slots: Option<u64>,
    /// The model was put out of memory, and the next request brings it back.
    pub sleeps: bool,
}

pub async fn state(found: &Found) -> State {
    match found.source {
        Source::LmStudio => {
            found.native("/api/v0/models", PATIENCE).await.map(|list| lm_studio(&list))
        }
        Source::Ollama | Source::FastFlowLm => {
            found.native("/api/ps", PATIENCE).await.map(|list| ollama(&list))
        }
        _ => None,
    }
    .unwrap_or_else(|| listed(&found.offers))
}

/// What is known of one model beside the lists.
pub async fn traits(found: &Found, model: &str) -> Traits {
    match found.source {
        Source::LlamaCpp => found
            .native("/props", PATIENCE)
            .await
            .map(|props| llama_cpp(&props))
            .unwrap_or_default(),
        Source::Ollama => {
            let url = address::join(&address::root(&found.base), "/api/show");
            let shown = found.caller.post(url, &json!({ "model": model }), PATIENCE).await;
            shown.map(|shown| ollama_show(&shown)).unwrap_or_default()
        }
        _ => Traits::default(),
    }
}

/// The first of `offers` that an agent can work with, as far as the server tells: one that calls
/// tools, else one that chats.
pub async fn choose<'a>(found: &Found, offers: &[&'a Offer]) -> Option<&'a Offer> {
    if found.source != Source::Ollama {
        return offers.first().copied();
    }
    let asked = &offers[..offers.len().min(MOST)];
    let told = join_all(asked.iter().map(|offer| traits(found, &offer.id))).await;
    let first = |fit: fn(&Traits) -> bool| told.iter().position(fit).map(|at| asked[at]);
    first(|model| model.tools == Some(true)).or_else(|| first(|model| !model.is_unsuited))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What the common list itself tells, as a router's does.
fn listed(offers: &[Offer]) -> State {
    let loaded = offers.iter().filter(|offer| offer.loaded == Some(true));
    State {
        loaded: loaded.map(|offer| (offer.id.clone(), offer.context)).collect(),
        tells: offers.iter().any(|offer| offer.loaded.is_some()),
        ..State::default()
    }
}

fn lm_studio(list: &Value) -> State {
    let mut state =
        State { tells: list.get("data").is_some_and(Value::is_array), ..State::default() };
    for item in items(list, "data") {
        let id = text(item, "id").to_owned();
        if sees(item) == Some(true) {
            state.seeing.push(id.clone());
        }
        if text(item, "type") == "embeddings" {
            state.unsuited.push(id);
        } else if text(item, "state") == "loaded" {
            state.loaded.push((id, number(item, &["/loaded_context_length"])));
        }
    }
    state
}

fn ollama(list: &Value) -> State {
    let loaded = items(list, "models")
        .iter()
        .map(|item| {
            let name = Some(text(item, "name")).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| text(item, "model"));
            (name.to_owned(), number(item, &["/context_length"]))
        })
        .filter(|(name, _)| !name.is_empty())
        .collect();
    let tells = list.get("models").is_some_and(Value::is_array);
    State { loaded, tells, ..State::default() }
}

fn llama_cpp(props: &Value) -> Traits {
    Traits {
        context: number(props, &["/default_generation_settings/n_ctx", "/n_ctx"]),
        vision: props.pointer("/modalities/vision").and_then(Value::as_bool),
        slots: number(props, &["/total_slots"]),
        sleeps: props.get("is_sleeping") == Some(&Value::Bool(true)),
        ..Traits::default()
    }
}

/// `num_ctx` as set in the model's own file, and what the model can do.
fn ollama_show(shown: &Value) -> Traits {
    let context = text(shown, "parameters").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok()).flatten()
    });
    let abilities = items(shown, "capabilities");
    let can = |what: &str| abilities.iter().any(|ability| ability == what);
    Traits {
        context,
        vision: sees(shown),
        tools: (!abilities.is_empty()).then(|| can("tools")),
        is_unsuited: is_unsuited(shown),
        ..Traits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_studio_tells_what_is_loaded_and_what_sees() {
        let list = json!({"object": "list", "data": [
            {"id": "a", "type": "llm", "state": "not-loaded", "max_context_length": 131_072},
            {"id": "b", "type": "vlm", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 16384},
            {"id": "e", "type": "embeddings", "state": "loaded", "max_context_length": 2048},
        ]});
        let state = lm_studio(&list);
        assert_eq!(state.loaded, [("b".to_owned(), Some(16384))]);
        assert_eq!(state.unsuited, ["e"]);
        assert_eq!(state.seeing, ["b"]);
    }

    #[test]
    fn ollama_tells_what_runs_and_what_its_file_sets() {
        let running =
            json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "context_length": 8192}]});
        assert_eq!(ollama(&running).loaded, [("qwen3:8b".to_owned(), Some(8192))]);
        assert!(ollama(&json!({"models": []})).tells);
        assert!(!ollama(&json!({"error": "x"})).tells);
        let shown = json!({"parameters": "stop \"x\"\nnum_ctx                        65536", "capabilities": ["completion", "vision"]});
        let traits = ollama_show(&shown);
        assert_eq!((traits.context, traits.vision), (Some(65536), Some(true)));
        assert_eq!((traits.tools, traits.is_unsuited), (Some(false), false));
        assert!(ollama_show(&json!({"capabilities": ["embedding"]})).is_unsuited);
        assert_eq!(ollama_show(&json!({})), Traits::default());
    }

    #[test]
    fn llama_cpp_tells_its_slots_and_whether_it_sleeps() {
        let props = json!({"default_generation_settings": {"n_ctx": 20000}, "total_slots": 4,
            "modalities": {"vision": true, "audio": false}, "is_sleeping": true});
        let traits = llama_cpp(&props);
        assert_eq!(
            (traits.context, traits.slots, traits.vision),
            (Some(20000), Some(4), Some(true))
        );
        assert!(traits.sleeps);
    }
}
