//! Messages of hosts, read as they were meant: the faults of known clients that leave no doubt.
//!
//! Both ways in come through here before rmcp sees a message, because rmcp has no answer for some
//! of these, and would take others for methods that it does not know.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rmcp::model::{
    CancelledNotificationParam, ClientCapabilities, Implementation, JsonRpcMessage, RequestId,
    ServerJsonRpcMessage,
};
use serde_json::{Map, Value, json};

/// Stands for what a client does not say of itself.
const UNNAMED: &str = "unknown";

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";

/// Number of texts that a host may have put the arguments of a call into, one in the other.
const WRAPPED: usize = 2;

/// Reads JSON; half an emoji, escaped or in bytes, becomes U+FFFD. Says whether there was any.
pub(super) fn read(bytes: &[u8]) -> serde_json::Result<(Value, bool)> {
    serde_json::from_slice(bytes).map(|value| (value, false)).or_else(|error| {
        let mut text = String::from_utf8_lossy(bytes).into_owned().into_bytes();
        replace_halves(&mut text);
        serde_json::from_slice(&text).map(|value| (value, true)).map_err(|_| error)
    })
}

/// Puts U+FFFD in the place of escaped surrogates that have no partner. A backslash can be in a
/// string only, so the rest of the grammar does not matter here.
fn replace_halves(json: &mut [u8]) {
    let unit = |json: &[u8], at: usize| {
        let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = 0;
    while at < json.len() {
        at += match unit(json, at) {
            Some(0xd800..=0xdbff) if matches!(unit(json, at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                json[at..at + 6].copy_from_slice(b"\\ufffd");
                6
            }
            _ if json[at] == b'\\' => 2,
            _ => 1,
        };
    }
}

/// Puts a message into the shape that its sender meant. Says whether it had another.
pub(super) fn mend(message: &mut Value) -> bool {
    let Some(message) = message.as_object_mut() else { return false };
    let Some(method) = message.get("method").and_then(Value::as_str) else { return false };
    let (greets, calls) = (method == "initialize", matches!(method, "tools/call" | "prompts/get"));
    let mut mended = message.get("params").is_some_and(is_nothing);
    if mended {
        message.shift_remove("params");
    }
    if greets {
        mended |= mend_greeting(message.entry("params").or_insert_with(|| json!({})));
    } else if calls && let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) {
        mended |= mend_arguments(params);
    }
    mended
}

/// Tells an object without content, or none, as some languages write it.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn mend_arguments(params: &mut Map<String, Value>) -> bool {
    let Some(given) = params.get_mut("arguments") else { return false };
    let mut mended = false;
    for _ in 0..WRAPPED {
        let Some(text) = given.as_str() else { break };
        let inner = if text.trim().is_empty() {
            Ok(Value::Null)
        } else {
            read(text.as_bytes()).map(|(inner, _)| inner)
        };
        let Ok(inner @ (Value::Object(_) | Value::String(_) | Value::Null)) = inner else { break };
        *given = inner;
        mended = true;
    }
    if is_nothing(given) {
        params.shift_remove("arguments");
        mended = true;
    }
    mended
}

