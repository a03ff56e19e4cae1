//! Domains as people allow them.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// `api.example.com` is that name alone; `.example.com` is the name and all below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Domain {
    /// In lower case, without the leading dot.
    name: String,
    below: bool,
}

/// A text that is no domain.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{given}` is not a domain: write `api.example.com`, or `.example.com` for it and all below \
     (no address, port, path or `*`; other scripts as `xn--…`)"
)]
pub struct NotADomain {
    given: String,
}

impl Domain {
    /// Whether a host name is meant; it must be in lower case.
    pub fn matches(&self, host: &str) -> bool {
        match host.strip_suffix(&self.name) {
            Some("") => true,
            Some(front) => self.below && front.len() > 1 && front.ends_with('.'),
            None => false,
        }
    }

    /// Whether it is one host and none below.
    pub fn is_one_host(&self) -> bool {
        !self.below
    }

    /// Without a leading dot.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Domain {
    type Err = NotADomain;

    fn from_str(text: &str) -> Result<Self, NotADomain> {
        let (name, below) = text.strip_prefix('.').map_or((text, false), |name| (name, true));
        if is_host_name(name) && name.contains('.') {
            Ok(Self { name: name.to_ascii_lowercase(), below })
        } else {
            Err(NotADomain { given: crate::text::one_line(text, 100) })
        }
    }
}

/// Whether a text is the name of a host and nothing else: letters, digits and hyphens, in labels
/// of 63 at most. What ends in a number could be an address in one of its many spellings.
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.len() > 1 && last[..2].eq_ignore_ascii_case("0x");
    let number = last.bytes().all(|byte| byte.is_ascii_digit()) || hexadecimal;
    text.len() <= 253 && text.split('.').all(label) && !number
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.below {
            f.write_str(".")?;
        }
        f.write_str(&self.name)
    }
}

impl Serialize for Domain {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        text.parse().expect(text)
    }

    #[test]
    fn a_name_is_that_name_and_a_dot_means_all_below_too() {
        let one = domain("API.Example.com");
        assert!(one.matches("api.example.com") && one.is_one_host());
        for other in ["example.com", "x.api.example.com", "api.example.com.evil.org", ""] {
            assert!(!one.matches(other), "{other}");
        }
        let all = domain(".github.com");
        for below in ["github.com", "api.github.com", "a.b.github.com"] {
            assert!(all.matches(below), "{below}");
        }
        for other in ["evilgithub.com", "github.com.evil.org", ".github.com", "com", "ithub.com"] {
            assert!(!all.matches(other), "{other}");
        }
        assert_eq!(all.to_string(), ".github.com");
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for wrong in [
            "",
            ".",
            "com",
            ".com",
            "*.example.com",
            "example.com:443",
            "http://example.com",
            "example.com/",
            "a..b",
            "..example.com",
            "example.com.",
            "-a.com",
            "a-.com",
            "ä.com",
            "a b.com",
            "a\0.com",
            "127.0.0.1",
            "1.2",
            "0x7f.1",
            "1.0x7f",
            "[::1]",
            "::1",
            "a_b.com",
            "user@example.com",
            "2130706433",
            "%65xample.com",
        ] {
            assert!(wrong.parse::<Domain>().is_err(), "{wrong:?}");
        }
        let long = format!("{}.com", "a".repeat(64));
        assert!(long.parse::<Domain>().is_err());
        let said = "*.example.com".parse::<Domain>().expect_err("no domain").to_string();
        assert!(said.starts_with("`*.example.com` is not a domain"), "{said}");
    }
}
