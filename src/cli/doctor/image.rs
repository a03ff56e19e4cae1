//! The image: whether it is there, what is in it, and whether it could be made.

use super::finding::{Finding, Level, size};
use crate::config::{self, Config};
use crate::engine::{Engine, ImageFacts};
use crate::runner;
use crate::sandbox::Error;
use crate::sandbox::image::Inputs;

/// What to say of the image, and whether runs can begin without building it.
pub async fn examine(config: &Config, engine: &Engine) -> (Vec<Finding>, bool) {
    match look(config, engine).await {
        Ok(Some((name, facts))) => (present(&name, &facts), true),
        Ok(None) => (absent(config, engine).await, false),
        Err(error) => (vec![failed(&error)], false),
    }
}

async fn look(config: &Config, engine: &Engine) -> Result<Option<(String, ImageFacts)>, Error> {
    let Some(name) = Inputs::new(&config.image)?.find(engine).await? else { return Ok(None) };
    Ok(engine.image(&name).await?.map(|facts| (name, facts)))
}

fn present(name: &str, facts: &ImageFacts) -> Vec<Finding> {
    let age = facts.created.as_deref().and_then(age);
    let age = age.map(|age| format!(", built {age} ago")).unwrap_or_default();
    let bytes = size(facts.size.unsigned_abs());
    let image = Finding::ok("built", format!("{name}, {bytes}{age}"));
    let state = config::state_dir().ok();
    let agent = match state.and_then(|state| runner::noted_agent(&state, &facts.id)) {
        Some(agent) => format!("OpenCode {}", agent.version),
        None => "not asked yet for its version; the first run does".to_owned(),
    };
    vec![image, Finding::ok("agent", agent)]
}

async fn absent(config: &Config, engine: &Engine) -> Vec<Finding> {
    let inputs = match Inputs::new(&config.image) {
        Ok(inputs) => inputs,
        Err(error) => return vec![failed(&error)],
    };
    let choices = inputs.choices();
    let mut base = None;
    for (name, tag) in &choices {
        match engine.image(name).await {
            Ok(Some(_)) => {
                base = Some((*name, tag));
                break;
            }
            Ok(None) => {}
            Err(error) => return vec![failed(&error.into())],
        }
    }
    let built = Finding::warning(
        "built",
        match base {
            Some((_, tag)) => format!("{tag} is not there"),
            None => "the image is not there".to_owned(),
        },
        "it is built at the first run, or now by `sandbox-mcp build`",
    );
    let base = if let Some((name, _)) = base {
        Finding::ok("base", format!("{name} is there"))
    } else {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Finding::warning(
            "base",
            format!("not there: {}; the build has to pull it", names.join(", ")),
            "where no registry can be reached: `scripts/base-image` of the source makes one",
        )
    };
    vec![built, base]
}

fn failed(error: &Error) -> Finding {
    let message = error.to_string();
    match error {
        Error::NoImage { image } => Finding::error(
            "built",
            format!("`image.name` is {image}, which the engine does not have"),
            format!("get it (`docker pull {image}`), or remove `image.name` to have one built"),
        ),
        Error::Io { .. } => Finding::error(
            "inputs",
            message,
            "correct `image.ca_bundle`, or make the file readable",
        ),
        _ => Finding::told(Level::Error, "built", &message, "look at the engine's log"),
    }
}

/// How long ago a moment was, roughly.
fn age(created: &str) -> Option<String> {
    let created: jiff::Timestamp = created.parse().ok()?;
    let seconds = jiff::Timestamp::now().duration_since(created).as_secs().max(0);
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    Some(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_their_own_unit() {
        let ago = |seconds| {
            let then = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
            age(&then.to_string())
        };
        assert_eq!(ago(7_300).as_deref(), Some("2 hours"));
        assert_eq!(ago(300_000).as_deref(), Some("3 days"));
        // Clocks of machines differ.
        assert_eq!(ago(-50).as_deref(), Some("0 seconds"));
        assert_eq!(age("long ago"), None);
    }
}