/// Fills in what old and home-made clients leave out when they introduce themselves.
fn mend_greeting(params: &mut Value) -> bool {
    let Some(params) = params.as_object_mut() else { return false };
    // From 2026-07-28 on each request names its version, and there is no such method.
    if params.get("_meta").is_some_and(|meta| meta.get(VERSION).is_some()) {
        return false;
    }
    let before = params.clone();
    // One that nobody speaks: the answer has the one that we offer.
    if !params.get("protocolVersion").is_some_and(Value::is_string) {
        params.insert("protocolVersion".to_owned(), json!(UNNAMED));
    }
    let capabilities = params.entry("capabilities").or_insert(Value::Null);
    if serde_json::from_value::<ClientCapabilities>(capabilities.clone()).is_err() {
        let mut known = Map::new();
        for (name, value) in capabilities.as_object_mut().map(std::mem::take).unwrap_or_default() {
            let written = if is_nothing(&value) || value == true { json!({}) } else { value };
            let alone = Value::Object(Map::from_iter([(name.clone(), written.clone())]));
            if serde_json::from_value::<ClientCapabilities>(alone).is_ok() {
                known.insert(name, written);
            }
        }
        *capabilities = Value::Object(known);
    }
    let client = params.entry("clientInfo").or_insert(Value::Null);
    if serde_json::from_value::<Implementation>(client.clone()).is_err() {
        let said = |name: &str| match &client[name] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => UNNAMED.to_owned(),
        };
        *client = json!({ "name": said("name"), "version": said("version") });
    }
    *params != before
}

/// The requests of one host that have no answer yet.
#[derive(Debug, Default)]
pub(super) struct Open(Mutex<HashSet<RequestId>>);

impl Open {
    pub fn enter(&self, id: &RequestId) {
        self.ids().insert(id.clone());
    }

    /// Notes a message to the host, which may be the answer.
    pub fn answered(&self, message: &ServerJsonRpcMessage) {
        let id = match message {
            JsonRpcMessage::Response(answer) => Some(&answer.id),
            JsonRpcMessage::Error(answer) => answer.id.as_ref(),
            _ => None,
        };
        if let Some(id) = id {
            self.ids().remove(id);
        }
    }

    /// Notes that no answer will follow, and names the request as it named itself.
    pub fn cancelled(&self, cancelled: &mut CancelledNotificationParam) {
        if let Some(id) = &mut cancelled.request_id {
            *id = self.meant(id.clone());
            self.ids().remove(id);
        }
    }

    pub fn count(&self) -> usize {
        self.ids().len()
    }

