//! The agent's prepared commands as prompts, for hosts that let their user pick one.

use rmcp::model::{
    ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role,
};
use serde_json::Value;

use crate::sandbox::image::{Command, command_texts};
use crate::text;

const ARGUMENT: &str = "arguments";
const PLACE: &str = "$ARGUMENTS";

/// All prompts.
pub(super) fn all() -> Vec<Prompt> {
    command_texts()
        .into_iter()
        .map(|command| {
            let argument = PromptArgument::new(ARGUMENT)
                .with_description("What the command is to be carried out on, or how.")
                .with_required(false);
            Prompt::new(command.name, Some(command.description), Some(vec![argument]))
        })
        .collect()
}

/// The prompt with this name and these arguments.
pub(super) fn get(name: &str, mut arguments: JsonObject) -> Result<GetPromptResult, ErrorData> {
    let wrong = |message: String| Err(ErrorData::invalid_params(message, None));
    let commands = command_texts();
    let Some(command) = commands.iter().find(|command| command.name == name) else {
        let known: Vec<_> = commands.iter().map(|command| format!("`{}`", command.name)).collect();
        let name = text::one_line(name, 80);
        return wrong(format!("there is no prompt `{name}`; there are {}", known.join(", ")));
    };
    let given = match arguments.remove(ARGUMENT) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(given)) => given,
        Some(_) => return wrong(format!("`{ARGUMENT}` must be a string")),
    };
    if let Some(unknown) = arguments.keys().next() {
        let unknown = text::one_line(unknown, 60);
        return wrong(format!("`{unknown}` is not an argument; allowed is `{ARGUMENT}`"));
    }
    let Command { description, text, .. } = command;
    let message = PromptMessage::new_text(Role::User, text.replace(PLACE, given.trim()));
    Ok(GetPromptResult::new(vec![message]).with_description(description))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> JsonObject {
        let Value::Object(object) = value else { panic!("an object") };
        object
    }

    #[test]
    fn every_prompt_is_described_and_can_be_got() {
        let prompts = all();
        assert!(prompts.len() >= 3);
        for prompt in prompts {
            assert!(prompt.description.is_some_and(|text| text.len() > 10), "{}", prompt.name);
            let bare = get(&prompt.name, JsonObject::new()).expect("a prompt");
            let text = bare.messages[0].content.as_text().expect("text").text.clone();
            assert!(!text.contains(PLACE) && !text.starts_with("---"), "{text}");
        }
    }

    #[test]
    fn what_is_given_stands_in_its_place_once() {
        let given = object(json!({ "arguments": "only $ARGUMENTS and $HOME" }));
        let got = get("refactor-apply", given).expect("a prompt");
        let text = got.messages[0].content.as_text().expect("text").text.clone();
        let first = "Carry out this refactoring: only $ARGUMENTS and $HOME\n";
        assert!(text.starts_with(first), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let refused = |name, given| get(name, object(given)).expect_err("refused").message;
        let unknown = refused("x\u{1b}[1m", json!({}));
        assert!(
            unknown.starts_with("there is no prompt `x`; there are `git-commit`, "),
            "{unknown}"
        );
        assert_eq!(
            refused("git-commit", json!({ "argument": "x" })),
            "`argument` is not an argument; allowed is `arguments`"
        );
        assert_eq!(
            refused("git-commit", json!({ "arguments": 1 })),
            "`arguments` must be a string"
        );
    }
}
