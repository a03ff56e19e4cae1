//! The model server: which addresses were asked, what is there, and whether it can call tools.

use std::time::Duration;

use super::finding::{Finding, Level};
use crate::config::{self, Config, Source};
use crate::model::preflight::{Reading, RoundTrip, reading, tool_round_trip};
use crate::model::{Attempt, Endpoint, Error, FaultKind, LimitsOrigin, Patience, discover};

/// Longer than a search by its own bounds takes.
const SEARCH: Duration = Duration::from_secs(40);
/// Time for a server that loads its model; a run waits longer.
const LOADING: Duration = Duration::from_secs(10);
/// A large model may first have to be read into memory.
const ROUND_TRIP: Duration = Duration::from_secs(150);

/// What to say of the server and its model, and the model where there is one.
pub async fn examine(settings: &Config) -> (Vec<Finding>, Option<Endpoint>) {
    let config = &settings.model;
    let mut findings = Vec::new();
    let rehearsal = config.source == Source::Rehearsal;
    if !rehearsal {
        findings.push(key(&config.api_key_env));
    }
    let search = discover(config, None, Patience::silent(LOADING));
    match tokio::time::timeout(SEARCH, search).await {
        Ok(Ok(endpoint)) => {
            findings.extend(describe(&endpoint, config));
            findings.extend(slots(&endpoint, settings));
            (findings, Some(endpoint))
        }
        Ok(Err(Error::Unusable { url, fault })) if fault.kind == FaultKind::Loading => {
            let message = format!("the server at {url} is not ready yet: {fault}");
            let remedy = format!(
                "a run waits for it up to {} s (`model.first_byte_timeout`); run `doctor` again \
                 when it is ready",
                config.first_byte_timeout
            );
            findings.push(Finding::warning("server", message, remedy));
            (findings, None)
        }
        Ok(Err(error)) => {
            findings.push(failed("server", &error));
            (findings, None)
        }
        Err(_) => {
            let message = format!("not found within {} s", SEARCH.as_secs());
            findings.push(Finding::error("server", message, "check the host in `model.url`"));
            (findings, None)
        }
    }
}

/// One real round trip with a tool, which is all that an agent does.
pub async fn try_tools(endpoint: &Endpoint, config: &Config) -> Vec<Finding> {
    match tokio::time::timeout(ROUND_TRIP, tool_round_trip(endpoint)).await {
        Ok(Ok(trip)) => {
            let mut findings = went_well(&trip);
            findings.extend(speed(endpoint, config, trip.reading).await);
            findings
        }
        Ok(Err(error)) => vec![failed("tools", &error)],
        Err(_) => vec![Finding::error(
            "tools",
            format!("the model did not end its answer within {} s", ROUND_TRIP.as_secs()),
            "look at the server's log, or use a smaller model",
        )],
    }
}

/// Tokens of the agent's first request.
const AGENT_PROMPT: u32 = 11_000;
/// Tokens that a run needs to do any work.
const RUN: u64 = 16_384;

/// Tells when no run can begin in time: a slow machine reads the agent's prompt for minutes.
async fn speed(endpoint: &Endpoint, config: &Config, first: Option<Reading>) -> Option<Finding> {
    let first_byte = config.model.first_byte_timeout;
    let bound = Duration::from_secs(first_byte.min(config.limits.timeout));
    let is_slow = |reading: &Reading| reading.of(AGENT_PROMPT) > bound.mul_f64(0.6);
    let first = first.filter(is_slow)?;
    // The first request may have waited for the model to be loaded. Where this one fails, the
    // round trip still went well, and its own measure is what there is.
    let again = tokio::time::timeout(ROUND_TRIP, reading(endpoint)).await;
    let again = again.ok().and_then(Result::ok).flatten().unwrap_or(first);
    let reading = if again.of(1) < first.of(1) { again } else { first };
    is_slow(&reading).then(|| {
        let rate = 1.0 / reading.of(1).as_secs_f64();
        let message = format!(
            "the server is slow: it reads {rate:.0} tokens a second, so the agent's first request \
             of about {AGENT_PROMPT} takes some {} s before the first word; allowed are {first_byte} s, \
             and a whole run has {} s",
            reading.of(AGENT_PROMPT).as_secs(),
            config.limits.timeout
        );
        let remedy = "raise `model.first_byte_timeout` and `limits.timeout`, use a smaller model, or \
                      let the graphics processor work";
        Finding::warning("speed", message, remedy)
    })
}

