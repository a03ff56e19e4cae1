//! From the settings to one model that can be asked.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Url};

use super::probe::{self, Found, Offer, USUAL};
use super::{
    Attempt, Endpoint, Error, Fault, FaultKind, LimitsOrigin, Secret, address, client, native,
};
use crate::config::{self, Source};

/// How long the usual ports may take to answer; they are on this machine.
const PROBE: Duration = Duration::from_secs(1);
/// How long a server that the user named may take to list its models.
const NAMED: Duration = Duration::from_secs(5);
/// How long such a server may take to accept a connection.
const NAMED_CONNECT: Duration = Duration::from_millis(1500);
/// Assumed where neither server nor settings tell.
const USUAL_CONTEXT: u64 = 32_768;
/// Below this there is no room for work beside an agent's own prompt of 10 to 15 thousand tokens.
const SMALL_CONTEXT: u64 = 16_384;

/// Finds the model server and the model that the settings describe. `model` is over the
/// configured one. Answers within two seconds when there is no server.
pub async fn discover(config: &config::Model, model: Option<&str>) -> Result<Endpoint, Error> {
    let asked = model.or(config.model.as_deref()).map(str::trim).filter(|id| !id.is_empty());
    let url = config.url.as_deref().map(str::trim).filter(|url| !url.is_empty());
    if config.source == Source::Rehearsal
        || url.is_some_and(|url| url.eq_ignore_ascii_case("rehearsal"))
    {
        return rehearsal(model);
    }
    let key = read_key(&config.api_key_env)?;
    let search = Search { config, asked, key };
    match url {
        Some(url) => search.named(address::normalise(url)?).await,
        None => search.usual(&USUAL).await,
    }
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

fn read_key(variable: &str) -> Result<Option<Secret>, Error> {
    match std::env::var(variable) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => Secret::new(&value)
            .map(Some)
            .ok_or_else(|| Error::BadKey { variable: variable.to_owned() }),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::BadKey { variable: variable.to_owned() })
        }
    }
}

struct Search<'a> {
    config: &'a config::Model,
    asked: Option<&'a str>,
    key: Option<Secret>,
}

