//! From the settings to one model that can be asked.

mod choose;

use std::time::Duration;

use choose::pick;
use futures_util::future::join_all;
use reqwest::{Client, Url};

use super::patience::Wait;
use super::probe::{self, Caller, Found, Offer, USUAL};
use super::{Attempt, Credentials, Endpoint, Error, Fault, FaultKind, Patience, address, client};
use crate::config::{self, Source};

/// How long the usual ports may take to answer; they are on this machine.
const PROBE: Duration = Duration::from_secs(1);
/// How long a server that the user named may take to list its models.
const NAMED: Duration = Duration::from_secs(5);
/// How long such a server may take to accept a connection.
const NAMED_CONNECT: Duration = Duration::from_millis(1500);
/// How long a list may be waited for that is not needed, because the model is named.
const UNNEEDED: Duration = Duration::from_secs(20);

/// Finds the model server and the model that the settings describe. `model` is over the
/// configured one. Answers within two seconds when there is no server, and waits for one that
/// loads its model as long as `patience` says.
pub async fn discover(
    config: &config::Model,
    model: Option<&str>,
    patience: Patience<'_>,
) -> Result<Endpoint, Error> {
    let asked = model.or(config.model.as_deref()).map(str::trim).filter(|id| !id.is_empty());
    let url = config.url.as_deref().map(str::trim).filter(|url| !url.is_empty());
    if config.source == Source::Rehearsal
        || url.is_some_and(|url| url.eq_ignore_ascii_case("rehearsal"))
    {
        return rehearsal(model);
    }
    let mut warnings = Vec::new();
    let credentials = Credentials::read(config, &mut warnings)?;
    let search = Search { config, asked, credentials, patience };
    let mut endpoint = match url {
        Some(url) => search.named(&address::candidates(url)?).await?,
        None => search.usual(&USUAL).await?,
    };
    warnings.append(&mut endpoint.warnings);
    Ok(Endpoint { warnings, ..endpoint })
}

/// A model named for this very run must exist; one that stands in the settings was meant for
/// another server.
fn rehearsal(model: Option<&str>) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::rehearsal();
    match model {
        Some(asked) if asked != endpoint.model => Err(Error::UnknownModel {
            asked: asked.to_owned(),
            url: "the rehearsal".into(),
            known: endpoint.models,
        }),
        _ => Ok(endpoint),
    }
}

struct Search<'a> {
    config: &'a config::Model,
    asked: Option<&'a str>,
    credentials: Credentials,
    patience: Patience<'a>,
}

