//! From a server to one of its models, with its limits.

use super::{Search, supply};
use crate::config::Source;
use crate::model::probe::{self, Found, Offer};
use crate::model::{Attempt, Endpoint, Error, LimitsOrigin, native};

/// Assumed where neither server nor settings tell.
pub(super) const USUAL_CONTEXT: u64 = 32_768;
/// Below this there is no room for work beside an agent's own prompt of 10 to 15 thousand tokens.
const SMALL_CONTEXT: u64 = 16_384;

impl Search<'_> {
    /// The model on the server, and its limits.
    pub(super) async fn settle(
        &self,
        found: Found,
        tried: Vec<Attempt>,
        mut warnings: Vec<String>,
    ) -> Result<Endpoint, Error> {
        let state = native::state(&found).await;
        let models: Vec<String> = found.offers.iter().map(|offer| offer.id.clone()).collect();
        let of_pattern;
        let offer = if let Some(asked) = self.asked {
            of_pattern = Offer::named(asked);
            let is_one = || found.offers.iter().any(|offer| is_pattern_of(&offer.id, asked));
            pick(asked, &found.offers).or_else(|| is_one().then_some(&of_pattern)).ok_or_else(
                || Error::UnknownModel {
                    asked: asked.to_owned(),
                    url: found.base.to_string(),
                    known: models.clone(),
                },
            )?
        } else {
            // What is in memory answers at once; else the first that can chat.
            let loaded = state.loaded.iter().filter_map(|(id, _)| pick(id, &found.offers));
            let offers: Vec<_> = loaded
                .chain(&found.offers)
                .filter(|offer| can_chat(offer, &state.unsuited))
                .collect();
            native::choose(&found, &offers).await.ok_or_else(|| Error::NoModels {
                url: found.base.to_string(),
                remedy: supply(found.source).into(),
            })?
        };
        let (model, server) = (&offer.id, probe::name(found.source));
        let loaded = state.loaded.iter().find(|(id, _)| id == model);
        let traits = native::traits(&found, model).await;
        let stated = loaded.and_then(|(_, context)| *context).or(offer.context).or(traits.context);
        if traits.is_unsuited || offer.is_unsuited || state.unsuited.contains(model) {
            warnings.push(format!("{server} says that `{model}` cannot chat; choose another"));
        } else if traits.tools == Some(false) {
            warnings.push(format!(
                "{server} says that `{model}` cannot call tools; an agent needs one that can"
            ));
        }
        if state.tells && loaded.is_none() {
            warnings.push(format!(
                "`{model}` is not in memory yet: the first answer waits until {server} has loaded it"
            ));
        } else if traits.sleeps {
            warnings.push(format!(
                "`{model}` sleeps: the first answer waits until {server} has it in memory again"
            ));
        }
        let (context, output, limits) = self.limits(offer, found.source, stated, &mut warnings);
        let seen = state.seeing.contains(model).then_some(true);
        let vision = self.config.vision.or(traits.vision).or(seen).or(offer.vision);
        Ok(Endpoint {
            source: found.source,
            base_url: found.base.to_string(),
            model: model.clone(),
            context,
            output,
            limits,
            api_key: found.caller.key(),
            key_variable: self.credentials.variable.clone(),
            headers: found.caller.credentials.headers.clone(),
            ca_bundle: self.config.ca_bundle.clone(),
            vision: vision.unwrap_or(false),
            slots: traits.slots,
            models,
            warnings,
            tried,
        })
    }

    fn limits(
        &self,
        offer: &Offer,
        source: Source,
        stated: Option<u64>,
        warnings: &mut Vec<String>,
    ) -> (u64, u64, LimitsOrigin) {
        let model = &offer.id;
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
            None => (context / 4).min(offer.output.unwrap_or(u64::MAX)).clamp(1, 16_384),
        };
        (context, output, origin)
    }
}

/// The offer that `asked` names; Ollama's tag `latest` may be left out.
pub(super) fn pick<'a>(asked: &str, offers: &'a [Offer]) -> Option<&'a Offer> {
    let latest = format!("{asked}:latest");
    offers
        .iter()
        .find(|offer| offer.id == asked)
        .or_else(|| offers.iter().find(|offer| offer.id == latest))
}

/// Whether an entry such as `openai/*`, as proxies list them, stands for a model.
fn is_pattern_of(entry: &str, asked: &str) -> bool {
    entry.strip_suffix('*').is_some_and(|front| !front.is_empty() && asked.starts_with(front))
}

/// Whether a model is for chats, by what the server says and else by its name.
fn can_chat(offer: &Offer, unsuited: &[String]) -> bool {
    const OTHERS: [&str; 7] =
        ["embed", "rerank", "whisper", "bge-", "minilm", "text-to-speech", "stable-diffusion"];
    let id = offer.id.to_lowercase();
    !offer.is_unsuited
        && !unsuited.contains(&offer.id)
        && !OTHERS.iter().any(|word| id.contains(word))
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
