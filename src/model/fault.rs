//! Every way in which a model server can fail a request, as one type.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::FaultKind;
use super::words;

/// One failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: FaultKind,
    /// What happened, with the server's own words where it said any; clean and short.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    pub status: Option<u16>,
}

impl Fault {
    pub fn new(kind: FaultKind, message: &str) -> Self {
        let hint = kind.hint().map(str::to_owned);
        Self { kind, message: words::tidy(message), hint, status: None }
    }

    /// See [`FaultKind::is_unreachable`].
    pub fn is_unreachable(&self) -> bool {
        self.kind.is_unreachable()
    }

    /// A reply whose status is not a success.
    pub fn from_status(status: u16, body: &[u8]) -> Self {
        let said = words::from_body(body);
        let kind = words::classify(status, &said);
        let text = if said.text.is_empty() { "the server said nothing more" } else { &said.text };
        let mut fault = Self::new(kind, &format!("HTTP {status}: {text}"));
        fault.status = Some(status);
        if let Some(hint) = words::hint(status, kind, &said.text) {
            fault.hint = Some(hint.to_owned());
        }
        fault
    }

    /// An `error` object in an answer whose status was a success.
    pub fn from_error_object(body: &[u8]) -> Self {
        let said = words::from_body(body);
        let kind = match words::classify(said.code.unwrap_or(500), &said) {
            FaultKind::HttpStatus => FaultKind::StreamError,
            kind => kind,
        };
        let text = if said.text.is_empty() { "an error without words" } else { &said.text };
        let mut fault = Self::new(kind, text);
        if let Some(hint) = words::hint(0, kind, &said.text) {
            fault.hint = Some(hint.to_owned());
        }
        fault
    }

    /// A success that is neither JSON nor a stream of events.
    pub fn from_misfit(content_type: &str, body: &[u8]) -> Self {
        let said = words::from_body(body).text;
        Self::new(FaultKind::NotJson, &format!("the server answered with {content_type}: {said}"))
    }

    pub fn first_byte_timeout(waited: Duration) -> Self {
        let seconds = waited.as_secs_f32();
        Self::new(
            FaultKind::FirstByteTimeout,
            &format!("the server took the request and did not begin an answer within {seconds} s"),
        )
    }

    pub fn stalled(waited: Duration) -> Self {
        let seconds = waited.as_secs_f32();
        Self::new(
            FaultKind::Stalled,
            &format!("the server fell silent in the middle of an answer for {seconds} s"),
        )
    }

    /// A request that failed below HTTP. `began` says whether a part of the answer had arrived.
    pub fn from_transport(error: &reqwest::Error, began: bool) -> Self {
        let host = error.url().map_or_else(
            || "the server".to_owned(),
            |url| {
                let host = url.host_str().unwrap_or_default();
                url.port_or_known_default()
                    .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
            },
        );
        let causes = causes(error);
        let deepest = causes.last().cloned().unwrap_or_else(|| error.to_string());
        let (kind, message) = if find::<rustls::Error>(error).is_some() {
            (FaultKind::Tls, format!("no TLS connection to {host}: {deepest}"))
        } else if error.is_dns() {
            (FaultKind::HostNotFound, format!("the name of {host} cannot be resolved: {deepest}"))
        } else if error.is_connect() && error.is_timeout() {
            (FaultKind::ConnectTimeout, format!("{host} did not take the connection in time"))
        } else if error.is_connect() {
            match find::<io::Error>(error).map(io::Error::kind) {
                Some(io::ErrorKind::ConnectionRefused) => {
                    (FaultKind::ConnectionRefused, format!("{host} refused the connection"))
                }
                _ => (FaultKind::HostUnreachable, format!("{host} cannot be reached: {deepest}")),
            }
        } else if began {
            (FaultKind::StreamCut, format!("the answer of {host} was cut off: {deepest}"))
        } else if causes.iter().any(|cause| cause.contains("invalid HTTP")) {
            (FaultKind::NotJson, format!("{host} does not speak HTTP: {deepest}"))
        } else {
            (
                FaultKind::StreamCut,
                format!("{host} closed the connection without an answer: {deepest}"),
            )
        };
        Self::new(kind, &message)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Fault {}

fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(error.source(), |error| (*error).source())
}

fn causes(error: &reqwest::Error) -> Vec<String> {
    chain(error).map(ToString::to_string).collect()
}

/// A cause of a type. An `io::Error` that wraps another error does not show it as its source, so
/// those are opened by hand, however deep they are packed.
fn find<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    chain(error).find_map(|cause| {
        let packed = std::iter::successors(Some(cause), |cause| {
            let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
            Some(inner as &(dyn StdError + 'static))
        });
        packed.into_iter().filter_map(|cause| cause.downcast_ref::<E>()).last()
    })
}