impl Search<'_> {
    /// A server whose address the user gave.
    async fn named(&self, base: Url) -> Result<Endpoint, Error> {
        let client = client::build(&base, NAMED_CONNECT)?;
        let mut warnings = Vec::new();
        let offers = match probe::offers(&client, &base, self.key.as_ref(), NAMED).await {
            Ok(offers) => offers,
            // Some gateways have no list; then the user's word for the model is enough.
            Err(Fault { status: Some(404 | 405), .. }) if self.asked.is_some() => {
                warnings
                    .push(format!("{base} has no list of models, so the model is taken on trust"));
                self.asked.map(Offer::named).into_iter().collect()
            }
            Err(fault) => return Err(Error::Unusable { url: base.into(), fault }),
        };
        if self.key.is_some() && base.scheme() == "http" && !address::is_loopback(&base) {
            warnings.push(format!("the API key travels unencrypted to {base}; use https there"));
        }
        let recognised = probe::recognise(&base, &offers);
        let source =
            if self.config.source == Source::Auto { recognised } else { self.config.source };
        let found = Found { base, source, offers, key: self.key.clone() };
        let tried = vec![Attempt {
            server: probe::name(source).into(),
            url: found.base.to_string(),
            outcome: offered(&found.offers),
        }];
        if found.offers.is_empty() {
            return Err(Error::NoModels { url: found.base.into(), remedy: supply(source).into() });
        }
        self.settle(&client, found, tried, warnings).await
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
        let client = client::build(&base, PROBE)?;
        let asked = ports.iter().filter(|(source, _)| wanted == Source::Auto || wanted == *source);
        let answers =
            join_all(asked.map(|(source, port)| self.knock(&client, *source, *port))).await;
        let mut tried = Vec::new();
        let mut found = Vec::new();
        for (attempt, answer) in answers {
            tried.push(attempt);
            found.extend(answer);
        }
        found.retain(|found| !found.offers.is_empty());
        if found.is_empty() {
            return Err(Error::NoneFound { tried });
        }
        // The first server in order of preference, or the first that has the model.
        let at = found
            .iter()
            .position(|found| self.asked.is_none_or(|asked| pick(asked, &found.offers).is_some()));
        let Some(at) = at else {
            return Err(Error::UnknownModel {
                asked: self.asked.unwrap_or_default().to_owned(),
                url: found
                    .iter()
                    .map(|found| found.base.as_str())
                    .collect::<Vec<_>>()
                    .join(" and "),
                known: found
                    .into_iter()
                    .flat_map(|found| found.offers)
                    .map(|offer| offer.id)
                    .collect(),
            });
        };
        self.settle(&client, found.swap_remove(at), tried, Vec::new()).await
    }

    /// One port, by IPv4 and then by IPv6: several servers listen on one of them only.
    async fn knock(&self, client: &Client, usual: Source, port: u16) -> (Attempt, Option<Found>) {
        let mut attempt = Attempt {
            server: probe::name(usual).into(),
            url: format!("http://127.0.0.1:{port}/v1"),
            outcome: String::new(),
        };
        for host in ["127.0.0.1", "[::1]"] {
            let Ok(base) = Url::parse(&format!("http://{host}:{port}/v1")) else { continue };
            let mut key = None;
            let mut answer = probe::offers(client, &base, None, PROBE).await;
            // The key goes only to a server that asks for one, since anything may listen here.
            if matches!(&answer, Err(fault) if fault.kind == FaultKind::Unauthorized) {
                key.clone_from(&self.key);
                if key.is_some() {
                    answer = probe::offers(client, &base, key.as_ref(), PROBE).await;
                }
            }
            match answer {
                Ok(offers) => {
                    attempt.url = base.to_string();
                    attempt.outcome = offered(&offers);
                    let source = probe::recognise(&base, &offers);
                    if offers.is_empty() {
                        attempt.outcome = format!("{}; {}", attempt.outcome, supply(source));
                    }
                    return (attempt, Some(Found { base, source, offers, key }));
                }
                // What IPv4 said is what matters, unless nothing was there at all.
                Err(fault) if attempt.outcome.is_empty() => {
                    attempt.outcome.clone_from(&fault.message);
                    if fault.kind != FaultKind::ConnectionRefused {
                        break;
                    }
                }
                Err(fault) if fault.is_unreachable() => {}
                Err(fault) => {
                    attempt.url = base.to_string();
                    attempt.outcome = fault.message;
                }
            }
        }
        (attempt, None)
    }

    /// The model on the server, and its limits.
    async fn settle(
        &self,
        client: &Client,
        found: Found,
        tried: Vec<Attempt>,
        mut warnings: Vec<String>,
    ) -> Result<Endpoint, Error> {
        let state = native::state(client, &found).await;
        let models: Vec<String> = found.offers.iter().map(|offer| offer.id.clone()).collect();
        let offer = match self.asked {
            Some(asked) => pick(asked, &found.offers).ok_or_else(|| Error::UnknownModel {
                asked: asked.to_owned(),
                url: found.base.to_string(),
                known: models.clone(),
            })?,
            // What is in memory answers at once; else the first that can chat.
            None => state
                .loaded
                .iter()
                .find_map(|(id, _)| pick(id, &found.offers))
                .or_else(|| found.offers.iter().find(|offer| can_chat(offer, &state.unsuited)))
                .ok_or_else(|| Error::NoModels {
                    url: found.base.to_string(),
                    remedy: supply(found.source).into(),
                })?,
        };
        let loaded = state.loaded.iter().find(|(id, _)| *id == offer.id);
        let mut stated = loaded.and_then(|(_, context)| *context).or(offer.context);
        let (shown, warning) = native::context(client, &found, &offer.id).await;
        stated = stated.or(shown);
        warnings.extend(warning);
        if state.tells && loaded.is_none() {
            warnings.push(format!(
                "`{}` is not in memory yet: the first answer waits until {} has loaded it",
                offer.id,
                probe::name(found.source)
            ));
        }
        let (context, output, limits) = self.limits(&offer.id, found.source, stated, &mut warnings);
        Ok(Endpoint {
            source: found.source,
            base_url: found.base.to_string(),
            model: offer.id.clone(),
            context,
            output,
            limits,
            api_key: found.key.clone(),
            models,
            warnings,
            tried,
        })
    }

    fn limits(
        &self,
        model: &str,
        source: Source,
        stated: Option<u64>,
        warnings: &mut Vec<String>,
    ) -> (u64, u64, LimitsOrigin) {
        let (context, origin) = match (self.config.context.filter(|set| *set > 0), stated) {
            (Some(set), Some(stated)) if set > stated => {
                warnings.push(format!(
                    "`model.context` is {set}, but `{model}` was loaded with {stated}, which is used"
                ));
                (stated, LimitsOrigin::Server)
            }
            (Some(set), _) => (set, LimitsOrigin::Configuration),
            (None, Some(stated)) => (stated, LimitsOrigin::Server),
            (None, None) => {
                warnings.push(format!(
                    "{} does not tell the context length of `{model}`; {USUAL_CONTEXT} is assumed \
                     (its default may be as small as 4096): set `model.context`",
                    probe::name(source)
                ));
                (USUAL_CONTEXT, LimitsOrigin::Assumed)
            }
        };
        let context = context.max(2);
        if context < SMALL_CONTEXT {
            warnings.push(format!(
                "`{model}` has a context of {context} tokens, and the agent's own prompt needs 10 to \
                 15 thousand; {}",
                enlarge(source)
            ));
        }
        // vLLM refuses a request whose prompt and output together pass the context, so the output
        // must leave most of it to the prompt.
        let output = match self.config.output.filter(|set| *set > 0) {
            Some(set) if set >= context => {
                warnings.push(format!(
                    "`model.output` is {set}, but the context is {context}; {} is used",
                    context / 2
                ));
                context / 2
            }
            Some(set) => set,
            None => (context / 4).clamp(1, 16_384),
        };
        (context, output, origin)
    }
}

/// The offer that `asked` names; Ollama's tag `latest` may be left out.
fn pick<'a>(asked: &str, offers: &'a [Offer]) -> Option<&'a Offer> {
    let latest = format!("{asked}:latest");
    offers
        .iter()
        .find(|offer| offer.id == asked)
        .or_else(|| offers.iter().find(|offer| offer.id == latest))
}

fn can_chat(offer: &Offer, unsuited: &[String]) -> bool {
    let id = offer.id.to_lowercase();
    !unsuited.contains(&offer.id)
        && !["embed", "rerank", "whisper"].iter().any(|word| id.contains(word))
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

/// How to give a model more context.
fn enlarge(source: Source) -> &'static str {
    match source {
        Source::Vllm => "restart vLLM with a larger `--max-model-len`",
        Source::LmStudio => "reload it (`lms load <model> --context-length 32768`)",
        Source::Ollama => "restart Ollama with OLLAMA_CONTEXT_LENGTH=32768",
        Source::FastFlowLm => "restart it with `flm serve <model> --ctx-len 32768`",
        Source::LlamaCpp => "restart llama-server with `-c 32768`",
        _ => "load it with 32768 or more",
    }
}

#[cfg(test)]
mod tests;
