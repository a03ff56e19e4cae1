//! What a sandbox tried to reach, and what became of it: told as it is decided, and summed up.

use jiff::Timestamp;
use serde::Serialize;

use crate::config::NotAName;

/// Most events of one run; what comes after is only counted.
const MAX_EVENTS: u64 = 2000;
/// Most targets that are told apart in a record.
const MAX_TARGETS: usize = 50;
/// Most bytes of a target's text.
const MAX_TARGET: usize = 255;

/// One attempt to reach something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    pub at: Timestamp,
    /// The host's name as far as it could be read. Untrusted, but cleaned.
    pub target: String,
    /// 0 where none could be read.
    pub port: u16,
    pub kind: Kind,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A tunnel for TLS.
    Connect,
    /// Plain HTTP through the proxy.
    Http,
    /// A port of this machine that was opened for the sandbox.
    HostPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    Allowed,
    Refused { reason: Refusal },
}

/// Why something did not pass. The words of [`Refusal::as_str`] are part of the record's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// Not a request for a proxy, or not a well-formed one.
    Malformed,
    /// Not a host name of at least two labels.
    BadName,
    /// An address in the place of a name.
    IpLiteral,
    NotAllowed,
    Port,
    Unresolvable,
    /// The name has an address that is not globally reachable.
    PrivateAddress,
    /// The name has an address of this machine.
    OwnAddress,
    /// The server did not accept a connection, or broke it.
    Unreachable,
    /// The server's certificate is not good for its name, or it speaks no TLS.
    UpstreamTls,
    /// Something other than TLS in a tunnel.
    NotTls,
    /// TLS that does not say which host it is for.
    NoSni,
    /// TLS for another host than the tunnel.
    SniMismatch,
    /// What was begun did not arrive in time.
    TooSlow,
    /// As many connections as may be are open.
    TooMany,
    /// The run has moved as many bytes as it may.
    Bytes,
}

impl Refusal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::BadName => "bad_name",
            Self::IpLiteral => "ip_literal",
            Self::NotAllowed => "not_allowed",
            Self::Port => "port",
            Self::Unresolvable => "unresolvable",
            Self::PrivateAddress => "private_address",
            Self::OwnAddress => "own_address",
            Self::Unreachable => "unreachable",
            Self::UpstreamTls => "upstream_tls",
            Self::NotTls => "not_tls",
            Self::NoSni => "no_sni",
            Self::SniMismatch => "sni_mismatch",
            Self::TooSlow => "too_slow",
            Self::TooMany => "too_many",
            Self::Bytes => "bytes",
        }
    }
}

impl From<NotAName> for Refusal {
    fn from(why: NotAName) -> Self {
        match why {
            NotAName::Address => Self::IpLiteral,
            NotAName::Malformed => Self::BadName,
        }
    }
}

impl Attempt {
    pub fn new(kind: Kind, target: &str, port: u16, outcome: Result<(), Refusal>) -> Self {
        let outcome = match outcome {
            Ok(()) => Outcome::Allowed,
            Err(reason) => Outcome::Refused { reason },
        };
        let target = crate::text::one_line(crate::text::prefix(target, MAX_TARGET), MAX_TARGET);
        let target = crate::text::prefix(&target, MAX_TARGET).to_owned();
        Self { at: Timestamp::now(), target, port, kind, outcome }
    }
}

/// All attempts of a run, summed up.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EgressRecord {
    pub allowed: u64,
    pub refused: u64,
    /// By the sandbox.
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// The first so many; `allowed` and `refused` count the rest as well.
    pub targets: Vec<TargetRecord>,
    #[serde(skip)]
    told: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetRecord {
    pub host: String,
    pub port: u16,
    pub allowed: u64,
    pub refused: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_refusal: Option<Refusal>,
}

impl TargetRecord {
    fn new(attempt: &Attempt) -> Self {
        let host = attempt.target.clone();
        Self { host, port: attempt.port, allowed: 0, refused: 0, last_refusal: None }
    }
}

impl EgressRecord {
    /// Counts an attempt. Says whether it is to be told as an event as well.
    pub(in crate::gateway) fn count(&mut self, attempt: &Attempt) -> bool {
        let same =
            |target: &TargetRecord| target.port == attempt.port && target.host == attempt.target;
        let place = self.targets.iter().position(same).or_else(|| {
            let free = self.targets.len() < MAX_TARGETS;
            free.then(|| self.targets.push(TargetRecord::new(attempt)))?;
            self.targets.len().checked_sub(1)
        });
        let target = place.and_then(|place| self.targets.get_mut(place));
        match attempt.outcome {
            Outcome::Allowed => {
                self.allowed += 1;
                if let Some(target) = target {
                    target.allowed += 1;
                }
            }
            Outcome::Refused { reason } => {
                self.refused += 1;
                if let Some(target) = target {
                    target.refused += 1;
                    target.last_refusal = Some(reason);
                }
            }
        }
        self.told += 1;
        self.told <= MAX_EVENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_but_neither_told_nor_kept() {
        let mut record = EgressRecord::default();
        let mut told = 0;
        for number in 0..3000 {
            let name = format!("host-{}.example.com", number % 100);
            let outcome = if number % 2 == 0 { Ok(()) } else { Err(Refusal::NotAllowed) };
            told += u64::from(record.count(&Attempt::new(Kind::Connect, &name, 443, outcome)));
        }
        assert_eq!((record.allowed, record.refused, told), (1500, 1500, MAX_EVENTS));
        assert_eq!(record.targets.len(), MAX_TARGETS);
        assert_eq!(record.targets[0].allowed, 30);
        assert_eq!(record.targets[1].last_refusal, Some(Refusal::NotAllowed));
        let kept: u64 = record.targets.iter().map(|target| target.allowed + target.refused).sum();
        assert_eq!(kept, 1500, "what has no place of its own is in nobody else's");
    }

    #[test]
    fn a_target_is_cleaned_and_short_and_the_words_are_those_of_the_format() {
        let text = format!("\u{1b}[31mevil\r\n{}", "ä".repeat(500));
        let refused = Err(Refusal::SniMismatch);
        let attempt = Attempt::new(Kind::HostPort, &text, 1, refused);
        assert!(attempt.target.len() <= MAX_TARGET && !attempt.target.contains(['\u{1b}', '\n']));
        let json = serde_json::to_value(&attempt).expect("plain");
        assert_eq!(json["kind"], "host_port");
        assert_eq!(json["outcome"]["result"], "refused");
        assert_eq!(json["outcome"]["reason"], Refusal::SniMismatch.as_str());
    }
}
