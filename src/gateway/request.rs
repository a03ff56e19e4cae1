//! The request to the model, rebuilt from the parts that we know.
//!
//! What the agent sends is taken apart and put together anew, so nothing passes that is not named
//! here: no second `model`, no parameter that makes the server act elsewhere. Three such doors are
//! known and shut: media given as an address is fetched by the server from *its* network (vLLM,
//! llama.cpp), tools other than functions make it call out, and parameters such as
//! `kv_transfer_params`, `chat_template` or `prompt_embeds` reach into its inside, as parts of
//! messages such as `image_embeds` do. The patterns of schemas are bounded ([`pattern`]).

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::dialect::Dialect;
use super::pattern::Budget;
use super::walk::{Key, Walk};

/// The parameters that pass; others are left out without a word, since agents send many that
/// servers ignore anyway. `model` and `stream_options` are written by us.
const PARAMETERS: &[&str] = &[
    "messages",
    "prompt",
    "suffix",
    "stream",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "repeat_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "verbosity",
    "user",
];
/// More than any agent sends; bounds what a hostile one can make us remember.
const MAX_PARAMETERS: usize = 128;

/// A request that may go out.
#[derive(Debug)]
pub struct Rebuilt {
    pub body: Bytes,
    pub streamed: bool,
    /// The names of the tools that the agent offers.
    pub tools: Vec<String>,
    /// The most tokens that the answer may have.
    pub max_tokens: Option<u64>,
    /// The names of what passed.
    pub parameters: Vec<String>,
}

/// Rebuilds `body` for `model` as its server takes it. The error tells the agent what is wrong with
/// its request.
pub fn rebuild(body: &[u8], model: &str, dialect: &Dialect) -> Result<Rebuilt, String> {
    let Parameters(parameters) = serde_json::from_slice(body).map_err(|error| {
        format!("the request is not a JSON object that can be passed on: {error}")
    })?;
    let mut out = String::with_capacity(body.len() + 256);
    out.push_str("{\"model\":");
    out.push_str(&serde_json::Value::from(model).to_string());
    let mut rebuilt = Rebuilt {
        body: Bytes::new(),
        streamed: false,
        tools: Vec::new(),
        max_tokens: None,
        parameters: Vec::new(),
    };
    let patterns = Budget::default();
    for (key, value) in parameters {
        let key = dialect.name(&key);
        if dialect.leaves_out(key) || rebuilt.parameters.iter().any(|known| known == key) {
            continue;
        }
        let mut text = Cow::Borrowed(value.get());
        let mut role = Key::Words;
        match key {
            "stream" => {
                rebuilt.streamed = serde_json::from_str::<Option<bool>>(&text)
                    .map_err(|_| "`stream` must be true or false".to_owned())?
                    .unwrap_or(false);
            }
            "messages" => {
                role = Key::Plain;
                let messages = dialect.messages(value.get());
                text =
                    messages.map_err(|error| format!("`messages` are not understood: {error}"))?;
            }
            "tools" => {
                role = Key::Schema;
                rebuilt.tools = only_types("tools", &text, &["function"])?;
            }
            "response_format" => {
                role = Key::Schema;
                only_types("response_format", &text, &["text", "json_object", "json_schema"])?;
            }
            "max_tokens" | "max_completion_tokens" => {
                rebuilt.max_tokens = serde_json::from_str(&text).ok();
            }
            // Tokens or texts; either way no addresses.
            _ => {}
        }
        Walk(role, &patterns)
            .deserialize(&mut serde_json::Deserializer::from_str(&text))
            .map_err(|error| format!("`{key}` cannot be passed on: {error}"))?;
        out.push_str(",\"");
        out.push_str(key);
        out.push_str("\":");
        out.push_str(&text);
        rebuilt.parameters.push(key.to_owned());
    }
    if rebuilt.streamed && !dialect.leaves_out("stream_options") {
        // Without it most servers do not count a stream, and nothing could be reported truly.
        out.push_str(",\"stream_options\":{\"include_usage\":true}");
    }
    out.push('}');
    rebuilt.body = out.into();
    Ok(rebuilt)
}

/// The parameters that pass, each once, with their values unread.
struct Parameters<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Parameters<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Parameters<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut kept: Vec<(String, &RawValue)> = Vec::new();
                let mut seen = 0;
                while let Some(key) = map.next_key::<String>()? {
                    seen += 1;
                    if seen > MAX_PARAMETERS {
                        return Err(de::Error::custom("it has too many parameters"));
                    }
                    if !PARAMETERS.contains(&key.as_str()) {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    }
                    // Two of a name could be read one way by us and another way by the server.
                    if kept.iter().any(|(known, _)| *known == key) {
                        return Err(de::Error::custom(format_args!("`{key}` is given twice")));
                    }
                    kept.push((key, map.next_value()?));
                }
                Ok(Parameters(kept))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The names of the functions in a parameter, one thing or a list, all of which must be of these
