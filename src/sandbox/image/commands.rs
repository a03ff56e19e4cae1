//! The agent's commands that the image brings.

use include_dir::{Dir, File};

use super::OPENCODE;

/// One of the agent's commands in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub name: String,
    /// Empty when it has none.
    pub description: String,
    /// The words that the agent is told; `$ARGUMENTS` stands for what the caller adds.
    pub text: String,
}

/// The agent's commands in the image, by name.
pub fn command_texts() -> Vec<Command> {
    let mut commands: Vec<_> =
        OPENCODE.get_dir("commands").into_iter().flat_map(Dir::files).filter_map(command).collect();
    commands.sort_by(|left, right| left.name.cmp(&right.name));
    commands
}

/// The names of the agent's commands in the image.
pub fn commands() -> Vec<String> {
    command_texts().into_iter().map(|command| command.name).collect()
}

fn command(file: &File<'_>) -> Option<Command> {
    let name = file.path().file_stem()?.to_str()?.to_owned();
    let whole = file.contents_utf8()?;
    let parts = whole.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n"));
    let (head, text) = parts.unwrap_or(("", whole));
    let description =
        head.lines().find_map(|line| line.strip_prefix("description:")).unwrap_or_default();
    Some(Command { name, description: description.trim().to_owned(), text: text.trim().to_owned() })
}
