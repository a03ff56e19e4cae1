//! What the user has opened for the agent, found and checked before anything is made: variables,
//! keys that stay outside, shared material.

use std::collections::BTreeMap;
use std::time::Duration;

use super::story::Story;
use super::task::Checked;
use super::{Error, hook};
use crate::config::{Config, Domain, Name};
use crate::gateway::{Credential, Egress};
use crate::ids::RunId;
use crate::model::Endpoint;
use crate::sandbox::{self, EGRESS_PORT, Mount};
use crate::workspace::check_material;
use crate::workspace::git::{self, Identity};

/// All openings of one run.
#[derive(Debug)]
pub struct Openings {
    /// The agent's variables, without those that configure it.
    pub environment: Vec<(String, String)>,
    pub egress: Egress,
    pub mounts: Vec<Mount>,
    /// Whether anything but the model and this machine can be reached.
    pub web: bool,
}

impl Openings {
    /// Refuses an opened port of this machine behind which the model server is: the agent could ask
    /// it for anything there, past the relay.
    pub fn check_against(&self, endpoint: &Endpoint) -> Result<(), Error> {
        let port = endpoint.base_url.parse::<http::Uri>().ok().and_then(|url| url.port_u16());
        match port.filter(|port| self.egress.host_ports.contains(port)) {
            Some(port) => Err(Error::ModelPort { port }),
            None => Ok(()),
        }
    }

    /// Runs the hook, if there is one, and reads what the configuration names. What is missing is
    /// told and left out: the agent may do without.
    pub async fn find(task: &Checked, id: &RunId, story: &mut Story) -> Result<Self, Error> {
        let config = &task.config;
        let exported = match &config.hooks.before_start {
            Some(lines) => {
                let patience = Duration::from_secs(config.hooks.timeout);
                let workspace = task.workspace.path().as_os_str();
                Some(hook::run(lines, patience, id, workspace).await?)
            }
            None => None,
        };
        let outside = |name: &str| match &exported {
            // The hook's shell had our environment, so this holds that too.
            Some(exported) => exported.get(name).cloned(),
            None => std::env::var(name).ok(),
        };
        let workspace = task.workspace.path().to_owned();
        let asking = tokio::task::spawn_blocking(move || git::identity(&workspace));
        // An answer is no condition: the image has a name for commits too.
        let mut environment = usual(config, asking.await.unwrap_or_default());
        environment
            .extend(config.env.set.iter().map(|(name, value)| (name.clone(), value.clone())));
        for (inside, name) in &config.env.pass {
            match outside(name) {
                Some(value) => environment.push((inside.clone(), value)),
                None => story.remark(&format!(
                    "the variable {name} of `env.pass` is not set, so the agent has no {inside}"
                )),
            }
        }
        Ok(Self {
            environment,
            egress: egress(config, outside, story)?,
            mounts: material(config)?,
            web: config.egress.open
                || !config.egress.allow.is_empty()
                || !config.credential.is_empty(),
        })
    }
}

/// What every agent gets: the way out, the time zone, a name for its commits, and what is off in git.
fn usual(config: &Config, git: Identity) -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{EGRESS_PORT}");
    let here = "localhost,127.0.0.1,::1";
    let mut variables: BTreeMap<&str, &str> = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        // What reads variables of its own.
        "npm_config_proxy",
        "npm_config_https_proxy",
        "PIP_PROXY",
        "CARGO_HTTP_PROXY",
    ]
    .map(|name| (name, proxy.as_str()))
    .into();
    variables.extend([("NO_PROXY", here), ("no_proxy", here), ("NODE_USE_ENV_PROXY", "1")]);
    let zone = time_zone();
    if let Some(zone) = &zone {
        variables.insert("TZ", zone);
    }
    let (name, email) = (&config.git.name, &config.git.email);
    let by = [
        ("GIT_AUTHOR_NAME", name.clone().or(git.author.name)),
        ("GIT_AUTHOR_EMAIL", email.clone().or(git.author.email)),
        ("GIT_COMMITTER_NAME", name.clone().or(git.committer.name)),
        ("GIT_COMMITTER_EMAIL", email.clone().or(git.committer.email)),
    ];
    variables.extend(by.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
    // A workspace that is a subfolder is a mount, and its repository above it another.
    variables.insert("GIT_DISCOVERY_ACROSS_FILESYSTEM", "1");
    let off = git::variables();
    variables.extend(off.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    if !config.credential.is_empty() {
        variables.extend(
            [
                "SSL_CERT_FILE",
                "NODE_EXTRA_CA_CERTS",
                "REQUESTS_CA_BUNDLE",
                "CURL_CA_BUNDLE",
                "GIT_SSL_CAINFO",
                "CARGO_HTTP_CAINFO",
                "PIP_CERT",
            ]
            .map(|name| (name, sandbox::AUTHORITIES)),
        );
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The name of this machine's time zone, where it has a plain one.
fn time_zone() -> Option<String> {
    let named = std::env::var("TZ").ok().filter(|zone| !zone.is_empty()).or_else(|| {
        let target = std::fs::canonicalize("/etc/localtime").ok()?;
        let target = target.to_str()?;
        Some(target.split_once("zoneinfo/")?.1.to_owned())
    })?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    (named.len() <= 64 && named.chars().all(plain)).then_some(named)
}

fn egress(
    config: &Config,
    outside: impl Fn(&str) -> Option<String>,
    story: &mut Story,
) -> Result<Egress, Error> {
    let settings = &config.egress;
    let allow: Vec<Domain> =
        settings.allow.iter().map(|domain| domain.parse()).collect::<Result<_, _>>()?;
    let mut credentials = Vec::new();
    for credential in &config.credential {
        let Some(value) = outside(&credential.value_env) else {
            story.remark(&format!(
                "the variable {} of the credential for {host} is not set, so {host} is not reached \
                 unless `egress` allows it",
                credential.value_env,
                host = credential.host
            ));
            continue;
        };
        let value = format!("{}{value}", credential.prefix);
        credentials.push(Credential::new(&credential.host, &credential.header, &value)?);
    }
    for (name, server) in &config.agent.mcp {
        let url = server.url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        let Some(host) =
            url.as_ref().and_then(http::Uri::host).and_then(|host| Name::parse(host).ok())
        else {
            continue;
        };
        if !settings.open && !allow.iter().any(|domain| domain.matches(&host)) {
            story.remark(&format!(
                "the MCP server {name} is at {host}, which is not among the allowed domains \
                 (`egress.allow`)"
            ));
        }
    }
    if settings.open {
        story.remark("egress is open: the agent can reach every public name");
    }
    Ok(Egress {
        allow,
        open: settings.open,
        ports: settings.ports.clone(),
        host_ports: settings.host_ports.clone(),
        credentials,
    })
}

fn material(config: &Config) -> Result<Vec<Mount>, Error> {
    config
        .mount
        .iter()
        .filter_map(|mount| Some((mount, mount.target()?)))
        .map(|(mount, target)| {
            let source = check_material(&mount.path, &config.workspace.roots)?;
            Ok(Mount {
                what: "shared material".into(),
                source,
                target,
                read_only: true,
                overlay: None,
            })
        })
        .collect()
}