/// types.
fn only_types(parameter: &str, text: &str, known: &[&str]) -> Result<Vec<String>, String> {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: Cow<'a, str>,
        function: Option<Function>,
    }
    #[derive(Deserialize)]
    struct Function {
        name: Option<String>,
    }
    let text = text.trim_start();
    let parsed = if text.starts_with('{') {
        serde_json::from_str(text).map(|one: Typed<'_>| vec![one])
    } else {
        serde_json::from_str::<Option<Vec<Typed<'_>>>>(text).map(Option::unwrap_or_default)
    };
    let found = parsed.map_err(|error| format!("`{parameter}` is not understood: {error}"))?;
    match found.iter().find(|one| !known.contains(&&*one.kind)) {
        None => Ok(found.into_iter().filter_map(|one| one.function?.name).collect()),
        Some(one) => {
            let kind = crate::text::one_line(&one.kind, 40);
            let known = known.join("`, `");
            Err(format!("in `{parameter}` only the type `{known}` is passed on, not `{kind}`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rebuilt(request: &str) -> Result<Value, String> {
        let rebuilt = rebuild(request.as_bytes(), "ours \"quoted\"", &Dialect::default())?;
        Ok(serde_json::from_slice(&rebuilt.body).expect("valid JSON"))
    }

    #[test]
    fn the_model_is_ours_whatever_is_asked() {
        for request in [
            r#"{"model":"other","messages":[]}"#,
            r#"{"messages":[]}"#,
            r#"{"model":"a","mod\u0065l":"b","Model":"c","messages":[]}"#,
        ] {
            let out = rebuilt(request).expect(request);
            assert_eq!(out, json!({"model": "ours \"quoted\"", "messages": []}), "{request}");
        }
    }

    #[test]
    fn streams_are_counted_and_numbers_keep_their_digits() {
        let request = r#"{"stream":true,"stream_options":{"include_usage":false},"seed":12345678901234567890123,"temperature":0.10}"#;
        let rebuilt = rebuild(request.as_bytes(), "m", &Dialect::default()).expect("fine");
        assert!(rebuilt.streamed);
        let text = String::from_utf8(rebuilt.body.to_vec()).expect("text");
        assert_eq!(
            text,
            r#"{"model":"m","stream":true,"seed":12345678901234567890123,"temperature":0.10,"stream_options":{"include_usage":true}}"#
        );
        assert!(!rebuild(b"{\"stream\":null}", "m", &Dialect::default()).expect("fine").streamed);
        assert!(rebuild(b"{\"stream\":\"true\"}", "m", &Dialect::default()).is_err());
    }

    #[test]
    fn what_no_parser_takes_does_not_go_out_wherever_it_is() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        for odd in ["2e2240", "-1e999", deep.as_str(), r#""\ud800""#] {
            for request in [
                format!(r#"{{"messages":[],"max_tokens":{odd}}}"#),
                format!(r#"{{"messages":[{{"role":"user","content":{odd}}}]}}"#),
                format!(r#"{{"messages":[{{"role":"assistant","tool_calls":[{{"x":{odd}}}]}}]}}"#),
                format!(
                    r#"{{"messages":[],"tools":[{{"type":"function","function":{{"x":{odd}}}}}]}}"#
                ),
            ] {
                let told = rebuilt(&request).expect_err("refused");
                assert!(told.contains("cannot be passed on"), "{told}");
            }
        }
        let url = r#"{"messages":[{"role":"assistant","tool_calls":[{"url":"http://x"}]}]}"#;
        assert!(rebuilt(url).is_ok(), "arguments of calls may hold addresses");
    }

    #[test]
    fn what_reaches_into_the_server_is_left_out() {
        let out = rebuilt(
            r#"{"messages":[],"kv_transfer_params":{"remote_host":"10.0.0.1"},"chat_template":"{{x}}",
               "prompt_embeds":"x","mcp_servers":[],"web_search_options":{},"n":1000}"#,
        );
        let out = out.expect("the rest passes");
        assert_eq!(out.as_object().map(serde_json::Map::len), Some(2));
    }

    #[test]
    fn the_server_is_not_sent_to_fetch_anything() {
        for part in [
            json!({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest"}}),
            json!({"type": "image_url", "image_url": "https://evil.example/?secret"}),
            json!({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
            json!({"type": "image_url", "image_url": {"url": "/etc/passwd"}}),
            json!({"type": "video_url", "video_url": {"url": " HTTP://x"}}),
            json!({"audio_url": {"nested": [{"URL": "//host/x"}]}}),
            json!({"type": "image", "image": "http://x"}),
        ] {
            for role in ["user", "tool", "system"] {
                let request = json!({"messages": [{"role": role, "content": [part]}]}).to_string();
                let error = rebuilt(&request).expect_err(&request);
                assert!(error.contains("embedded"), "{error}");
            }
        }
        let tools = json!({"tools": [{"type": "mcp", "server_url": "http://x"}]}).to_string();
        assert!(rebuilt(&tools).expect_err("refused").contains("`mcp`"));
    }

    #[test]
    fn embeddings_are_not_passed_on_wherever_they_stand() {
        for part in [
            json!({"type": "image_embeds", "image_embeds": "AAAA"}),
            json!({"type": "image_embeds"}),
            json!({"image_embeds": {"image_grid_thw": "AAAA"}}),
            json!({"type": "text", "text": "x", "prompt_embeds": ["AAAA"]}),
            json!({"type": "audio_embeds", "audio_embeds": null}),
            json!({"video": {"Video_Embeds": "AAAA"}}),
        ] {
            for message in [
                json!({"role": "user", "content": [part]}),
                json!({"role": "tool", "content": part}),
                json!({"role": "user", "content": "x", "more": [part]}),
            ] {
                let request = json!({"messages": [message]}).to_string();
                let error = rebuilt(&request).expect_err(&request);
                assert!(error.contains("embeddings reach into the server"), "{error}");
            }
        }
        let out = rebuilt(r#"{"prompt":"x","image_embeds":"A","prompt_embeds":["A"]}"#);
        assert_eq!(out.expect("passes").as_object().map(serde_json::Map::len), Some(2));
        let words = json!({"messages": [{"role": "user", "content": "image_embeds"},
            {"role": "assistant", "tool_calls": [{"function": {"arguments": {"type": "embeds"}}}]}]});
        assert!(rebuilt(&words.to_string()).is_ok(), "words and arguments of calls are no parts");
    }

    #[test]
    fn patterns_of_schemas_are_bounded_wherever_they_stand() {
        let tool = |schema: Value| json!({"tools": [{"type": "function", "function": {"name": "x", "parameters": schema}}]});
        let bad = "(a{1000}){1000}";
        for request in [
            tool(json!({"properties": {"x": {"pattern": bad}}})),
            tool(json!({"$defs": {"x": {"anyOf": [{"items": {"patternProperties": {bad: {}}}}]}}})),
            tool(json!({"patternProperties": {"a": {"pattern": bad}}})),
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "x", "schema": {"propertyNames": {"pattern": bad}}}}}),
            json!({"response_format": {"type": "json_object", "schema": {"pattern": bad}}}),
        ] {
            let error = rebuilt(&request.to_string()).expect_err("refused");
            assert!(error.contains("pattern"), "{error}");
        }
        let many: Vec<_> = (0..50).map(|_| json!({"pattern": "a{1,9000}"})).collect();
        assert!(rebuilt(&tool(json!({"anyOf": many})).to_string()).is_err(), "all count together");
        let fine = json!({"properties": {
            "pattern": {"type": "string", "pattern": "^[a-z0-9]+(?:-[a-z0-9]+)*$"},
            "glob": {"type": "string", "default": "(((("}}, "patternProperties": {"^x-": {}}});
        assert!(rebuilt(&tool(fine).to_string()).is_ok());
        let other = json!({"response_format": {"type": "regex", "value": bad}}).to_string();
        assert!(rebuilt(&other).expect_err("refused").contains("`regex`"));
    }

    #[test]
    fn ordinary_conversations_pass_unchanged() {
        let request = json!({"messages": [
            {"role": "system", "content": "fetch http://x/"},
            {"role": "user", "content": [
                {"type": "text", "text": "see https://example.org: url"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "webfetch", "arguments": {"url": "http://x"}}}]},
            {"role": "tool", "tool_call_id": "1", "content": "file: http://x"},
        ], "tools": [{"type": "function", "function": {"name": "x", "parameters": {"properties": {"url": {"default": "http://x"}}}}}]});
        let mut expected = request.clone();
        expected["model"] = json!("ours \"quoted\"");
        assert_eq!(rebuilt(&request.to_string()).expect("passes"), expected);
    }

    #[test]
    fn hostile_bodies_are_refused_without_harm() {
        let deep = format!("{{\"messages\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let wide = format!("{{{}\"x\":1}}", "\"x\":1,".repeat(100_000));
        for body in
            ["", "[]", "null", "{", "{\"messages\":[],\"messages\":[]}", &deep, &wide, "\u{feff}{}"]
        {
            assert!(rebuild(body.as_bytes(), "m", &Dialect::default()).is_err());
        }
        assert!(rebuild(b"{\"user\":\"\xff\"}", "m", &Dialect::default()).is_err());
    }
}