/// Tells the number of runs that fit where several requests share one context.
fn slots(endpoint: &Endpoint, config: &Config) -> Option<Finding> {
    let slots = endpoint.slots.filter(|slots| *slots > 1)?;
    let fit = (endpoint.context / RUN).clamp(1, slots);
    let runs = config
        .limits
        .concurrency
        .or_else(|| std::thread::available_parallelism().ok().map(std::num::NonZeroUsize::get));
    let message = format!(
        "the server works on {slots} requests at once; unless each has a context of its own \
         (`--no-kv-unified`), they share {} tokens: {fit} run{} at a time",
        endpoint.context,
        if fit == 1 { " fits" } else { "s fit" },
    );
    if runs.is_none_or(|runs| runs as u64 <= fit) {
        return Some(Finding::ok("slots", message));
    }
    let remedy = format!(
        "set `limits.concurrency = {fit}`, since more runs end each other, or restart the server \
         with a longer context (`-c`)"
    );
    Some(Finding::warning("slots", message, remedy))
}

/// Whether there is a key; never which.
fn key(variable: &str) -> Finding {
    let set = std::env::var_os(variable).is_some_and(|value| !value.is_empty());
    let said = if set { "is set" } else { "is not set, which is fine where none is asked for" };
    Finding::ok("key", format!("{variable} {said}"))
}

fn describe(endpoint: &Endpoint, config: &config::Model) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !endpoint.is_rehearsal() {
        findings.push(Finding::ok("asked", attempts(&endpoint.tried)));
        findings.push(Finding::ok("server", &endpoint.base_url));
        let chosen = &endpoint.model;
        let others: Vec<_> = endpoint.models.iter().filter(|model| *model != chosen).collect();
        let shown: Vec<_> = others.iter().take(8).map(|model| model.as_str()).collect();
        let message = match (others.len(), others.len() - shown.len()) {
            (0, _) => format!("{chosen}, the only one"),
            (_, 0) => format!("{chosen} (also there: {})", shown.join(", ")),
            (_, more) => format!("{chosen} (also there: {} and {more} more)", shown.join(", ")),
        };
        findings.push(Finding::ok("model", message));
        findings.push(limits(endpoint, config));
    }
    findings.extend(endpoint.warnings.iter().map(|warning| {
        if endpoint.is_rehearsal() {
            let remedy = "for real work start a model server, and remove `rehearsal` from the \
                          settings";
            return Finding::warning("server", warning, remedy);
        }
        let otherwise = "nothing has to be done, if you expected this";
        Finding::told(Level::Warning, "model", warning, otherwise)
    }));
    findings
}

fn limits(endpoint: &Endpoint, config: &config::Model) -> Finding {
    let context = match endpoint.limits {
        LimitsOrigin::Server => "as the server says",
        LimitsOrigin::Configuration => "by `model.context`",
        LimitsOrigin::Assumed => "assumed, because nobody says",
    };
    let output = match config.output {
        Some(set) if set == endpoint.output => "by `model.output`",
        _ => "derived from that",
    };
    Finding::ok(
        "limits",
        format!(
            "context {} tokens ({context}), answers up to {} ({output})",
            endpoint.context, endpoint.output
        ),
    )
}

fn went_well(trip: &RoundTrip) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(
        "tools",
        format!(
            "a tool was called after {} ms, and all was said after {} ms",
            trip.call_ms, trip.total_ms
        ),
    )];
    if !trip.used_result {
        findings.push(Finding::warning(
            "tools",
            format!("the model passed over what the tool answered, and said: {}", trip.answer),
            "use a model that was trained for tools, or check the server's chat template",
        ));
    }
    if trip.as_thoughts {
        findings.push(Finding::warning(
            "tools",
            format!("the closing words came as reasoning, not as an answer: {}", trip.answer),
            "start the server without its reasoning parser, or with that of the model's own family",
        ));
    }
    if !trip.counts_tokens {
        findings.push(Finding::warning(
            "usage",
            "the server does not count tokens, so reports show none",
            "update the server, or switch on usage in streams (`stream_options.include_usage`)",
        ));
    }
    findings
}

