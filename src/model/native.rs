//! What the servers tell about themselves beyond the common list of models: which model is in
//! memory, and how much context it was really loaded with. Best effort: a server that does not
//! answer here is used all the same.

use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::address;
use super::probe::{Found, get_json};
use crate::config::Source;

/// Ours is a local server that has just answered, so this is long.
const PATIENCE: Duration = Duration::from_millis(600);

/// What a server tells about its models.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The models in memory, with the context they were loaded with.
    pub loaded: Vec<(String, Option<u64>)>,
    /// Models that cannot chat.
    pub unsuited: Vec<String>,
    /// Whether the server says at all what is in memory.
    pub tells: bool,
}

pub async fn state(client: &Client, found: &Found) -> State {
    match found.source {
        Source::LmStudio => get(client, found, "/api/v0/models").await.map(|list| lm_studio(&list)),
        Source::Ollama | Source::FastFlowLm => {
            get(client, found, "/api/ps").await.map(|list| ollama(&list))
        }
        _ => None,
    }
    .unwrap_or_default()
}

/// The context of one model, where [`state`] could not tell.
pub async fn context(client: &Client, found: &Found, model: &str) -> (Option<u64>, Option<String>) {
    match found.source {
        Source::LlamaCpp => {
            let props = get(client, found, "/props").await.unwrap_or_default();
            (number(&props, &["/default_generation_settings/n_ctx", "/n_ctx"]), None)
        }
        Source::Ollama => {
            let url = address::join(&address::root(&found.base), "/api/show");
            let asked = Some(json!({ "model": model }));
            let shown =
                get_json(client, Method::POST, url, asked, found.key.as_ref(), PATIENCE).await;
            shown.map_or((None, None), |shown| ollama_show(&shown, model))
        }
        _ => (None, None),
    }
}

async fn get(client: &Client, found: &Found, path: &str) -> Option<Value> {
    let url = address::join(&address::root(&found.base), path);
    get_json(client, Method::GET, url, None, found.key.as_ref(), PATIENCE).await.ok()
}

fn number(value: &Value, paths: &[&str]) -> Option<u64> {
    paths.iter().find_map(|path| value.pointer(path)?.as_u64()).filter(|number| *number > 0)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn lm_studio(list: &Value) -> State {
    let mut state =
        State { tells: list.get("data").is_some_and(Value::is_array), ..State::default() };
    for item in items(list, "data") {
        let id = text(item, "id").to_owned();
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
    State { loaded, unsuited: Vec::new(), tells: list.get("models").is_some_and(Value::is_array) }
}

/// `num_ctx` as set in the model's own file, and a warning if the model cannot call tools.
fn ollama_show(shown: &Value, model: &str) -> (Option<u64>, Option<String>) {
    let context = text(shown, "parameters").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("num_ctx")).then(|| words.next()?.parse().ok()).flatten()
    });
    let abilities = items(shown, "capabilities");
    let warning = (!abilities.is_empty() && !abilities.iter().any(|ability| ability == "tools"))
        .then(|| {
            format!("Ollama says that `{model}` cannot call tools; an agent needs one that can")
        });
    (context, warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_studio_tells_what_is_loaded() {
        let list = json!({"object": "list", "data": [
            {"id": "a", "type": "llm", "state": "not-loaded", "max_context_length": 131_072},
            {"id": "b", "type": "vlm", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 16384},
            {"id": "e", "type": "embeddings", "state": "loaded", "max_context_length": 2048},
        ]});
        let state = lm_studio(&list);
        assert_eq!(state.loaded, [("b".to_owned(), Some(16384))]);
        assert_eq!(state.unsuited, ["e"]);
    }

    #[test]
    fn ollama_tells_what_runs_and_what_its_file_sets() {
        let running =
            json!({"models": [{"name": "qwen3:8b", "model": "qwen3:8b", "context_length": 8192}]});
        assert_eq!(ollama(&running).loaded, [("qwen3:8b".to_owned(), Some(8192))]);
        assert!(ollama(&json!({"models": []})).tells);
        assert!(!ollama(&json!({"error": "x"})).tells);
        let shown = json!({"parameters": "stop \"x\"\nnum_ctx                        65536", "capabilities": ["completion"]});
        let (context, warning) = ollama_show(&shown, "old");
        assert_eq!(context, Some(65536));
        assert!(warning.is_some_and(|text| text.contains("`old` cannot call tools")));
    }
}