    /// The request that a host means by this id: some write the number of one as a text later.
    fn meant(&self, id: RequestId) -> RequestId {
        let ids = self.ids();
        if ids.contains(&id) {
            return id;
        }
        let other = match &id {
            RequestId::Number(number) => Some(RequestId::String(number.to_string().into())),
            RequestId::String(text) => text.parse().ok().map(RequestId::Number),
        };
        other.filter(|other| ids.contains(other)).unwrap_or(id)
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<RequestId>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::{ClientJsonRpcMessage, ClientRequest, ErrorData};

    use super::*;

    #[test]
    fn half_an_emoji_is_replaced_and_nothing_else() {
        let text = |json: &str| {
            let (value, replaced) = read(json.as_bytes()).expect("read");
            (value.as_str().expect("a text").to_owned(), replaced)
        };
        assert_eq!(text(r#""\ud83d\ude00 \\ud83d \u00e9""#), ("😀 \\ud83d é".into(), false));
        for (json, read) in [
            (r#""cut \ud83d""#, "cut \u{fffd}"),
            (r#""\ude00 \uD83D\ud83d\ude00\\\ud83dx""#, "\u{fffd} \u{fffd}😀\\\u{fffd}x"),
            (r#""\ud83d\u0041 \\ud83d \u00e9\"""#, "\u{fffd}A \\ud83d é\""),
        ] {
            assert_eq!(text(json), (read.into(), true), "{json}");
        }
        let cut = [b"\"a".as_slice(), &"😀".as_bytes()[..2], b"\""].concat();
        assert_eq!(read(&cut).expect("read").0, "a\u{fffd}");
        for bad in [r#""\ud83"#, r#""\ud83d"#, "{", "\\ud83d"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    fn arguments(given: &Value) -> (Option<Value>, bool) {
        let mut message = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": { "name": "x", "arguments": given },
        });
        let mended = mend(&mut message);
        (message["params"].get("arguments").cloned(), mended)
    }

    #[test]
    fn arguments_that_come_as_a_text_are_arguments() {
        let meant = json!({ "task": "{\"a\": 1}" });
        assert_eq!(arguments(&meant), (Some(meant.clone()), false));
        let text = meant.to_string();
        assert_eq!(arguments(&json!(text)), (Some(meant.clone()), true));
        assert_eq!(arguments(&json!(json!(text).to_string())), (Some(meant), true));
        for nothing in [json!(null), json!(""), json!(" "), json!("null"), json!([])] {
            assert_eq!(arguments(&nothing), (None, true), "{nothing}");
        }
        for other in [json!("do it"), json!("[1]"), json!("7"), json!([1]), json!(7)] {
            assert_eq!(arguments(&other), (Some(other), false), "told in the refusal");
        }
        let cut = arguments(&json!("{\"task\": \"\\ud83d\"}")).0.expect("arguments");
        assert_eq!(cut["task"], "\u{fffd}");
    }

    fn greeted(params: &Value) -> rmcp::model::InitializeRequestParams {
        let mut message =
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        mend(&mut message);
        match serde_json::from_value(message).expect("a message") {
            ClientJsonRpcMessage::Request(request) => match request.request {
                ClientRequest::InitializeRequest(greeting) => greeting.params,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_client_need_not_introduce_itself() {
        let whole = json!({
            "protocolVersion": "2025-06-18", "capabilities": { "roots": { "listChanged": true } },
            "clientInfo": { "name": "x", "version": "1", "title": "X" },
        });
        let mut message = json!({ "id": 1, "method": "initialize", "params": whole.clone() });
        assert!(!mend(&mut message), "what is whole stays as it is");
        assert_eq!(greeted(&whole).client_info.title.as_deref(), Some("X"));
        for nothing in [json!(null), json!([]), json!({})] {
            let greeting = greeted(&nothing);
            assert_eq!(greeting.client_info.name, UNNAMED);
            assert_eq!(greeting.capabilities, ClientCapabilities::default());
        }
        let greeting = greeted(&json!({
            "protocolVersion": "2025-06-18", "clientInfo": { "name": "x", "version": 2 },
            "capabilities": { "roots": [], "elicitation": true, "experimental": 7, "odd": 1 },
        }));
        assert_eq!(greeting.protocol_version.as_str(), "2025-06-18");
        let client = greeting.client_info;
        assert_eq!((client.name.as_str(), client.version.as_str()), ("x", "2"));
        let params = json!({ "_meta": { VERSION: "2026-07-28" } });
        let mut message = json!({ "id": 1, "method": "initialize", "params": params });
        assert!(!mend(&mut message), "that version has no greeting");
        assert!(
            greeting.capabilities.roots.is_some() && greeting.capabilities.elicitation.is_some()
        );
    }

    #[test]
    fn a_message_that_is_whole_is_left_alone() {
        for mut message in [
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} }),
            json!({ "jsonrpc": "2.0", "id": 1, "result": { "arguments": "{}" } }),
            json!([1]),
            json!(null),
        ] {
            let before = message.clone();
            assert!(!mend(&mut message));
            assert_eq!(message, before);
        }
        let mut list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": [] });
        assert!(mend(&mut list) && list.get("params").is_none());
        let list: ClientJsonRpcMessage = serde_json::from_value(list).expect("a message");
        assert!(matches!(list, JsonRpcMessage::Request(_)));
    }

    #[test]
    fn an_id_is_meant_exactly_where_it_can_be() {
        let (number, text) = (RequestId::Number(2), RequestId::String("2".into()));
        let open = Open::default();
        assert_eq!(open.meant(text.clone()), text);
        open.enter(&number);
        assert_eq!(open.meant(text.clone()), number);
        open.enter(&text);
        assert_eq!(open.meant(text.clone()), text);
        let answer =
            ServerJsonRpcMessage::error(ErrorData::internal_error("", None), Some(number.clone()));
        open.answered(&answer);
        assert_eq!((open.meant(number), open.count()), (text, 1));
    }
}