fn failed(check: &'static str, error: &Error) -> Finding {
    // The server's own words can hold anything, so they are not searched for a remedy.
    let (message, remedy) = match error {
        Error::NoneFound { tried } => (
            format!("no model server was found; asked were {}", attempts(tried)),
            Some(
                "start one (`vllm serve <model> --enable-auto-tool-choice --tool-call-parser \
                 <parser>`, `lms server start`, `ollama serve`, `flm serve <model>`, \
                 `llama-server --jinja -m <file>`), name one with `--model-url http://host:port`, \
                 or try without any model: `sandbox-mcp run --model-url rehearsal`"
                    .to_owned(),
            ),
        ),
        Error::Unusable { url, fault } => {
            (format!("the server at {url} cannot be used: {fault}"), fault.hint.clone())
        }
        Error::Faulted { model, fault } => {
            (format!("no answer from {model}: {fault}"), fault.hint.clone())
        }
        Error::NoModels { url, remedy } => {
            (format!("the server at {url} offers no model"), Some(remedy.clone()))
        }
        Error::NoTools { model, why, remedy } => {
            (format!("{model} cannot use tools: {why}"), Some(remedy.clone()))
        }
        Error::Authorities { .. }
        | Error::BadUrl { .. }
        | Error::NeedsUrl { .. }
        | Error::UnknownModel { .. }
        | Error::BadKey { .. }
        | Error::Client { .. } => {
            let text = format!("failed to {error}");
            return Finding::told(Level::Error, check, &text, "correct `model.url`");
        }
    };
    Finding::error(check, message, remedy.as_deref().unwrap_or("look at the server's log"))
}

fn attempts(tried: &[Attempt]) -> String {
    let said = tried.iter().map(|attempt| {
        // Most outcomes name the address themselves.
        let address = attempt.url.trim_start_matches("http://").trim_end_matches("/v1");
        match attempt.outcome.strip_prefix(address) {
            Some(outcome) => format!("{} at {address} ({})", attempt.server, outcome.trim()),
            None => format!("{} at {} ({})", attempt.server, attempt.url, attempt.outcome),
        }
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Fault;

    #[test]
    fn runs_that_would_end_each_other_are_counted() {
        let mut config = Config::default();
        config.limits.concurrency = Some(2);
        let of = |number, context| {
            slots(&Endpoint { slots: number, context, ..Endpoint::rehearsal() }, &config)
        };
        let shared = of(Some(4), 20_000).expect("a finding");
        assert_eq!(shared.level, Level::Warning);
        assert!(shared.message.contains("1 run fits"), "{}", shared.message);
        assert!(shared.remedy.is_some_and(|remedy| remedy.contains("concurrency = 1")));
        assert_eq!(of(Some(4), 65_536).map(|found| found.level), Some(Level::Ok));
        assert_eq!(of(Some(1), 20_000), None);
        assert_eq!(of(None, 20_000), None);
    }

    #[test]
    fn what_was_asked_is_said_once_for_each_address() {
        let attempt = |outcome: &str| Attempt {
            server: "vLLM".into(),
            url: "http://127.0.0.1:8000/v1".into(),
            outcome: outcome.into(),
        };
        let refused = attempts(&[attempt("127.0.0.1:8000 refused the connection")]);
        assert_eq!(refused, "vLLM at 127.0.0.1:8000 (refused the connection)");
        let answered = attempts(&[attempt("offers m")]);
        assert_eq!(answered, "vLLM at http://127.0.0.1:8000/v1 (offers m)");
    }

    #[test]
    fn a_servers_words_are_never_taken_for_a_remedy() {
        let fault = Fault {
            kind: FaultKind::HttpStatus,
            message: "HTTP 500: broken; rm -rf /".into(),
            hint: None,
            status: Some(500),
        };
        let found = failed("tools", &Error::Faulted { model: "m".into(), fault });
        assert_eq!(found.remedy.as_deref(), Some("look at the server's log"));
        assert!(found.message.contains("rm -rf"));
    }

    #[test]
    fn a_model_that_ignores_its_tools_is_a_warning() {
        let trip = RoundTrip {
            call_ms: 5,
            total_ms: 9,
            answer: "hello".into(),
            used_result: false,
            as_thoughts: false,
            counts_tokens: false,
            reading: None,
        };
        let levels: Vec<_> = went_well(&trip).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Warning, Level::Warning]);
    }
}
