//! What the rehearsal says next, as a pure function of what it was sent.

use serde_json::{Map, Value, json};

use super::scene::{Scene, tool_name};

/// The file that the rehearsal leaves in the workspace.
const NOTE: &str = "REHEARSAL.md";
/// The first line of that file, by which a later rehearsal knows it as its own.
const HEADING: &str = "# Rehearsal";
/// Every word of the rehearsal begins like this, so that nobody takes it for a model's.
const LABEL: &str = "rehearsal model:";

/// The next thing to say.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Text(String),
    /// `text` is said before the tool is called.
    Call {
        text: String,
        id: String,
        name: String,
        arguments: Value,
    },
}

/// The next reply to a chat completion request.
pub fn reply(request: &Value) -> Reply {
    let scene = Scene::read(request);
    if scene.tools.is_empty() {
        // OpenCode asks for a title this way; anything else without tools gets the same.
        return Reply::Text(format!("Rehearsal: {}", scene.task_line(60)));
    }
    if scene.tool("write").is_none() && scene.tool("bash").is_none() && scene.tool("read").is_none()
    {
        return scene.use_the_only_tool();
    }
    scene.next_step()
}

impl Scene<'_> {
    fn next_step(&self) -> Reply {
        let Some(listing) = self.result("list") else {
            return self.list().unwrap_or_else(|| self.closing());
        };
        let folder = self.folder(listing);
        let note = if folder.is_empty() { NOTE.to_owned() } else { format!("{folder}/{NOTE}") };
        // Agents refuse to write over a file that they have not read; and another's file of this
        // name must not be lost.
        let exists = listing.contains(NOTE);
        if exists && self.result("look").is_none() && self.tool("read").is_some() {
            let text = "There is a note already; I look at it first.";
            return self.call("look", "read", text, &json!({ "filePath": note }));
        }
        let foreign = exists && !self.result("look").unwrap_or_default().contains(HEADING);
        if self.result("write").is_none() && !foreign && self.tool("write").is_some() {
            let content = self.note();
            let arguments = json!({ "filePath": note, "content": content });
            return self.call("write", "write", "Now I write a note.", &arguments);
        }
        if self.result("write").is_some()
            && self.result("read").is_none()
            && self.tool("read").is_some()
        {
            return self.call("read", "read", "I read it back.", &json!({ "filePath": note }));
        }
        self.closing()
    }

    /// The first step, with whichever tool can show the folder.
    fn list(&self) -> Option<Reply> {
        let text = "I look at the folder.";
        if self.tool("bash").is_some() {
            let arguments = json!({ "command": "pwd && ls -l", "description": "List the folder" });
            return Some(self.call("list", "bash", text, &arguments));
        }
        if self.tool("list").is_some() {
            return Some(self.call("list", "list", text, &json!({})));
        }
        self.tool("glob").map(|_| self.call("list", "glob", text, &json!({ "pattern": "*" })))
    }

    fn note(&self) -> String {
        format!(
            "{HEADING}\n\nThe rehearsal model of sandbox-mcp wrote this file to show that a sandbox \
             can change this folder.\nIt is a script, not a language model. The task began:\n\n> {}\n",
            self.task_line(200)
        )
    }

    /// What was seen, said plainly, whether or not it went well.
    fn closing(&self) -> Reply {
        let mut said = Vec::new();
        match self.result("list") {
            Some(listing) => {
                let folder = self.folder(listing);
                let place = if folder.is_empty() { "the folder".to_owned() } else { folder };
                let count = entries(listing);
                let plural = if count == 1 { "y" } else { "ies" };
                said.push(format!("I listed {place} ({count} entr{plural})"));
            }
            None => said.push("no tool was offered that could list the folder".to_owned()),
        }
        let read_back = self.result("read").unwrap_or_default().contains(HEADING);
        let was_there = self.result("look").is_some();
        match self.result("write") {
            // An earlier note that is still there must not pass for this one.
            Some(answer) if read_back && (!was_there || says_written(answer)) => {
                said.push(format!("wrote {NOTE}, and read it back: its words are there"));
            }
            Some(answer) => {
                let answer = crate::text::one_line(answer, 160);
                said.push(format!(
                    "could not write {NOTE}, as a read-only workspace will have it ({answer})"
                ));
            }
            None if was_there => {
                said.push(format!("left {NOTE} alone, because another wrote it"));
            }
            None => said.push("was offered no tool that writes files".to_owned()),
        }
        Reply::Text(format!(
            "{LABEL} {}. This was a rehearsal: a script without a language model went through a \
             real sandbox, and the task itself was not worked on.",
            said.join(", ")
        ))
    }

    /// Any other set of tools, such as doctor's: call the first one, then say what it answered.
    fn use_the_only_tool(&self) -> Reply {
        if let Some(turn) = self.turns.last() {
            let result = turn.result.as_deref().unwrap_or("nothing");
            return Reply::Text(format!("{LABEL} the tool answered: {result}"));
        }
        let name = self.tools.first().map(|tool| tool_name(tool)).unwrap_or_default();
        self.call("only", name, "I call the tool.", &json!({}))
    }

    fn call(&self, step: &str, name: &str, text: &str, arguments: &Value) -> Reply {
        let schema = self.tool(name).and_then(|tool| tool.pointer("/function/parameters"));
        Reply::Call {
            text: format!("{LABEL} {text}"),
            id: format!("call-{}-{step}", self.length),
            name: name.to_owned(),
            arguments: fit(arguments, schema),
        }
    }
}

