//! A secret that a person lends to a sandbox without showing it: the proxy puts it into requests.

use std::fmt;

use http::{HeaderName, HeaderValue, header};

use crate::config::Name;
use crate::gateway::Error;
use crate::model::{Redactor, Secret, Secrets};

/// A header that every request to one host gets, over TLS on port 443. The host is allowed for
/// that without being in [`super::Egress::allow`].
#[derive(Clone)]
pub struct Credential {
    host: Name,
    header: HeaderName,
    value: HeaderValue,
    /// What must not come back: the value without the word in front (`Bearer`, `Basic`, `token`).
    secret: Secret,
}

impl Credential {
    /// The errors never hold the value.
    pub fn new(host: &str, header: &str, value: &str) -> Result<Self, Error> {
        let bad = |why| Error::Credential { host: host.chars().take(260).collect(), why };
        let name = Name::parse(host).map_err(|_| bad("its host is not one exact name"))?;
        let header: HeaderName =
            header.parse().map_err(|_| bad("its header's name is not one of HTTP"))?;
        if super::headers::is_about_connection(&header)
            || [header::HOST, header::CONTENT_LENGTH].contains(&header)
        {
            return Err(bad("its header is about the connection and written by the proxy"));
        }
        let value = value.trim();
        let mut sent =
            HeaderValue::from_str(value).map_err(|_| bad("its value is not fit for a header"))?;
        sent.set_sensitive(true);
        let secret = value.split(' ').next_back().and_then(Secret::new);
        let secret = secret.ok_or_else(|| bad("its value is empty or not plain ASCII"))?;
        if !secret.is_recognisable() {
            // It would have to be taken out of every answer that holds the word by chance.
            return Err(bad("its value is too short to be kept secret"));
        }
        Ok(Self { host: name, header, value: sent, secret })
    }

    pub fn host(&self) -> &Name {
        &self.host
    }

    pub(super) fn header(&self) -> (HeaderName, HeaderValue) {
        (self.header.clone(), self.value.clone())
    }

    pub(super) fn redactor(&self) -> Redactor {
        Redactor::new(&Secrets::new([&self.secret]))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, header, .. } = self;
        write!(f, "Credential {{ host: {host}, header: {header} }}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_shows_itself_nowhere_and_is_for_one_exact_host() {
        let credential =
            Credential::new("API.example.com", "Authorization", "Bearer hidden-value-1");
        let credential = credential.expect("a credential");
        assert_eq!(credential.host().as_str(), "api.example.com");
        let (name, value) = credential.header();
        let shown = format!("{credential:?} {credential:#?} {name:?} {value:?}");
        assert!(!shown.contains("hidden-value-1"), "{shown}");
        for (host, header, value) in [
            (".example.com", "x-key", "hidden-value-1"),
            ("10.0.0.1", "x-key", "hidden-value-1"),
            ("localhost", "x-key", "hidden-value-1"),
            ("a.example.com", "x key", "hidden-value-1"),
            ("a.example.com", "Host", "hidden-value-1"),
            ("a.example.com", "Connection", "hidden-value-1"),
            ("a.example.com", "Transfer-Encoding", "hidden-value-1"),
            ("a.example.com", "Proxy-Authorization", "hidden-value-1"),
            ("a.example.com", "x-key", "hidden-value-1\r\nX-Evil: 1"),
            ("a.example.com", "x-key", "hidden-välué-1"),
            ("a.example.com", "x-key", ""),
            ("a.example.com", "x-key", "Bearer short"),
        ] {
            let error = Credential::new(host, header, value).expect_err(host).to_string();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
