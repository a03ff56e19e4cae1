//! What a model server is shown so that it answers: its key, and headers for what stands in front
//! of it.

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::{Error, Fault, FaultKind, Secret, Secrets};
use crate::config;

/// The secrets for one server. They reach its headers and nothing else.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The variable of the key, for messages; empty where there is none.
    pub variable: String,
    pub key: Option<Secret>,
    pub headers: Vec<(String, Secret)>,
}

impl Credentials {
    /// Reads the variables that the settings name. What is missing is told in `warnings`, except
    /// for the key, which most servers do not want.
    pub fn read(config: &config::Model, warnings: &mut Vec<String>) -> Result<Self, Error> {
        let variable = config.api_key_env.clone();
        let bad = |variable: &str| Error::BadKey { variable: variable.to_owned() };
        let key = match read(&variable)? {
            Some(value) => Some(Secret::new(&value).ok_or_else(|| bad(&variable))?),
            None => None,
        };
        let mut headers = Vec::new();
        for (name, variable) in &config.headers {
            match read(variable)? {
                Some(value) => {
                    let value = Secret::of_header(&value).ok_or_else(|| bad(variable))?;
                    headers.push((name.clone(), value));
                }
                None => warnings.push(format!(
                    "the variable {variable} of `model.headers` is not set, so the server gets no \
                     `{name}`"
                )),
            }
        }
        Ok(Self { variable, key, headers })
    }

    /// The same without any secret, for a server that did not ask.
    #[must_use]
    pub fn withheld(&self) -> Self {
        Self { variable: self.variable.clone(), ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.key.is_none() && self.headers.is_empty()
    }

    /// Adds them to `headers`. A header of the settings wins over the key's own.
    pub fn apply(&self, headers: &mut HeaderMap) -> Result<(), Error> {
        if let Some(key) = &self.key {
            let bearer = format!("Bearer {}", key.expose());
            headers.insert(AUTHORIZATION, secret(&bearer, &self.variable)?);
        }
        for (name, value) in &self.headers {
            let header = HeaderName::try_from(name.as_str())
                .map_err(|_| Error::BadKey { variable: name.clone() })?;
            headers.insert(header, secret(value.expose(), name)?);
        }
        Ok(())
    }

    pub fn secrets(&self) -> Secrets {
        Secrets::new(self.key.iter().chain(self.headers.iter().map(|(_, value)| value)))
    }

    /// Takes every secret out of a fault's words, and says of a refused key which it was.
    pub fn explain(&self, mut fault: Fault) -> Fault {
        fault.message = self.secrets().redact(&fault.message);
        if fault.kind == FaultKind::Unauthorized && !self.variable.is_empty() {
            let Self { variable, .. } = self;
            fault.hint = Some(if self.key.is_some() {
                format!(
                    "the server refused the key in {variable} (`model.api_key_env`), which is set; \
                     set that variable to the server's own key"
                )
            } else if self.headers.is_empty() {
                format!(
                    "put the server's key into the environment variable {variable} \
                     (`model.api_key_env`), which is not set"
                )
            } else {
                format!(
                    "the server refused what `model.headers` sends; correct those variables, or \
                     put the server's key into {variable} (`model.api_key_env`)"
                )
            });
        }
        fault
    }
}

/// The value of a variable, where it holds one.
fn read(variable: &str) -> Result<Option<String>, Error> {
    match std::env::var(variable) {
        Ok(value) => Ok(Some(value).filter(|value| !value.trim().is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => {
            Err(Error::BadKey { variable: variable.to_owned() })
        }
    }
}

/// A header's value, marked so that no log of the client shows it.
fn secret(value: &str, variable: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| Error::BadKey { variable: variable.to_owned() })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            variable: "THE_KEY".into(),
            key: Secret::new("sk-0123456789ab"),
            headers: vec![(
                "X-Gate".into(),
                Secret::of_header("Basic bWU6aHVudGVyMg==").expect("fit"),
            )],
        }
    }

    #[test]
    fn a_refused_key_is_named_and_never_shown() {
        let said = r#"{"error":"no: sk-0123456789ab, bWU6aHVudGVyMg=="}"#;
        let fault = credentials().explain(Fault::from_status(401, said.as_bytes()));
        let hint = fault.hint.expect("a hint");
        assert!(hint.contains("THE_KEY") && hint.contains("refused"), "{hint}");
        assert_eq!(fault.message, "HTTP 401: no: [api key], [api key]");
        let bare = credentials().withheld().explain(Fault::from_status(401, b""));
        assert!(bare.hint.is_some_and(|hint| hint.contains("THE_KEY") && hint.contains("not set")));
        assert!(!format!("{:?}", credentials()).contains("sk-"));
    }

    #[test]
    fn a_header_of_the_settings_wins_over_the_keys() {
        let mut credentials = credentials();
        credentials.headers[0].0 = "authorization".into();
        let mut headers = HeaderMap::new();
        credentials.apply(&mut headers).expect("fit");
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[AUTHORIZATION], "Basic bWU6aHVudGVyMg==");
        assert!(headers[AUTHORIZATION].is_sensitive());
    }
}