/// `arguments` as the tool's schema wants them: without what it does not know, and with something
/// for whatever else it requires, since agents differ in what they ask for.
fn fit(arguments: &Value, schema: Option<&Value>) -> Value {
    let Some(schema) = schema else { return arguments.clone() };
    let mut fitted = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, value) in arguments.as_object().into_iter().flatten() {
        if properties.is_none_or(|known| known.contains_key(key)) {
            fitted.insert(key.clone(), value.clone());
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for key in required.into_iter().flatten().filter_map(Value::as_str) {
        if !fitted.contains_key(key) {
            let wanted = properties.and_then(|known| known.get(key));
            fitted.insert(key.to_owned(), example(wanted));
        }
    }
    Value::Object(fitted)
}

/// A harmless value of the wanted type.
fn example(schema: Option<&Value>) -> Value {
    let Some(schema) = schema else { return json!("rehearsal") };
    if let Some(first) = schema.get("enum").and_then(|values| values.get(0)) {
        return first.clone();
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => json!("rehearsal"),
    }
}

/// Whether a tool says that it wrote. Results have no field for that, and agents word their errors
/// in many ways (`EROFS: …`, `Unknown: FileSystem.writeFile`), but their successes in few.
fn says_written(result: &str) -> bool {
    let result = result.to_lowercase();
    ["success", "wrote", "written", "created", "updated"].iter().any(|mark| result.contains(mark))
}

/// How many entries `ls -l` showed. Without the hidden ones, most of which stand there for the run
/// only.
fn entries(listing: &str) -> usize {
    let shown = listing.lines().filter(|line| {
        let mode = line.split_whitespace().next().unwrap_or_default();
        mode.len() >= 10 && mode.starts_with(['-', 'd', 'l', 'c', 'b', 's', 'p'])
    });
    match shown.count() {
        // Another tool than `ls`, which begins with a sum, names one entry a line.
        0 if !listing.lines().any(|line| line.starts_with("total ")) => {
            listing.lines().filter(|line| !line.trim().is_empty()).count()
        }
        shown => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, required: &[&str]) -> Value {
        let properties: Map<_, _> =
            required.iter().map(|key| ((*key).to_owned(), json!({ "type": "string" }))).collect();
        let parameters = json!({"type": "object", "properties": properties, "required": required});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    }

    fn opencode_tools() -> Value {
        json!([
            tool("bash", &["command", "description"]),
            tool("read", &["filePath"]),
            tool("write", &["content", "filePath"]),
        ])
    }

    /// Plays the agent: answers each call from `results` until the rehearsal speaks.
    fn play(tools: &Value, task: &str, results: &[&str]) -> (Vec<(String, Value)>, String) {
        let mut messages = vec![
            json!({"role": "system", "content": "<env>\n  Working directory: /home/u/x\n</env>"}),
            json!({"role": "user", "content": task}),
        ];
        let mut calls = Vec::new();
        for turn in 0..10 {
            match reply(&json!({"messages": messages, "tools": tools})) {
                Reply::Text(text) => return (calls, text),
                Reply::Call { id, name, arguments, .. } => {
                    let function = json!({"name": name, "arguments": arguments.to_string()});
                    let call = json!({"id": id, "type": "function", "function": function});
                    messages
                        .push(json!({"role": "assistant", "content": "", "tool_calls": [call]}));
                    let result = results.get(turn).copied().unwrap_or_default();
                    messages.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
                    calls.push((name, arguments));
                }
            }
        }
        panic!("the rehearsal never ends: {calls:?}");
    }

    const LISTING: &str = "/home/u/x\ntotal 4\n-rw-r--r-- 1 u u 4 Jan 1 00:00 a.txt\n";

    #[test]
    fn it_lists_writes_reads_and_says_so() {
        let results = [LISTING, "Wrote file successfully.", "1: # Rehearsal\n"];
        let (calls, said) = play(&opencode_tools(), "\n\nFix the \"bug\"\nplease", &results);
        let names: Vec<_> = calls.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["bash", "write", "read"]);
        assert_eq!(calls[1].1["filePath"], "/home/u/x/REHEARSAL.md");
        assert!(
            calls[1].1["content"].as_str().is_some_and(|text| text.contains("> Fix the \"bug\"\n"))
        );
        assert!(said.starts_with("rehearsal model:"), "{said}");
        assert!(said.contains("(1 entry)") && said.contains("read it back"), "{said}");
    }

    #[test]
    fn a_read_only_workspace_is_said_and_not_hidden() {
        let results = [LISTING, "EROFS: read-only file system", "File not found"];
        let (_, said) = play(&opencode_tools(), "task", &results);
        assert!(said.contains("could not write") && said.contains("EROFS"), "{said}");
        let listing = format!("{LISTING}-rw-r--r-- 1 u u 4 Jan 1 00:00 REHEARSAL.md\n");
        let failed = "Unknown: FileSystem.writeFile (/home/u/x/REHEARSAL.md)";
        let results = [listing.as_str(), "1: # Rehearsal", failed, "1: # Rehearsal"];
        let (_, said) = play(&opencode_tools(), "again", &results);
        assert!(said.contains("could not write"), "{said}");
        let (calls, said) = play(&json!([tool("bash", &["command"])]), "task", &[LISTING]);
        assert_eq!(calls[0].1, json!({"command": "pwd && ls -l"}));
        assert!(said.contains("no tool that writes"), "{said}");
    }

    #[test]
    fn a_note_of_its_own_is_replaced_and_anothers_is_left_alone() {
        let listing = format!("{LISTING}-rw-r--r-- 1 u u 4 Jan 1 00:00 REHEARSAL.md\n");
        let own =
            [listing.as_str(), "1: # Rehearsal", "Wrote file successfully.", "1: # Rehearsal"];
        let (calls, said) = play(&opencode_tools(), "again", &own);
        assert_eq!(
            calls.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["bash", "read", "write", "read"]
        );
        assert!(said.contains("read it back"), "{said}");
        let (calls, said) = play(&opencode_tools(), "again", &[&listing, "1: my own plan"]);
        assert_eq!(calls.len(), 2);
        assert!(said.contains("left REHEARSAL.md alone"), "{said}");
    }

    #[test]
    fn titles_and_other_tools_are_answered() {
        let title = json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Build a ship"}]}]});
        assert_eq!(reply(&title), Reply::Text("Rehearsal: Build a ship".into()));
        let (calls, said) = play(&json!([tool("lookup", &["word"])]), "use it", &["heron"]);
        assert_eq!(calls, [("lookup".to_owned(), json!({"word": "rehearsal"}))]);
        assert!(said.ends_with("heron"), "{said}");
    }

    #[test]
    fn a_second_question_starts_a_second_performance() {
        let messages = json!([
            {"role": "user", "content": "one"},
            {"role": "assistant", "tool_calls": [{"id": "call-1-list", "function": {"name": "bash", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "call-1-list", "content": LISTING},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "two"},
        ]);
        let next = reply(&json!({"messages": messages, "tools": opencode_tools()}));
        assert!(
            matches!(next, Reply::Call { name, id, .. } if name == "bash" && id != "call-1-list")
        );
    }

    #[test]
    fn nonsense_gets_an_answer_too() {
        for request in [json!(null), json!({"messages": "x", "tools": 3}), json!({"tools": [{}]})] {
            let _ = reply(&request);
        }
    }
}
