//! A tool call that the model wrote into its words, which the server did not recognise.

use serde_json::Value;

/// What stands before such a call, in the formats of the usual model families.
const MARKS: [&str; 10] = [
    "<tool_call",
    "<function",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "<|tool_call|>",
    "<|tool_call>",
    "<|tool_call_begin|>",
    "<｜tool▁call▁begin｜>",
    "tool_code",
    "<invoke",
];

/// Longest text that is looked for a call; a call ends an answer.
const TAIL: usize = 16 * 1024;

/// Returns which of `tools` the end of `text` calls in words. A text that goes on behind the call
/// talks about it, and is none.
pub fn written_call<'a>(text: &str, tools: &'a [String]) -> Option<&'a str> {
    let text = text.trim();
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let text = &text[start..];
    marked(text, tools).or_else(|| bare(text, tools))
}

/// The last mark, with a tool's name right behind it and nothing but the call to the end.
fn marked<'a>(text: &str, tools: &'a [String]) -> Option<&'a str> {
    let at = MARKS.iter().filter_map(|mark| Some(text.rfind(mark)? + mark.len())).max()?;
    // `<tool_call>` stands around `<function=…>` in some formats: the last mark is the inner one.
    let call = &text[at..];
    let name = named(call, tools)?;
    let end = call.trim_end_matches(['`', '\n', ' ']);
    let closed = ["}", "]", ">", ")"].iter().any(|closing| end.ends_with(closing));
    closed.then_some(name)
}

/// The tool whose name is the first word of `call` that could be one.
fn named<'a>(call: &str, tools: &'a [String]) -> Option<&'a str> {
    let head = crate::text::prefix(call, 300);
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let words = head.split(|c| !is_word(c)).filter(|word| !word.is_empty());
    // Such as `>{"name": "bash"`, `=bash>`, ` name="bash"`, `sep function bash`.
    words.take(6).find_map(|word| tools.iter().find(|tool| *tool == word).map(String::as_str))
}

/// A JSON object, alone or in a fence, that names a tool and its arguments.
fn bare<'a>(text: &str, tools: &'a [String]) -> Option<&'a str> {
    let object = text.strip_suffix("```").unwrap_or(text).trim_end();
    if !object.ends_with('}') && !object.ends_with(']') {
        return None;
    }
    // Where it begins: the whole text, or behind the fence's first line.
    let fenced = object.rfind("```").and_then(|at| Some(at + object[at..].find('\n')?));
    let object = fenced.map_or(object, |at| &object[at..]).trim();
    let value: Value = serde_json::from_str(object).ok()?;
    let call = value.as_array().map_or(&value, |calls| calls.first().unwrap_or(&Value::Null));
    let call = call.get("function").filter(|function| function.is_object()).unwrap_or(call);
    let has_arguments =
        ["arguments", "parameters", "args", "input"].iter().any(|name| call.get(name).is_some());
    let name = call.get("name").or_else(|| call.get("tool")).and_then(Value::as_str)?;
    tools.iter().find(|tool| has_arguments && *tool == name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_in_words_are_seen_and_words_about_calls_are_not() {
        let tools = ["bash".to_owned(), "write".to_owned()];
        for text in [
            "I do it, <tool_call>\n{\"name\": \"bash\", \"arguments\": {\"command\": \"ls\"}}\n</tool_call>",
            "<tool_call>\n<function=write>\n<parameter=filePath>\nx\n</parameter>\n</function>\n</tool_call>",
            "<function=write>\n<parameter=filePath>\nx.txt\n</parameter>\n</function>\n</tool_call>",
            "{\"name\": \"bash\", \"arguments\": {}}",
            "I will.\n```json\n{\"name\": \"write\", \"arguments\": {\"filePath\": \"x\"}}\n```",
            "[TOOL_CALLS][{\"name\": \"bash\", \"arguments\": {}}]",
            "[TOOL_CALLS]bash[ARGS]{\"command\": \"ls\"}",
            "<|python_tag|>{\"name\": \"bash\", \"parameters\": {}}",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>bash\n```json\n{}\n```<｜tool▁call▁end｜>",
            "[{\"name\": \"bash\", \"parameters\": {}}]",
            "<invoke name=\"bash\"><parameter name=\"command\">ls</parameter></invoke>",
        ] {
            assert!(written_call(text, &tools).is_some(), "{text}");
        }
        for text in [
            "",
            "All done.",
            "The parser looks for <tool_call> and then for {\"name\": \"bash\"}. I tested it.",
            "{\"name\": \"my-package\", \"arguments\": {}}",
            "{\"name\": \"bash\", \"version\": \"1\"}",
            "```json\n{\"scripts\": {\"bash\": \"x\"}}\n```",
        ] {
            assert_eq!(written_call(text, &tools), None, "{text}");
        }
        assert_eq!(written_call("{\"name\": \"bash\", \"arguments\": {}}", &[]), None);
    }
}
