//! Asking the agent in an image what it can do: once an image, in a sandbox like any other.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::Error;
use crate::agent::{Abilities, opencode};
use crate::engine::Engine;
use crate::sandbox::{Labels, Line, Order, Policy, Sandbox, Spec};
use crate::text::one_line;

/// What the image's agent can do: from our notes, or asked.
pub async fn abilities(
    engine: &Engine,
    image: &str,
    state: &Path,
    policy: &Policy,
    labels: &Labels,
) -> Result<Abilities, Error> {
    let facts = engine.image(image).await.map_err(crate::sandbox::Error::from)?;
    let id = facts.ok_or_else(|| crate::sandbox::Error::NoImage { image: image.to_owned() })?.id;
    if let Some(known) = noted(state, &id) {
        return Ok(known);
    }
    let output = ask(engine, image, policy, labels).await?;
    let abilities = opencode::abilities(&output).ok_or_else(|| crate::sandbox::Error::NoAgent {
        image: image.to_owned(),
        said: one_line(&output, 400),
    })?;
    let note = note(state, &id);
    if let Err(error) = keep(&note, &abilities) {
        // Only the next run's second is lost.
        tracing::warn!("{} was not written: {error}", note.display());
    }
    Ok(abilities)
}

/// What is known of the agent in the image with this id, from a run that asked it.
pub fn noted(state: &Path, image_id: &str) -> Option<Abilities> {
    let bytes = std::fs::read(note(state, image_id)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn note(state: &Path, image_id: &str) -> PathBuf {
    let name: String = image_id.chars().filter(char::is_ascii_alphanumeric).collect();
    state.join("images").join(format!("{name}.json"))
}

async fn ask(
    engine: &Engine,
    image: &str,
    policy: &Policy,
    labels: &Labels,
) -> Result<String, crate::sandbox::Error> {
    let mut sandbox =
        Sandbox::start(engine, policy, &Spec { image, labels, sockets: None }).await?;
    let answer = listen(&mut sandbox, policy).await;
    sandbox.remove().await?;
    answer
}

async fn listen(sandbox: &mut Sandbox, policy: &Policy) -> Result<String, crate::sandbox::Error> {
    sandbox.receipt(policy).await?;
    let argv = opencode::PROBE.map(str::to_owned);
    sandbox.order(&Order { argv: &argv, environment: &[], task: &[] })?;
    let mut output = String::new();
    while let Some(line) = sandbox.next_line().await {
        match line? {
            Line::Stdout(text) | Line::Stderr(text) => {
                output.push_str(&text);
                output.push('\n');
            }
            Line::TooLong { .. } => {}
            Line::Ended(_) => break,
        }
    }
    Ok(output)
}

fn keep(note: &Path, abilities: &Abilities) -> std::io::Result<()> {
    if let Some(folder) = note.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    std::fs::write(note, serde_json::to_vec(abilities)?)
}
