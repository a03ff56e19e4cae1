//! Prompts for hosts that let their user pick one: how to lead the agent, and the agent's own
//! prepared commands.

use rmcp::model::{
    ErrorData, GetPromptResult, JsonObject, Prompt, PromptArgument, PromptMessage, Role,
};
use serde_json::Value;

use crate::sandbox::image::{Command, command_texts};
use crate::text;

const ARGUMENT: &str = "arguments";
const PLACE: &str = "$ARGUMENTS";

/// What an argument may be, for who offers something to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Anything.
    Free,
    Workspace,
    Command,
    Session,
    Run,
}

/// A prompt for the host's own model. What is given stands before the text, under its title.
struct Own {
    name: &'static str,
    description: &'static str,
    arguments: &'static [Argument],
    text: &'static str,
}

struct Argument {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    required: bool,
    kind: Kind,
}

const OWN: &[Own] = &[
    Own {
        name: "delegate",
        description: "Reach a goal in small steps that a local agent carries out in sandboxes",
        arguments: &[
            Argument {
                name: "goal",
                title: "Goal",
                description: "What is to be reached.",
                required: true,
                kind: Kind::Free,
            },
            Argument {
                name: "workspace",
                title: "`workspace`",
                description: "Folder to work in.",
                required: false,
                kind: Kind::Workspace,
            },
            Argument {
                name: "command",
                title: "`command` for the steps",
                description: "A prepared command of the agent.",
                required: false,
                kind: Kind::Command,
            },
            Argument {
                name: "session",
                title: "`session` to go on in",
                description: "An earlier talk with the agent.",
                required: false,
                kind: Kind::Session,
            },
        ],
        text: include_str!("prompts/delegate.md"),
    },
    Own {
        name: "review-run",
        description: "Look at what a run changed, and apply or discard it",
        arguments: &[Argument {
            name: "run_id",
            title: "`run_id`",
            description: "The run to look at.",
            required: true,
            kind: Kind::Run,
        }],
        text: include_str!("prompts/review-run.md"),
    },
];

/// All prompts.
pub(super) fn all() -> Vec<Prompt> {
    let own = OWN.iter().map(|own| {
        let arguments = own.arguments.iter().map(|argument| {
            PromptArgument::new(argument.name)
                .with_description(argument.description)
                .with_required(argument.required)
        });
        Prompt::new(own.name, Some(own.description), Some(arguments.collect()))
    });
    let commands = command_texts().into_iter().map(|command| {
        let argument = PromptArgument::new(ARGUMENT)
            .with_description("What the command is to be carried out on, or how.")
            .with_required(false);
        Prompt::new(command.name, Some(command.description), Some(vec![argument]))
    });
    commands.chain(own).collect()
}

fn wrong<T>(message: String) -> Result<T, ErrorData> {
    Err(ErrorData::invalid_params(message, None))
}

fn no_prompt<T>(name: &str) -> Result<T, ErrorData> {
    let known: Vec<_> = all().into_iter().map(|prompt| format!("`{}`", prompt.name)).collect();
    let name = text::one_line(name, 80);
    wrong(format!("there is no prompt `{name}`; there are {}", known.join(", ")))
}

fn no_argument<T>(given: &str, known: &[&str]) -> Result<T, ErrorData> {
    let given = text::one_line(given, 60);
    let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
    let allowed = if known.len() == 1 { "allowed is" } else { "allowed are" };
    wrong(format!("`{given}` is not an argument; {allowed} {}", known.join(", ")))
}

/// What an argument of a prompt may be.
pub(super) fn kind(name: &str, argument: &str) -> Result<Kind, ErrorData> {
    let Some(own) = OWN.iter().find(|own| own.name == name) else {
        return match command_texts().iter().any(|command| command.name == name) {
            true if argument == ARGUMENT => Ok(Kind::Free),
            true => no_argument(argument, &[ARGUMENT]),
            false => no_prompt(name),
        };
    };
    let found = own.arguments.iter().find(|known| known.name == argument);
    found.map(|known| known.kind).map_or_else(|| no_argument(argument, &own.names()), Ok)
}

/// The prompt with this name and these arguments.
pub(super) fn get(name: &str, mut arguments: JsonObject) -> Result<GetPromptResult, ErrorData> {
    if let Some(own) = OWN.iter().find(|own| own.name == name) {
        return own.get(arguments);
    }
    let commands = command_texts();
    let Some(command) = commands.iter().find(|command| command.name == name) else {
        return no_prompt(name);
    };
    let given = take(&mut arguments, ARGUMENT)?.unwrap_or_default();
    if let Some(unknown) = arguments.keys().next() {
        return no_argument(unknown, &[ARGUMENT]);
    }
    let Command { description, text, .. } = command;
    let message = PromptMessage::new_text(Role::User, text.replace(PLACE, given.trim()));
    Ok(GetPromptResult::new(vec![message]).with_description(description))
}

impl Own {
    fn names(&self) -> Vec<&'static str> {
        self.arguments.iter().map(|argument| argument.name).collect()
    }

    fn get(&self, mut arguments: JsonObject) -> Result<GetPromptResult, ErrorData> {
        let mut text = String::new();
        for Argument { name, title, required, .. } in self.arguments {
            match take(&mut arguments, name)?.filter(|given| !given.trim().is_empty()) {
                Some(given) => {
                    text.push_str(title);
                    text.push_str(": ");
                    text.push_str(given.trim());
                    text.push('\n');
                }
                None if *required => return wrong(format!("`{name}` is missing (a string)")),
                None => {}
            }
        }
        if let Some(unknown) = arguments.keys().next() {
            return no_argument(unknown, &self.names());
        }
        text.push('\n');
        text.push_str(self.text.trim());
        let message = PromptMessage::new_text(Role::User, text);
        Ok(GetPromptResult::new(vec![message]).with_description(self.description))
    }
}

fn take(arguments: &mut JsonObject, name: &str) -> Result<Option<String>, ErrorData> {
    match arguments.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(given)) => Ok(Some(given)),
        Some(_) => wrong(format!("`{name}` must be a string")),
    }
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
            let required = prompt.arguments.iter().flatten().filter(|a| a.required == Some(true));
            let given = required.map(|argument| (argument.name.clone(), "x".into())).collect();
            let bare = get(&prompt.name, given).expect("a prompt");
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

    #[test]
    fn what_is_given_stands_above_and_what_is_missing_is_said() {
        let given = object(json!({ "goal": " mend it\n", "workspace": "", "session": "new" }));
        let got = get("delegate", given).expect("a prompt");
        let text = got.messages[0].content.as_text().expect("text").text.clone();
        assert!(text.starts_with("Goal: mend it\n`session` to go on in: new\n\n"), "{text}");
        let refused = |given| get("delegate", object(given)).expect_err("refused").message;
        assert_eq!(refused(json!({})), "`goal` is missing (a string)");
        assert_eq!(refused(json!({ "goal": 1 })), "`goal` must be a string");
        let unknown = refused(json!({ "goal": "x", "run": "y" }));
        assert!(unknown.ends_with("allowed are `goal`, `workspace`, `command`, `session`"));
    }

    #[test]
    fn the_agents_commands_keep_their_names() {
        let names: Vec<_> = all().into_iter().map(|prompt| prompt.name).collect();
        let distinct: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_eq!(kind("git-commit", ARGUMENT), Ok(Kind::Free));
        assert_eq!(kind("review-run", "run_id"), Ok(Kind::Run));
        assert!(kind("review-run", "run").is_err() && kind("x", "run_id").is_err());
    }
}
