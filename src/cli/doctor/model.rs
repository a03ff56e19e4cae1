//! The model server: which addresses were asked, what is there, and whether it can call tools.

use std::time::Duration;

use super::finding::{Finding, Level};
use crate::config::{self, Source};
use crate::model::preflight::{RoundTrip, tool_round_trip};
use crate::model::{Attempt, Endpoint, Error, LimitsOrigin, discover};

/// Longer than a search by its own bounds takes.
const SEARCH: Duration = Duration::from_secs(20);
/// A large model may first have to be read into memory.
const ROUND_TRIP: Duration = Duration::from_secs(150);

/// What to say of the server and its model, and the model where there is one.
pub async fn examine(config: &config::Model) -> (Vec<Finding>, Option<Endpoint>) {
    let mut findings = Vec::new();
    let rehearsal = config.source == Source::Rehearsal;
    if !rehearsal {
        findings.push(key(&config.api_key_env));
    }
    match tokio::time::timeout(SEARCH, discover(config, None)).await {
        Ok(Ok(endpoint)) => {
            findings.extend(describe(&endpoint, config));
            (findings, Some(endpoint))
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
pub async fn try_tools(endpoint: &Endpoint) -> Vec<Finding> {
    match tokio::time::timeout(ROUND_TRIP, tool_round_trip(endpoint)).await {
        Ok(Ok(trip)) => went_well(&trip),
        Ok(Err(error)) => vec![failed("tools", &error)],
        Err(_) => vec![Finding::error(
            "tools",
            format!("the model did not end its answer within {} s", ROUND_TRIP.as_secs()),
            "look at the server's log, or use a smaller model",
        )],
    }
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
        Error::BadUrl { .. }
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
    use crate::model::{Fault, FaultKind};

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
            counts_tokens: false,
        };
        let levels: Vec<_> = went_well(&trip).iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Warning, Level::Warning]);
    }
}
