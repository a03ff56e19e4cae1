//! Host names: what a sandbox asks for ([`Name`]) and what a person allows ([`Domain`]).
//!
//! Both are strict about their bytes, so that no two readers can take them for different hosts: no
//! numbers in the place of a name, no percent signs, nothing beyond ASCII, no dot at the end.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAName {
    /// Some resolver could read it as an address.
    Address,
    Malformed,
}

/// A text that is no domain.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{}` is not a domain: {why}; write `api.example.com`, or `.example.com` for it and all below",
    crate::text::one_line(text, 100)
)]
pub struct NotADomain {
    text: String,
    why: &'static str,
}

/// A DNS name of at least two labels, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    pub fn parse(text: &str) -> Result<Self, NotAName> {
        if is_address(text) {
            return Err(NotAName::Address);
        }
        let fit = text.len() <= 253 && text.contains('.') && text.split('.').all(is_label);
        if fit { Ok(Self(text.to_ascii_lowercase())) } else { Err(NotAName::Malformed) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Letters, digits and hyphens, as in RFC 1123.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Whether some resolver could read this as an address. Besides the usual forms, old C libraries
/// take `127.1`, `2130706433`, `0x7f000001` and `0177.0.0.1`; what they share is a last label that
/// is a number. No real domain has such a label.
fn is_address(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = |label: &str| {
        let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
        hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            || (!label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()))
    };
    is_number(last) || bare.parse::<IpAddr>().is_ok() || text.starts_with('[')
}

/// What may be reached: one name, or with a dot in front a name and all names below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain {
    name: Name,
    below: bool,
}

impl Domain {
    pub fn matches(&self, name: &Name) -> bool {
        match name.0.strip_suffix(self.name.as_str()) {
            Some("") => true,
            // The dot keeps `evilgithub.com` out of `.github.com`.
            Some(front) => self.below && front.ends_with('.'),
            None => false,
        }
    }
}

impl FromStr for Domain {
    type Err = NotADomain;

    fn from_str(text: &str) -> Result<Self, NotADomain> {
        let (below, name) = match text.strip_prefix('.') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bad = |why| NotADomain { text: text.chars().take(260).collect(), why };
        match Name::parse(name) {
            Ok(name) => Ok(Self { name, below }),
            Err(NotAName::Address) => Err(bad("addresses are never allowed, only names")),
            Err(_) if name.contains('*') => Err(bad("there are no wildcards")),
            Err(_) if name.contains([':', '/']) => Err(bad("it has a port, scheme or path")),
            Err(_) if !name.is_ascii() => Err(bad("it must be given as punycode (xn--…)")),
            Err(_) if !name.contains('.') => Err(bad("it has only one label")),
            Err(_) => Err(bad("it is not a host name")),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "." } else { "" }, self.name)
    }
}

impl TryFrom<String> for Domain {
    type Error = NotADomain;

    fn try_from(text: String) -> Result<Self, NotADomain> {
        text.parse()
    }
}

impl From<Domain> for String {
    fn from(domain: Domain) -> Self {
        domain.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(domain: &str, name: &str) -> bool {
        let domain: Domain = domain.parse().expect("a domain");
        domain.matches(&Name::parse(name).expect("a name"))
    }

    #[test]
    fn an_exact_name_matches_itself_and_a_dotted_one_all_below() {
        assert!(allows("api.example.com", "API.Example.COM"));
        assert!(!allows("api.example.com", "x.api.example.com"));
        assert!(!allows("api.example.com", "example.com"));
        assert!(allows(".github.com", "github.com"));
        assert!(allows(".GitHub.com", "a.b.github.com"));
        for stranger in ["evilgithub.com", "github.com.evil.org", "github.co", "xn--github.com"] {
            assert!(!allows(".github.com", stranger), "{stranger}");
            assert!(!allows("github.com", stranger), "{stranger}");
        }
    }

    #[test]
    fn addresses_in_every_spelling_are_no_names() {
        for address in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0X7F.1",
            "0177.0.0.1",
            "1.2.3.0x4",
            "0x",
            "127.0.0.1.",
            "[::1]",
            "::1",
            "[::ffff:127.0.0.1]",
            "::ffff:7f00:1",
            "fe80::1",
            "example.com.1",
            "999.999.999.999",
            "[example.com]",
        ] {
            assert_eq!(Name::parse(address), Err(NotAName::Address), "{address}");
            address.parse::<Domain>().expect_err(address);
        }
    }

    #[test]
    fn names_with_anything_else_in_them_are_refused() {
        let long = format!("{}.com", "a".repeat(64));
        let longest = format!("{}com", "a.".repeat(126));
        for name in [
            "",
            ".",
            "com",
            "localhost",
            ".com",
            "a..com",
            "example.com.",
            "-a.com",
            "a-.com",
            "a_b.com",
            "a b.com",
            "a.com ",
            "a.com\0",
            "a%2ecom.org",
            "exämple.com",
            "a.com/",
            "a*b.com",
            "*.com",
            "a.com\r\n",
            "a\u{3002}com.org",
            "user@a.com",
            "a.com#",
            "a.com\\b.org",
            &long,
            &longest,
        ] {
            assert_eq!(Name::parse(name), Err(NotAName::Malformed), "{name:?}");
        }
        assert!(Name::parse(&format!("{}.com", "a".repeat(63))).is_ok());
        assert!(Name::parse("r3---sn-4g5e6.xn--bcher-kva.example").is_ok());
    }

    #[test]
    fn a_domain_says_what_is_wrong_with_it() {
        for (text, why) in [
            ("*.github.com", "wildcard"),
            ("https://github.com", "scheme"),
            ("github.com:443", "port"),
            ("bücher.example", "punycode"),
            (".com", "one label"),
            ("", "one label"),
            ("..github.com", "not a host name"),
            ("10.0.0.1", "addresses"),
        ] {
            let error = text.parse::<Domain>().expect_err(text).to_string();
            assert!(error.contains(why) && error.contains(".example.com"), "{error}");
        }
        let domain: Domain = serde_json::from_str("\".GitHub.com\"").expect("a domain");
        assert_eq!(serde_json::to_string(&domain).expect("plain"), "\".github.com\"");
    }
}