impl Search<'_> {
    /// A server whose address the user gave; its API is at one of `bases`.
    async fn named(&self, bases: &[Url]) -> Result<Endpoint, Error> {
        let [first, ..] = bases else { return Err(Error::NoneFound { tried: Vec::new() }) };
        let client = client::build(first, NAMED_CONNECT, self.config.ca_bundle.as_deref())?;
        let caller = Caller::new(client, self.credentials.clone())?;
        let mut warnings = Vec::new();
        let (base, offers) = match self.survey(&caller, bases).await {
            Ok((base, offers)) => (base, offers),
            Err((base, fault)) => {
                self.on_trust(&caller, bases, (base, fault), &mut warnings).await?
            }
        };
        if !self.credentials.is_empty() && base.scheme() == "http" && !address::is_loopback(&base) {
            warnings.push(format!("the API key travels unencrypted to {base}; use https there"));
        }
        let recognised = probe::recognise(&base, &offers);
        let source =
            if self.config.source == Source::Auto { recognised } else { self.config.source };
        let mut found = Found { base, source, offers, caller };
        let tried = vec![Attempt {
            server: probe::name(source).into(),
            url: found.base.to_string(),
            outcome: offered(&found.offers),
        }];
        if found.offers.is_empty() {
            let Some(asked) = self.asked else {
                let remedy = supply(source).into();
                return Err(Error::NoModels { url: found.base.into(), remedy });
            };
            warnings.push(format!("{} lists no model, so `{asked}` is taken on trust", found.base));
            found.offers.push(Offer::named(asked));
        }
        self.settle(found, tried, warnings).await
    }

    /// The first of `bases` with a list of models, once the server is awake; else what speaks most
    /// against them.
    async fn survey(
        &self,
        caller: &Caller,
        bases: &[Url],
    ) -> Result<(Url, Vec<Offer>), (Url, Fault)> {
        let mut patience = self.patience;
        if self.asked.is_some() {
            patience.limit = patience.limit.min(UNNEEDED);
        }
        // A list can be done without, a server that loads cannot.
        let (mut lists, mut loads) = (Wait::new(patience), Wait::new(self.patience));
        loop {
            let limit = lists.bound(NAMED);
            let (base, fault) = match self.look(caller, bases, limit).await {
                Ok(found) => return Ok(found),
                Err(failed) => failed,
            };
            let wait = if fault.kind == FaultKind::Loading { &mut loads } else { &mut lists };
            if !wait.again(base.as_str(), &fault).await {
                return Err((base, fault));
            }
        }
    }

    async fn look(
        &self,
        caller: &Caller,
        bases: &[Url],
        limit: Duration,
    ) -> Result<(Url, Vec<Offer>), (Url, Fault)> {
        let mut other = None;
        let mut failed: Option<(Url, Fault)> = None;
        for base in bases {
            match probe::list(caller, base, limit).await {
                Ok(list) if list.is_common => return Ok((base.clone(), list.offers)),
                Ok(list) => other = other.or(Some((base.clone(), list.offers))),
                // It is the same server at each of them.
                Err(fault) if fault.is_unreachable() || fault.kind == FaultKind::Loading => {
                    return Err((base.clone(), fault));
                }
                Err(fault) => {
                    let telling = |fault: &Fault| !is_absent(fault);
                    if failed.as_ref().is_none_or(|(_, kept)| telling(&fault) && !telling(kept)) {
                        failed = Some((base.clone(), fault));
                    }
                }
            }
        }
        match (other, failed) {
            (Some(found), _) => Ok(found),
            (None, Some(failed)) => Err(failed),
            (None, None) => {
                let nothing = Fault::new(FaultKind::NotJson, "answers, but not as a model server");
                Err((bases[0].clone(), nothing))
            }
        }
    }

    /// Without a list, the user's word for the model is enough, where the server chats at all.
    async fn on_trust(
        &self,
        caller: &Caller,
        bases: &[Url],
        (base, fault): (Url, Fault),
        warnings: &mut Vec<String>,
    ) -> Result<(Url, Vec<Offer>), Error> {
        let unusable = |url: &Url, fault: Fault| {
            let fault = client::through(url, fault);
            Err(Error::Unusable { url: url.to_string(), fault })
        };
        let Some(asked) = self.asked else { return unusable(&base, fault) };
        if fault.kind != FaultKind::FirstByteTimeout
            && (fault.is_unreachable() || fault.kind == FaultKind::Loading)
        {
            return unusable(&base, fault);
        }
        let mut at = None;
        for base in bases {
            match caller.chat_refusal(base, NAMED).await {
                Some(refusal) if is_absent(&refusal) => {}
                Some(refusal)
                    if refusal.kind == FaultKind::Unauthorized
                        || refusal.status.is_some_and(|status| (300..400).contains(&status)) =>
                {
                    return unusable(base, refusal);
                }
                _ => {
                    at = Some(base.clone());
                    break;
                }
            }
        }
        // Where nothing tells, a path that ends in a version is where the API is.
        let versioned =
            |base: &&Url| base.path().rsplit('/').next().is_some_and(address::is_version);
        let given = bases.last().filter(versioned);
        let base = at.or(given.cloned()).unwrap_or(base);
        warnings.push(format!(
            "{base} gives no list of models ({fault}), so `{asked}` is taken on trust; nothing \
             has to be done where it answers"
        ));
        Ok((base, vec![Offer::named(asked)]))
    }

    /// The usual ports of this machine, all at once.
    async fn usual(&self, ports: &[(Source, u16)]) -> Result<Endpoint, Error> {
        let wanted = self.config.source;
        if wanted == Source::OpenaiCompatible {
            return Err(Error::NeedsUrl { kind: "openai_compatible" });
        }
        // None of these speaks TLS, so one client without trust store serves all.
        let base = Url::parse("http://127.0.0.1")
            .map_err(|error| Error::Client { why: error.to_string() })?;
        let client = client::build(&base, PROBE, None)?;
        let ports: Vec<_> = ports
            .iter()
            .filter(|(source, _)| wanted == Source::Auto || wanted == *source)
            .collect();
        let mut wait = Wait::new(self.patience);
        loop {
            let asked = ports.iter().map(|(source, port)| self.knock(&client, *source, *port));
            let mut tried = Vec::new();
            let mut found = Vec::new();
            let mut loading = None;
            for (attempt, answer) in join_all(asked).await {
                match answer {
                    Ok(server) => found.push(server),
                    Err(fault) if fault.kind == FaultKind::Loading => {
                        loading = loading.or(Some((attempt.url.clone(), fault)));
                    }
                    Err(_) => {}
                }
                tried.push(attempt);
            }
            found.retain(|found| !found.offers.is_empty());
            // The first server in order of preference, or the first that has the model.
            let at = found.iter().position(|found| {
                self.asked.is_none_or(|asked| pick(asked, &found.offers).is_some())
            });
            if let Some(at) = at {
                let found = self.unlock(&client, found.swap_remove(at)).await?;
                return self.settle(found, tried, Vec::new()).await;
            }
            if let Some((url, fault)) = loading {
                if wait.again(&url, &fault).await {
                    continue;
                }
                return Err(Error::Unusable { url, fault });
            }
            if found.is_empty() {
                return Err(Error::NoneFound { tried });
            }
            let urls: Vec<_> = found.iter().map(|found| found.base.as_str()).collect();
            return Err(Error::UnknownModel {
                asked: self.asked.unwrap_or_default().to_owned(),
                url: urls.join(" and "),
                known: found
                    .into_iter()
                    .flat_map(|found| found.offers)
                    .map(|offer| offer.id)
                    .collect(),
            });
        }
    }

    /// One port, by IPv4 and then by IPv6: several servers listen on one of them only.
    async fn knock(
        &self,
        client: &Client,
        usual: Source,
        port: u16,
    ) -> (Attempt, Result<Found, Fault>) {
        let mut attempt = Attempt {
            server: probe::name(usual).into(),
            url: format!("http://127.0.0.1:{port}/v1"),
            outcome: String::new(),
        };
        let mut said = Fault::new(FaultKind::ConnectionRefused, "nobody listens");
        for host in ["127.0.0.1", "[::1]"] {
            let Ok(base) = Url::parse(&format!("http://{host}:{port}/v1")) else { continue };
            match self.visit(client, &base).await {
                Ok((offers, caller)) => {
                    attempt.url = base.to_string();
                    attempt.outcome = offered(&offers);
                    let source = probe::recognise(&base, &offers);
                    if offers.is_empty() {
                        attempt.outcome = format!("{}; {}", attempt.outcome, supply(source));
                    }
                    return (attempt, Ok(Found { base, source, offers, caller }));
                }
                // What IPv4 said is what matters, unless nothing was there at all.
                Err(fault) if attempt.outcome.is_empty() => {
                    attempt.outcome.clone_from(&fault.message);
                    let nobody = fault.kind == FaultKind::ConnectionRefused;
                    said = fault;
                    if !nobody {
                        break;
                    }
                }
                Err(fault) if fault.is_unreachable() => {}
                Err(fault) => {
                    attempt.url = base.to_string();
                    attempt.outcome.clone_from(&fault.message);
                    said = fault;
                }
            }
        }
        (attempt, Err(said))
    }

    /// The list of whoever listens here. The key goes only to a server that asks for one, since
    /// anything may listen on a port.
    async fn visit(&self, client: &Client, base: &Url) -> Result<(Vec<Offer>, Caller), Fault> {
        let common = |list: probe::List| {
            let strange = Fault::new(FaultKind::NotJson, "answers, but not as a model server");
            if list.is_common { Ok(list.offers) } else { Err(strange) }
        };
        let unfit = |error: Error| Fault::new(FaultKind::Unauthorized, &error.to_string());
        let stranger = Caller::new(client.clone(), self.credentials.withheld()).map_err(unfit)?;
        match probe::list(&stranger, base, PROBE).await {
            Err(fault) if fault.kind == FaultKind::Unauthorized && !self.credentials.is_empty() => {
                let known = Caller::new(client.clone(), self.credentials.clone()).map_err(unfit)?;
                let list = probe::list(&known, base, PROBE).await?;
                Ok((common(list)?, known))
            }
            list => Ok((common(list?)?, stranger)),
        }
    }

    /// Some servers list their models to everybody and want the key for all else.
    async fn unlock(&self, client: &Client, found: Found) -> Result<Found, Error> {
        let withheld = found.caller.credentials.is_empty() && !self.credentials.is_empty();
        if !withheld || !found.caller.is_locked_out(&found.base, PROBE).await {
            return Ok(found);
        }
        let caller = Caller::new(client.clone(), self.credentials.clone())?;
        Ok(Found { caller, ..found })
    }
}

/// Nothing is at this address, by whatever words.
fn is_absent(fault: &Fault) -> bool {
    matches!(fault.status, Some(404 | 405))
        || fault.message.to_lowercase().contains("unexpected endpoint")
}

fn offered(offers: &[Offer]) -> String {
    match offers {
        [] => "answers, but offers no model".into(),
        [one] => format!("offers {}", one.id),
        [first, rest @ ..] => format!("offers {} and {} more", first.id, rest.len()),
    }
}

/// How to give a server its first model.
fn supply(source: Source) -> &'static str {
    match source {
        Source::Ollama => "get one that can call tools (`ollama pull qwen3`)",
        Source::LmStudio => "load one (`lms load <model> --context-length 32768`)",
        Source::FastFlowLm => "start it with one (`flm serve <model>`)",
        _ => "start it with one that can chat and call tools",
    }
}

#[cfg(test)]
mod more_tests;
#[cfg(test)]
mod tests;
