//! `sandbox-mcp versions`: everything that is pinned, and what of it is here.

use std::io::{Result, Write};
use std::time::Duration;

use serde::Serialize;

use crate::config::{self, Config};
use crate::engine::Engine;
use crate::runner;
use crate::sandbox::image::{Inputs, Pin, digest_in, packages_from, pins};

/// Longest time for an engine to answer. What is pinned is known without it.
const ENGINE: Duration = Duration::from_secs(15);

/// Everything that is told, as programs read it.
#[derive(Debug, Serialize)]
struct Versions {
    #[serde(rename = "sandbox-mcp")]
    own: &'static str,
    packages: Vec<Pin>,
    bases: Vec<Base>,
    /// None where no engine answers.
    engine: Option<String>,
    /// None where there is none yet, or no engine answers.
    image: Option<Image>,
}

/// An image that ours may be built on.
#[derive(Debug, Serialize)]
struct Base {
    name: String,
    /// None where it is taken by its tag.
    pinned: Option<String>,
    /// The id of the one that the engine has.
    id: Option<String>,
    /// Its digest in a registry, where it is from one.
    digest: Option<String>,
}

/// The image that the next run uses.
#[derive(Debug, Serialize)]
struct Image {
    name: String,
    id: String,
    built: Option<String>,
    packages_from: Option<String>,
    agent: Option<String>,
}

pub async fn run(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let inputs = Inputs::new(&config.image)?;
    let bases = inputs.choices().into_iter().map(|(name, _)| Base {
        name: name.to_owned(),
        pinned: digest_in(name).map(str::to_owned),
        id: None,
        digest: None,
    });
    let mut versions = Versions {
        own: env!("CARGO_PKG_VERSION"),
        packages: pins(),
        bases: bases.collect(),
        engine: None,
        image: None,
    };
    match tokio::time::timeout(ENGINE, look(config, &inputs, &mut versions)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => super::complain(&format!("{error:#}")),
        Err(_) => super::complain(&format!("no engine answers within {} s", ENGINE.as_secs())),
    }
    if json {
        serde_json::to_writer_pretty(&mut *out, &versions)?;
        writeln!(out)?;
    } else {
        show(&versions, out)?;
    }
    Ok(())
}

/// Adds what the engine knows.
async fn look(config: &Config, inputs: &Inputs, versions: &mut Versions) -> anyhow::Result<()> {
    let engine = Engine::connect(config.engine.host.as_deref()).await?;
    let facts = engine.facts().await?;
    versions.engine = Some(format!("{} {}", facts.name, facts.version));
    for base in &mut versions.bases {
        if let Some(facts) = engine.image(&base.name).await? {
            let digests = facts.digests.iter().find_map(|name| digest_in(name));
            base.digest = digests.map(str::to_owned);
            base.id = Some(facts.id);
        }
    }
    let Some(name) = inputs.find(&engine).await? else { return Ok(()) };
    let Some(facts) = engine.image(&name).await? else { return Ok(()) };
    let steps = engine.build_steps(&name).await?;
    let agent = runner::noted_agent(&config::state_dir()?, &facts.id);
    versions.image = Some(Image {
        name,
        id: facts.id,
        built: facts.created,
        packages_from: packages_from(&steps).map(|at| at.to_string()),
        agent: agent.map(|agent| format!("OpenCode {}", agent.version)),
    });
    Ok(())
}

fn show(versions: &Versions, out: &mut impl Write) -> Result<()> {
    let mut rows = vec![["sandbox-mcp".into(), versions.own.to_owned(), String::new()]];
    for Pin { package, version, digest, .. } in &versions.packages {
        rows.push([package.clone(), version.clone(), digest.clone()]);
    }
    for base in &versions.bases {
        let pinned = base.pinned.clone().unwrap_or_else(|| "by its tag".into());
        let here = match (&base.digest, &base.id) {
            (Some(digest), _) => format!("here {digest}"),
            (None, Some(id)) => format!("here {id}, made on this machine"),
            (None, None) if versions.engine.is_none() => String::new(),
            (None, None) => "not here".into(),
        };
        rows.push([base.name.clone(), pinned, here]);
    }
    rows.push(["Debian packages".into(), "not pinned".into(), "the newest at each build".into()]);
    let none = "none answers".to_owned();
    rows.push(["engine".into(), versions.engine.clone().unwrap_or(none), String::new()]);
    if let Some(image) = &versions.image {
        let date =
            |time: &Option<String>| time.as_deref().unwrap_or("at an unknown time").to_owned();
        rows.push(["image".into(), image.name.clone(), image.id.clone()]);
        rows.push(["  built".into(), date(&image.built), String::new()]);
        if image.packages_from.is_some() {
            rows.push(["  packages from".into(), date(&image.packages_from), String::new()]);
        }
        if let Some(agent) = &image.agent {
            rows.push(["  agent".into(), agent.clone(), String::new()]);
        }
    } else if versions.engine.is_some() {
        rows.push(["image".into(), "not built yet".into(), String::new()]);
    }
    let width = rows.iter().map(|[what, ..]| what.len()).max().unwrap_or_default();
    for [what, version, digest] in rows {
        writeln!(out, "{}", format!("{what:width$}  {version:<12}  {digest}").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        let base = |name: &str| Base { name: name.into(), pinned: None, id: None, digest: None };
        let pin = Pin {
            of: "opencode x64".into(),
            package: "opencode-linux-x64".into(),
            version: "1.2.3".into(),
            digest: "sha512-AA==".into(),
        };
        let mut bases = vec![base("debian:bookworm-slim"), base("mine:1"), base("theirs:1")];
        bases[1].id = Some("sha256:01".into());
        bases[2].digest = Some("sha256:02".into());
        let engine = Some("docker 20.10".into());
        Versions { own: "0.1.0", packages: vec![pin], bases, engine, image: None }
    }

    fn shown(versions: &Versions) -> String {
        let mut out = Vec::new();
        show(versions, &mut out).expect("written");
        String::from_utf8(out).expect("utf-8")
    }

    #[test]
    fn people_get_a_line_for_each() {
        let text = shown(&versions());
        for line in [
            "sandbox-mcp           0.1.0\n",
            "opencode-linux-x64    1.2.3         sha512-AA==\n",
            "debian:bookworm-slim  by its tag    not here\n",
            "mine:1                by its tag    here sha256:01, made on this machine\n",
            "theirs:1              by its tag    here sha256:02\n",
            "image                 not built yet\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn without_an_engine_nothing_is_said_of_what_it_has() {
        let text = shown(&Versions { engine: None, bases: Vec::new(), ..versions() });
        assert!(text.contains("engine              none answers\n"), "{text}");
        assert!(!text.contains("\nimage"), "{text}");
    }
}
