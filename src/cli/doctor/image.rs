//! The image: whether it is there, what is in it, how old that is, and whether it could be made.

use jiff::{SignedDuration, Timestamp};

use super::finding::{Finding, Level, size};
use crate::config::{self, Config};
use crate::engine::{Engine, ImageFacts};
use crate::runner;
use crate::sandbox::Error;
use crate::sandbox::image::{Inputs, packages_from};
use crate::text::count;

/// What to say of the image, and whether runs can begin without building it.
pub async fn examine(config: &Config, engine: &Engine) -> (Vec<Finding>, bool) {
    match look(config, engine).await {
        Ok(Some((name, facts))) => {
            let mut findings = present(&name, &facts);
            findings.extend(aged(config, engine, &name, &facts).await);
            (findings, true)
        }
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

/// Tells the age of the packages; of an image that is not ours, its own. None where nobody knows.
async fn aged(config: &Config, engine: &Engine, name: &str, facts: &ImageFacts) -> Option<Finding> {
    let steps = match engine.build_steps(name).await {
        Ok(steps) => steps,
        Err(error) => {
            let told = error.to_string();
            let remedy = "look at the engine's log";
            return Some(Finding::told(Level::Warning, "packages", &told, remedy));
        }
    };
    let built = || facts.created.as_deref()?.parse().ok();
    let from = packages_from(&steps).or_else(built)?;
    Some(judged(Timestamp::now().duration_since(from), &config.image))
}

fn judged(age: SignedDuration, config: &config::Image) -> Finding {
    let told = format!("installed {} ago", in_words(age));
    let days = i64::try_from(config.max_age).unwrap_or(i64::MAX);
    if days == 0 || age.as_hours() / 24 < days {
        return Finding::ok("packages", told);
    }
    let message = format!("{told}; `image.max_age` is {}", count(config.max_age, "day"));
    let remedy = match &config.name {
        None => "get the newest ones with `sandbox-mcp build --refresh`".to_owned(),
        Some(name) => format!("get a newer {name} (`docker pull {name}`)"),
    };
    Finding::warning("packages", message, remedy)
}

async fn absent(config: &Config, engine: &Engine) -> Vec<Finding> {
    let inputs = match Inputs::new(&config.image) {
        Ok(inputs) => inputs,
        Err(error) => return vec![failed(&error)],
    };
    let choices = inputs.choices();
    let mut base = None;
    for (name, image) in &choices {
        match engine.image(name).await {
            Ok(Some(_)) => {
                base = Some((*name, image));
                break;
            }
            Ok(None) => {}
            Err(error) => return vec![failed(&error.into())],
        }
    }
    let built = Finding::warning(
        "built",
        match base {
            Some((_, image)) => format!("{image} is not there"),
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
    let created: Timestamp = created.parse().ok()?;
    Some(in_words(Timestamp::now().duration_since(created)))
}

fn in_words(age: SignedDuration) -> String {
    // Clocks of machines differ.
    let seconds = age.as_secs().max(0);
    let (number, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    count(number, unit)
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
        assert_eq!(ago(-50).as_deref(), Some("0 seconds"));
        assert_eq!(age("long ago"), None);
    }

    #[test]
    fn old_packages_are_a_warning_with_the_command_that_helps() {
        let days = |days: i64| SignedDuration::from_hours(24 * days);
        let mut config = config::Image::default();
        assert_eq!(judged(days(29), &config).level, Level::Ok);
        let old = judged(days(31), &config);
        assert_eq!(old.level, Level::Warning);
        assert_eq!(old.message, "installed 31 days ago; `image.max_age` is 30 days");
        assert!(old.remedy.expect("one").contains("`sandbox-mcp build --refresh`"));
        config.max_age = 0;
        assert_eq!(judged(days(3_000), &config).level, Level::Ok);
        config.max_age = 1;
        config.name = Some("ready:1".into());
        let remedy = judged(days(2), &config).remedy.expect("one");
        assert!(remedy.contains("`docker pull ready:1`"), "{remedy}");
    }
}
