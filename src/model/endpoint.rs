//! A model on a server, ready to be asked.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::credentials::Credentials;
use super::error::Attempt;
use super::fault::Fault;
use super::redact::Secrets;
use crate::config::Source;

/// The base address that stands for the model inside this program.
pub const REHEARSAL_URL: &str = "rehearsal://built-in/v1";

/// Which model on which server, and how much it can hold.
#[derive(Clone, Debug, Serialize)]
pub struct Endpoint {
    /// The kind of server that answered; never `auto`.
    pub source: Source,
    /// What the paths of its API stand behind; ends in `/v1` with most.
    pub base_url: String,
    pub model: String,
    /// Tokens of prompt and answer together.
    pub context: u64,
    /// Most tokens of one answer; less than `context`.
    pub output: u64,
    pub limits: LimitsOrigin,
    pub api_key: Option<Secret>,
    /// The variable that the key is read from.
    pub key_variable: String,
    /// Headers that the server is sent besides, by their names.
    pub headers: Vec<(String, Secret)>,
    /// Further certificate authorities (PEM) that its certificate may be by.
    pub ca_bundle: Option<PathBuf>,
    /// Whether the model can see pictures.
    pub vision: bool,
    /// How many requests the server works on at once, where it says so. They may share the context.
    pub slots: Option<u64>,
    /// Every model that the server offers.
    pub models: Vec<String>,
    /// What a person should know before they rely on this endpoint.
    pub warnings: Vec<String>,
    /// Every address that was asked on the way here.
    pub tried: Vec<Attempt>,
}

impl Endpoint {
    /// The scripted model inside this program.
    pub fn rehearsal() -> Self {
        Self {
            source: Source::Rehearsal,
            base_url: REHEARSAL_URL.into(),
            model: super::rehearsal::MODEL.into(),
            context: 128_000,
            output: 8192,
            limits: LimitsOrigin::Server,
            api_key: None,
            key_variable: String::new(),
            headers: Vec::new(),
            ca_bundle: None,
            vision: false,
            slots: None,
            models: vec![super::rehearsal::MODEL.into()],
            warnings: vec![
                "this is the rehearsal model: it follows a script and knows nothing".into(),
            ],
            tried: Vec::new(),
        }
    }

    pub fn is_rehearsal(&self) -> bool {
        self.source == Source::Rehearsal
    }

    /// All that the server is shown so that it answers.
    pub fn credentials(&self) -> Credentials {
        Credentials {
            variable: self.key_variable.clone(),
            key: self.api_key.clone(),
            headers: self.headers.clone(),
        }
    }

    /// Returns what must not be said of it.
    pub fn secrets(&self) -> Secrets {
        self.credentials().secrets()
    }

    /// A fault of this server without its secrets, and with the remedy that fits its settings.
    pub fn explain(&self, fault: Fault) -> Fault {
        self.credentials().explain(fault)
    }
}

/// Who said how long the context is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsOrigin {
    /// The server.
    Server,
    /// `model.context`.
    Configuration,
    /// Nobody; a usual value is assumed.
    Assumed,
}

/// Fewer characters are no secret that could be told from other words.
const RECOGNISABLE: usize = 12;

/// An API key, or another header's value. It reaches the headers of requests and nothing else: it
/// cannot be printed, formatted or serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// `None` for a text that cannot be an API key: empty, or not fit for a header.
    pub fn new(value: &str) -> Option<Self> {
        let value = value.trim();
        let fit = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
        fit.then(|| Self(value.to_owned()))
    }

    /// A header's whole value, which may be of several words, such as `Basic …`.
    pub fn of_header(value: &str) -> Option<Self> {
        let value = value.trim();
        let fit = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
        (!value.is_empty() && value.bytes().all(fit)).then(|| Self(value.to_owned()))
    }

    /// The value, for the one place that sends it.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Its words, each of which may be said back by itself.
    pub(super) fn words(&self) -> impl Iterator<Item = Self> {
        self.0.split(' ').map(|word| Self(word.to_owned()))
    }

    /// Local servers are often given words such as `none` or `lm-studio` for a key. Those are no
    /// secrets, and taking them out of an answer would garble it.
    pub(crate) fn is_recognisable(&self) -> bool {
        self.0.len() >= RECOGNISABLE
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[api key]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[api key]")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secrets;
    use super::*;

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let mut endpoint = Endpoint::rehearsal();
        endpoint.api_key = Secret::new(" sk-hidden-value \n");
        let shown = format!(
            "{endpoint:?} {:#?} {} {}",
            endpoint,
            serde_json::to_string(&endpoint).expect("plain data"),
            endpoint.api_key.clone().expect("fit for a header"),
        );
        assert!(!shown.contains("sk-hidden-value"), "{shown}");
        let key = endpoint.api_key.expect("fit for a header");
        assert_eq!(key.expose(), "sk-hidden-value");
        assert_eq!(Secrets::new([&key]).redact("bad key sk-hidden-value!"), "bad key [api key]!");
        let none = Secret::new("none").expect("fit");
        assert_eq!(Secrets::new([&none]).redact("none found"), "none found");
    }

    #[test]
    fn what_is_unfit_for_a_header_is_no_secret() {
        for unfit in ["", "  ", "a b", "a\r\nX-Evil: 1", "schlüssel"] {
            assert!(Secret::new(unfit).is_none(), "{unfit:?}");
        }
    }
}
