//! A request, as far as the rehearsal looks at it.

use serde_json::Value;

/// A request, as far as the script looks at it.
pub struct Scene<'a> {
    /// What the user asked last.
    pub task: String,
    pub system: String,
    pub tools: Vec<&'a Value>,
    /// The calls since the user spoke last, with their results as far as they are there.
    pub turns: Vec<Turn<'a>>,
    /// Messages so far, which makes the ids of calls differ within a session.
    pub length: usize,
}

pub struct Turn<'a> {
    pub id: &'a str,
    pub result: Option<String>,
}

impl<'a> Scene<'a> {
    pub fn read(request: &'a Value) -> Self {
        let messages =
            request.get("messages").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let role = |message: &Value| {
            message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let asked = messages.iter().rposition(|message| role(message) == "user");
        let since = asked.map_or(messages, |at| &messages[at + 1..]);
        let calls = since.iter().filter_map(|m| m.get("tool_calls")?.as_array()).flatten();
        let turns = calls
            .map(|call| {
                let id = call.get("id").and_then(Value::as_str).unwrap_or_default();
                let result = since
                    .iter()
                    .find(|m| {
                        role(m) == "tool"
                            && m.get("tool_call_id").and_then(Value::as_str) == Some(id)
                    })
                    .map(text_of);
                Turn { id, result }
            })
            .collect();
        let system = messages.iter().filter(|m| matches!(role(m).as_str(), "system" | "developer"));
        Self {
            task: asked.map(|at| text_of(&messages[at])).unwrap_or_default(),
            system: system.map(text_of).collect::<Vec<_>>().join("\n"),
            tools: request.get("tools").and_then(Value::as_array).into_iter().flatten().collect(),
            turns,
            length: messages.len(),
        }
    }

    pub fn task_line(&self, max: usize) -> String {
        let line = self.task.lines().find(|line| !line.trim().is_empty()).unwrap_or("(no task)");
        crate::text::one_line(line, max)
    }

    pub fn tool(&self, name: &str) -> Option<&'a Value> {
        self.tools.iter().copied().find(|tool| tool_name(tool) == name)
    }

    /// The result of the step whose id ends in `step`; `Some("")` while it is not there yet.
    pub fn result(&self, step: &str) -> Option<&str> {
        let suffix = format!("-{step}");
        let turn = self.turns.iter().find(|turn| turn.id.ends_with(&suffix))?;
        Some(turn.result.as_deref().unwrap_or_default())
    }

    /// The workspace: the first line of `pwd`, else what the agent's prompt says.
    pub fn folder(&self, listing: &str) -> String {
        let from_shell = listing.lines().map(str::trim).find(|line| line.starts_with('/'));
        let from_prompt = || {
            let (_, rest) = self.system.split_once("Working directory:")?;
            rest.lines().next().map(str::trim)
        };
        let folder = from_shell.or_else(from_prompt).unwrap_or_default();
        let folder = crate::text::one_line(folder, 400);
        // `glob` answers with paths of files; the prompt knows better then.
        match (self.tool("bash"), from_prompt()) {
            (None, Some(said)) => said.trim_end_matches('/').to_owned(),
            _ => folder.trim_end_matches('/').to_owned(),
        }
    }
}

pub fn tool_name(tool: &Value) -> &str {
    tool.pointer("/function/name").and_then(Value::as_str).unwrap_or_default()
}

/// A message's content is a text or a list of parts.
fn text_of(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
